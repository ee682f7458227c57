import { describe, expect, test } from 'vitest';
import type { StatusDetail, StoreView } from '../../../agent/serve/messages.ts';
import { metricsText } from '../../../agent/serve/metrics-text.ts';
import { BUCKET_MICROS, metricsBytes, ThreadMetrics } from '../../../agent/serve/metrics.ts';
import { REASONS } from '../../../protocol/frames.ts';

interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

interface Family {
  readonly type: string;
  readonly help: string;
  readonly samples: Sample[];
}

/** Reads the Prometheus text format 0.0.4, and fails on what a scraper would refuse. */
function parse(text: string): Map<string, Family> {
  expect(text.endsWith('\n')).toBe(true);
  const families = new Map<string, Family>();
  const helps = new Map<string, string>();
  let current: { name: string; family: Family } | null = null;
  for (const line of text.slice(0, -1).split('\n')) {
    const help = /^# HELP ([a-z_]+) (\S.*)$/.exec(line);
    const type = /^# TYPE ([a-z_]+) (counter|gauge|histogram)$/.exec(line);
    if (help !== null) {
      expect(helps.has(help[1]!), `HELP of ${help[1]} once`).toBe(false);
      helps.set(help[1]!, help[2]!);
    } else if (type !== null) {
      expect(families.has(type[1]!), `TYPE of ${type[1]} once`).toBe(false);
      expect(helps.has(type[1]!), `HELP before TYPE of ${type[1]}`).toBe(true);
      current = { name: type[1]!, family: { type: type[2]!, help: helps.get(type[1]!)!, samples: [] } };
      families.set(current.name, current.family);
    } else {
      const sample = parseSample(line);
      const suffixes = current?.family.type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
      expect(
        suffixes.map((suffix) => `${current?.name}${suffix}`),
        `${line} is inside its family`,
      ).toContain(sample.name);
      current?.family.samples.push(sample);
    }
  }
  expect([...helps.keys()]).toEqual([...families.keys()]);
  return families;
}

function parseSample(line: string): Sample {
  const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
  expect(match, line).not.toBeNull();
  const [, name = '', inner = '', value = ''] = match!;
  const pairs = [...inner.matchAll(/([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\.)*)"(,|$)/g)];
  expect(pairs.map(([whole]) => whole).join(''), line).toBe(inner);
  expect(Number.isNaN(Number(value)), line).toBe(false);
  return { name, labels: Object.fromEntries(pairs.map(([, key = '', text = '']) => [key, text])), value: Number(value) };
}

const SLOTS = ['cd/scanner-a', 'depth'];
const STATUS: StatusDetail = {
  isStopping: false,
  slots: [
    { slot: 'cd/scanner-a', state: 'ready', bundleId: 'ab'.repeat(32), version: '1.2.0', lane: 'inline', reason: null },
    { slot: 'depth', state: 'refused', bundleId: null, version: null, lane: null, reason: 'it said "no"\nand more' },
  ],
};

const STORE: StoreView = {
  report: {
    state: 'draining',
    processId: 7,
    restarts: 3,
    entries: 12,
    headIndex: 11,
    lagBytes: 400,
    fileBytes: 8192,
    usedBytes: 4096,
    freeBytes: 1e9,
    lastCommitMillis: 1,
    commitPendingMillis: 0,
    dropped: { telemetry: 0, records: 0, lost: 0 },
  },
  lifetime: { depth: { model: 5, clamped: 0, fallback: 1 }, gone: { model: 2, clamped: 0, fallback: 0 } },
};

function threads(): ThreadMetrics[] {
  return [0, 1].map(() => new ThreadMetrics(new SharedArrayBuffer(metricsBytes(SLOTS.length))));
}

function valueOf(families: Map<string, Family>, name: string, labels: Readonly<Record<string, string>> = {}): number | undefined {
  const found = families
    .get(name)
    ?.samples.filter((sample) => Object.entries(labels).every(([key, value]) => sample.labels[key] === value));
  expect(found?.length ?? 0).toBeLessThanOrEqual(1);
  return found?.[0]?.value;
}

describe('metricsText()', () => {
  test('is the Prometheus text format, each family once, with a type that fits its name', () => {
    const families = parse(metricsText(threads(), SLOTS, STATUS, false, STORE));
    expect(families.size).toBeGreaterThan(15);
    for (const [name, { type }] of families) {
      expect(name).toMatch(/^setpoint_/);
      expect(name.endsWith('_total'), name).toBe(type === 'counter');
    }
  });

  test('never gives the same sample twice', () => {
    const all = [...parse(metricsText(threads(), SLOTS, STATUS, true, STORE)).values()].flatMap(({ samples }) => samples);
    const keys = all.map(({ name, labels }) => `${name} ${JSON.stringify(labels)}`);
    expect(new Set(keys).size).toBe(keys.length);
  });

  test('adds the threads up', () => {
    const blocks = threads();
    blocks[0]!.add('turns', 3);
    blocks[1]!.add('turns', 4);
    blocks[0]!.add('connectionsOpen', 2);
    blocks[1]!.answered(1, 2, REASONS.deadline, 15);
    blocks[0]!.answered(1, 2, REASONS.deadline | REASONS.fallback_missing, 15);
    blocks[0]!.addToSlot(0, 'discarded', 6);
    const families = parse(metricsText(blocks, SLOTS, STATUS, true, STORE));
    expect(valueOf(families, 'setpoint_ready')).toBe(1);
    expect(valueOf(families, 'setpoint_turns_total')).toBe(7);
    expect(valueOf(families, 'setpoint_connections_open')).toBe(2);
    expect(valueOf(families, 'setpoint_decisions_total', { slot: 'depth', action: 'fallback' })).toBe(2);
    expect(valueOf(families, 'setpoint_decisions_total', { slot: 'cd/scanner-a', action: 'fallback' })).toBe(0);
    expect(valueOf(families, 'setpoint_reasons_total', { slot: 'depth', reason: 'deadline' })).toBe(2);
    expect(valueOf(families, 'setpoint_reasons_total', { slot: 'depth', reason: 'fallback_missing' })).toBe(1);
    expect(valueOf(families, 'setpoint_late_results_total', { slot: 'cd/scanner-a' })).toBe(6);
  });

  test('tells each slot with its bundle and state', () => {
    const families = parse(metricsText(threads(), SLOTS, STATUS, false, STORE));
    expect(families.get('setpoint_slot_info')?.samples).toEqual([
      { name: 'setpoint_slot_info', labels: { slot: 'cd/scanner-a', bundle: 'ab'.repeat(32), version: '1.2.0', state: 'ready' }, value: 1 },
      { name: 'setpoint_slot_info', labels: { slot: 'depth', bundle: '', version: '', state: 'refused' }, value: 1 },
    ]);
    expect(valueOf(families, 'setpoint_ready')).toBe(0);
  });

  test('gives a histogram per slot: cumulative buckets in rising order, +Inf last and equal to the count, the sum in seconds', () => {
    const blocks = threads();
    const times = [3, 10, 12, 99, 100, 9999, 10_001, 5e8];
    times.forEach((time, at) => blocks[at % 2]!.answered(0, 0, 0, time));
    const samples = parse(metricsText(blocks, SLOTS, STATUS, true, STORE)).get('setpoint_service_seconds')?.samples ?? [];
    for (const [slot, expected] of [
      ['cd/scanner-a', times],
      ['depth', []],
    ] as const) {
      const own = samples.filter(({ labels }) => labels['slot'] === slot);
      const buckets = own.filter(({ name }) => name.endsWith('_bucket'));
      const bounds = buckets.map(({ labels }) => (labels['le'] === '+Inf' ? Infinity : Number(labels['le'])));
      expect(bounds).toEqual([...BUCKET_MICROS.map((bound) => bound / 1e6), Infinity]);
      expect(buckets.map(({ value }) => value)).toEqual(bounds.map((bound) => expected.filter((time) => time / 1e6 <= bound).length));
      expect(own.find(({ name }) => name.endsWith('_count'))?.value).toBe(expected.length);
      expect(own.find(({ name }) => name.endsWith('_sum'))?.value).toBeCloseTo(
        expected.reduce((sum, time) => sum + time / 1e6, 0),
        9,
      );
    }
  });

  test('is valid for an agent without slots', () => {
    const one = [new ThreadMetrics(new SharedArrayBuffer(metricsBytes(0)))];
    expect(parse(metricsText(one, [], { ...STATUS, slots: [] }, true, STORE)).get('setpoint_decisions_total')?.samples).toEqual([]);
  });

  test('tells how the store is, and nothing that is old when it is down', () => {
    const up = parse(metricsText(threads(), SLOTS, STATUS, true, STORE));
    expect(['setpoint_store_up', 'setpoint_store_restarts_total', 'setpoint_store_lag_bytes'].map((name) => valueOf(up, name))).toEqual([
      1, 3, 400,
    ]);
    const down = parse(metricsText(threads(), SLOTS, STATUS, true, { ...STORE, report: { ...STORE.report!, state: 'down' } }));
    expect([valueOf(down, 'setpoint_store_up'), down.has('setpoint_store_lag_bytes')]).toEqual([0, false]);
    const none = parse(metricsText(threads(), SLOTS, STATUS, true, { ...STORE, report: null }));
    expect(none.has('setpoint_store_up')).toBe(false);
  });

  test('counts decisions on from what was kept, also of slots that are gone', () => {
    const blocks = threads();
    blocks[0]!.answered(1, 2, 0, 15);
    const families = parse(metricsText(blocks, SLOTS, STATUS, true, STORE));
    const count = (slot: string, action: string) => valueOf(families, 'setpoint_lifetime_decisions_total', { slot, action });
    expect([count('depth', 'model'), count('depth', 'fallback'), count('gone', 'model'), count('cd/scanner-a', 'model')]).toEqual([
      5, 2, 2, 0,
    ]);
  });
});
