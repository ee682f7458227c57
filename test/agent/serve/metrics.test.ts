import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  BUCKET_MICROS,
  metricsBytes,
  REASON_NAMES,
  serviceTime,
  SLOT_FIELD_NAMES,
  sumFine,
  THREAD_FIELD_NAMES,
  ThreadMetrics,
} from '../../../agent/serve/metrics.ts';
import { REASONS } from '../../../protocol/frames.ts';

/** Longer than the last bucket's bound. */
const BEYOND = BUCKET_MICROS[BUCKET_MICROS.length - 1]! + 0.5;

function block(slots = 2): ThreadMetrics {
  return new ThreadMetrics(new SharedArrayBuffer(metricsBytes(slots)));
}

function buckets(metrics: ThreadMetrics, slot: number): number[] {
  return Array.from({ length: BUCKET_MICROS.length + 1 }, (_, bucket) => metrics.slotBucket(slot, bucket));
}

describe('a metrics block', () => {
  test('keeps every field of a thread and of a slot apart', () => {
    const metrics = block(3);
    THREAD_FIELD_NAMES.forEach((field, at) => metrics.add(field, at + 1));
    for (const slot of [0, 1, 2]) SLOT_FIELD_NAMES.forEach((field, at) => metrics.addToSlot(slot, field, 100 * (slot + 1) + at));
    expect(THREAD_FIELD_NAMES.map((field) => metrics.get(field))).toEqual(THREAD_FIELD_NAMES.map((_, at) => at + 1));
    for (const slot of [0, 1, 2]) {
      expect(SLOT_FIELD_NAMES.map((field) => metrics.slotField(slot, field))).toEqual(
        SLOT_FIELD_NAMES.map((_, at) => 100 * (slot + 1) + at),
      );
      expect(buckets(metrics, slot).every((count) => count === 0)).toBe(true);
    }
    expect(metrics.fineCounts().every((count) => count === 0)).toBe(true);
  });

  test('adds up, one when no amount is given', () => {
    const metrics = block();
    metrics.add('turns');
    metrics.add('turns', 5);
    metrics.addToSlot(1, 'errors');
    metrics.addToSlot(1, 'errors', 2);
    expect([metrics.get('turns'), metrics.slotField(1, 'errors'), metrics.slotField(0, 'errors')]).toEqual([6, 3, 0]);
  });

  test('is seen by everyone who has its memory', () => {
    const metrics = block();
    const reader = new ThreadMetrics(metrics.shared);
    metrics.add('badFrames', 3);
    expect(reader.get('badFrames')).toBe(3);
  });
});

describe('answered()', () => {
  test('counts the request, its action, its reasons, its bucket and its time, for its slot only', () => {
    const metrics = block();
    metrics.answered(1, 0, 0, 12);
    metrics.answered(1, 1, REASONS.clamp_step | REASONS.clamp_window, 20);
    metrics.answered(1, 2, REASONS.deadline | REASONS.fallback_missing, BEYOND);
    expect(['requests', 'model', 'clamped', 'fallback', 'errors'].map((field) => metrics.slotField(1, field as 'requests'))).toEqual([
      3, 1, 1, 1, 0,
    ]);
    const counted = REASON_NAMES.filter((_, at) => metrics.slotReason(1, at) === 1);
    expect(counted).toEqual(['deadline', 'clamp_window', 'clamp_step', 'fallback_missing']);
    expect(metrics.slotMicros(1)).toBe(32 + BEYOND);
    expect(buckets(metrics, 1)).toEqual(BUCKET_MICROS.map((bound) => (bound === 15 || bound === 20 ? 1 : 0)).concat(1));
    expect(SLOT_FIELD_NAMES.every((field) => metrics.slotField(0, field) === 0)).toBe(true);
    expect(buckets(metrics, 0).every((count) => count === 0)).toBe(true);
  });

  test('puts a time on a bound into the bucket of that bound, as Prometheus reads "le"', () => {
    const metrics = block();
    for (const bound of BUCKET_MICROS) metrics.answered(0, 0, 0, bound);
    metrics.answered(0, 0, 0, BEYOND);
    expect(buckets(metrics, 0)).toEqual([...BUCKET_MICROS.map(() => 1), 1]);
  });

  test('counts every reason there is under its own name', () => {
    REASON_NAMES.forEach((name, at) => {
      const metrics = block();
      metrics.answered(0, 2, REASONS[name], 1);
      expect(REASON_NAMES.map((_, one) => metrics.slotReason(0, one))).toEqual(REASON_NAMES.map((_, one) => (one === at ? 1 : 0)));
    });
  });
});

describe('serviceTime()', () => {
  test('is all zeros without requests', () => {
    expect(serviceTime([block()], null)).toEqual({ count: 0, p50Micros: 0, p90Micros: 0, p99Micros: 0, p999Micros: 0, maxMicros: 0 });
  });

  test('gives percentiles at most 3.2 % above the true ones, and never below', () => {
    const micros = fc.oneof(fc.double({ min: 1, max: 100, noNaN: true }), fc.double({ min: 1, max: 1.6e7, noNaN: true }));
    fc.assert(
      fc.property(fc.array(micros, { minLength: 1, maxLength: 300 }), (times) => {
        const threads = [block(), block()];
        times.forEach((time, at) => threads[at % 2]!.answered(at % 2, 0, 0, time));
        const sorted = times.toSorted((left, right) => left - right);
        const result = serviceTime(threads, null);
        expect(result.count).toBe(times.length);
        const pairs = [
          [result.p50Micros, 0.5],
          [result.p90Micros, 0.9],
          [result.p99Micros, 0.99],
          [result.p999Micros, 0.999],
          [result.maxMicros, 1],
        ] as const;
        for (const [found, fraction] of pairs) {
          const exact = sorted[Math.ceil(fraction * times.length) - 1]!;
          expect(found).toBeGreaterThanOrEqual(exact);
          expect(found).toBeLessThanOrEqual(exact * 1.032);
        }
      }),
    );
  });

  test('counts what is shorter than 1 us as about 1 us, and what is longer than 16 s in the last bucket', () => {
    const short = block();
    short.answered(0, 0, 0, 0.2);
    expect(serviceTime([short], null).maxMicros).toBeCloseTo(1.03, 2);
    const long = block();
    long.answered(0, 0, 0, 3e9);
    expect(serviceTime([long], null).maxMicros).toBe(2 ** 24);
  });

  test('leaves out what was counted before', () => {
    const metrics = block();
    for (let index = 0; index < 100; index++) metrics.answered(0, 0, 0, 1000);
    const before = sumFine([metrics]);
    metrics.answered(0, 0, 0, 10);
    const { count, maxMicros } = serviceTime([metrics], before);
    expect(count).toBe(1);
    expect(maxMicros).toBeLessThan(10.4);
    expect(serviceTime([metrics], null).count).toBe(101);
  });
});
