import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeGap, encodeAlert, encodeGap, type Gap, GAP_REASONS, gapRecord } from '../../../agent/journal/gap.ts';
import { decodeRecord, RECORD_KINDS } from '../../../agent/journal/record.ts';
import { GOLDEN_RECORDS, hexOf } from './golden-journal.ts';

const gaps: fc.Arbitrary<Gap> = fc
  .record({
    from: fc.integer({ min: 1, max: 2 ** 50 }),
    length: fc.integer({ min: 1, max: 1e6 }),
    isExact: fc.boolean(),
    reason: fc.constantFrom(...GAP_REASONS),
    detail: fc.string(),
  })
  .map(({ length, ...gap }) => ({ ...gap, to: gap.from + length - 1, count: length }));

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

describe('a gap', () => {
  test('has its golden bytes', () => {
    const golden = GOLDEN_RECORDS.find(({ kind }) => kind === RECORD_KINDS.gap)!;
    const gap: Gap = { from: 4_294_967_302, to: 4_294_967_310, count: 9, isExact: true, reason: 'disk_full', detail: 'ENOSPC' };
    expect(hexOf(gapRecord(gap, golden.timeMicros))).toBe(golden.hex);
    expect(decodeGap(golden.request)).toEqual(gap);
  });

  test('is what it was after encoding and decoding, and its number is the last that is lost', () => {
    fc.assert(
      fc.property(gaps, (gap) => {
        expect(decodeGap(encodeGap(gap))).toEqual(gap);
        const record = decodeRecord(gapRecord(gap, 77), 0);
        expect(record).toMatchObject({ kind: RECORD_KINDS.gap, sequence: gap.to, timeMicros: 77 });
      }),
    );
  });

  const good = { from: 3, to: 5, count: 3, isExact: true, reason: 'disk_full', detail: '' };

  test.each([
    ['no JSON', 'from 3 to 5'],
    ['null', 'null'],
    ['a number', '3'],
    ['a list', '[3, 5]'],
    ['no detail', JSON.stringify({ ...good, detail: undefined })],
    ['an unknown reason', JSON.stringify({ ...good, reason: 'mice' })],
    ['a text for a number', JSON.stringify({ ...good, to: '5' })],
    ['a fraction', JSON.stringify({ ...good, from: 3.5 })],
    ['a negative count', JSON.stringify({ ...good, count: -1 })],
    ['more records than numbers', JSON.stringify({ ...good, count: 4 })],
    ['an end before its start', JSON.stringify({ ...good, to: 2 })],
    ['a start below every number', JSON.stringify({ ...good, from: 0 })],
    ['a truth that is none', JSON.stringify({ ...good, isExact: 1 })],
  ])('is not read from %s', (_name, body) => {
    expect(decodeGap(text(JSON.stringify(good)))).toEqual(good);
    expect(decodeGap(text(body))).toBeNull();
  });

  test('is not read from bytes that are no text', () => {
    expect(decodeGap(Uint8Array.of(0x22, 0xff, 0x22))).toBeNull();
  });
});

test('encodeAlert() gives the golden bytes', () => {
  const golden = GOLDEN_RECORDS.find(({ kind }) => kind === RECORD_KINDS.alert)!;
  expect(hexOf(encodeAlert({ alert: 'guard', slot: 'etch', message: 'spread' }))).toBe(hexOf(golden.request));
});
