import { describe, expect, test } from 'vitest';
import { nextRetentionStep } from '../../../agent/store/retention.ts';
import type { StoreSettings } from '../../../agent/store/settings.ts';
import type { StoreUsage } from '../../../agent/store/writer.ts';

const DAY_MILLIS = 86_400_000;
const NOW_MICROS = 1_795_000_000_000_000;

type Settings = Pick<StoreSettings, 'maxBytes' | 'telemetryMaxAgeMillis' | 'auditMaxAgeMillis' | 'onFull'>;

function next(settings: Partial<Settings>, usage: Partial<StoreUsage>): unknown {
  return nextRetentionStep(
    { maxBytes: 1000, telemetryMaxAgeMillis: null, auditMaxAgeMillis: null, onFull: 'hold', ...settings },
    {
      entries: 10,
      firstIndex: 1,
      telemetryFirstIndex: 1,
      oldestTelemetryMicros: daysAgo(40),
      oldestMicros: daysAgo(50),
      usedBytes: 900,
      fileBytes: 2000,
      ...usage,
    },
    NOW_MICROS,
  );
}

function daysAgo(days: number): number {
  return NOW_MICROS - days * DAY_MILLIS * 1000;
}

describe('nextRetentionStep()', () => {
  test('drops nothing within the limits, however old, when no age is given', () => {
    expect(next({}, {})).toEqual({ action: 'none' });
    expect(next({ telemetryMaxAgeMillis: 41 * DAY_MILLIS, auditMaxAgeMillis: 51 * DAY_MILLIS }, {})).toEqual({ action: 'none' });
  });

  test('drops telemetry over its age before anything else', () => {
    const ages = { telemetryMaxAgeMillis: 30 * DAY_MILLIS, auditMaxAgeMillis: 45 * DAY_MILLIS };
    expect(next(ages, { usedBytes: 2000 })).toEqual({ action: 'drop_telemetry', reason: 'age', olderThanMicros: daysAgo(30) });
  });

  test('over the cap: telemetry first, also when records are over their age', () => {
    expect(next({ auditMaxAgeMillis: DAY_MILLIS }, { usedBytes: 1001 })).toEqual({ action: 'drop_telemetry', reason: 'size' });
    expect(next({}, { usedBytes: 1000 })).toEqual({ action: 'none' });
  });

  test('drops records over their age', () => {
    expect(next({ auditMaxAgeMillis: 45 * DAY_MILLIS }, { oldestTelemetryMicros: null })).toEqual({
      action: 'drop_records',
      reason: 'age',
      olderThanMicros: daysAgo(45),
    });
  });

  test.each([
    ['hold', { action: 'hold' }],
    ['drop_oldest', { action: 'drop_records', reason: 'size' }],
  ] as const)('over the cap without telemetry, policy %s', (onFull, step) => {
    expect(next({ onFull }, { usedBytes: 1001, oldestTelemetryMicros: null })).toEqual(step);
  });

  test('what is left after all was dropped is held: dropping would only add events', () => {
    const usage = { usedBytes: 1001, oldestTelemetryMicros: null };
    expect(next({ onFull: 'drop_oldest' }, { ...usage, entries: 2 })).toEqual({ action: 'hold' });
    expect(next({ onFull: 'drop_oldest' }, { ...usage, entries: 3 })).toEqual({ action: 'drop_records', reason: 'size' });
  });

  test('an empty store has nothing to drop', () => {
    const ages = { telemetryMaxAgeMillis: 0, auditMaxAgeMillis: 0 };
    expect(next(ages, { entries: 0, oldestTelemetryMicros: null, oldestMicros: null, usedBytes: 0 })).toEqual({ action: 'none' });
  });
});
