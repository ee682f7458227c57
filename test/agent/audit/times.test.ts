import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { formatMicros, formatMillis, parseTime } from '../../../agent/audit/times.ts';

const noon = Date.UTC(2026, 10, 22, 12) * 1000;

describe('parseTime()', () => {
  test.each([
    ['2026-11-22T12:00:00Z', noon],
    ['2026-11-22T12:00', noon],
    ['2026-11-22 12:00:00', noon],
    ['2026-11-22t12:00:00z', noon],
    ['2026-11-22T21:00:00+09:00', noon],
    ['2026-11-22T21:00:00+0900', noon],
    ['2026-11-22T04:30:00-07:30', noon],
    ['2026-11-22T12:00:00.25Z', noon + 250_000],
    ['2026-11-22T12:00:00,000001', noon + 1],
    ['2024-02-29', Date.UTC(2024, 1, 29) * 1000],
    ['1970-01-01', 0],
  ])('%s', (text, micros) => {
    expect(parseTime(text, false)).toBe(micros);
  });

  test('as an end, a date is its last microsecond, and a time is itself', () => {
    expect(parseTime('2026-11-22', true)).toBe(Date.UTC(2026, 10, 23) * 1000 - 1);
    expect(parseTime('2026-11-22T12:00', true)).toBe(noon);
  });

  test.each([
    '',
    'yesterday',
    '2026',
    '2026-11',
    '2026-13-01',
    '2026-02-30',
    '2025-02-29',
    '2026-11-22T24:00',
    '2026-11-22T12:60',
    '2026-11-22T12:00:60',
    '2026-11-22T12',
    '2026-11-22T12:00:00.1234567',
    '2026-11-22T12:00 PST',
    '2026-11-22T12:00+24:00',
    '1969-12-31',
    '1970-01-01T00:00+09:00',
    '0026-11-22',
    ' 2026-11-22',
    '1795000000000',
  ])('%j is no time', (text) => {
    expect(parseTime(text, false)).toBeNull();
  });
});

test('what formatMicros() writes, parseTime() reads', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }), (micros) => {
      expect(parseTime(formatMicros(micros), true)).toBe(micros);
    }),
  );
  expect(formatMicros(noon + 5)).toBe('2026-11-22T12:00:00.000005Z');
  expect(formatMillis(noon / 1000 + 5)).toBe('2026-11-22T12:00:00.005Z');
});
