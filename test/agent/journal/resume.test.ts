import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GAP_REASONS } from '../../../agent/journal/gap.ts';
import type { Mark } from '../../../agent/journal/mark.ts';
import { type FoundSegment, MAX_UNSYNCED_RECORDS, resume } from '../../../agent/journal/resume.ts';

const whole: FoundSegment = { firstSequence: 100, lastSequence: 200, isDamaged: false, hiddenRecords: 0 };
const open: Mark = {
  stream: 0,
  state: 'open',
  given: 150,
  from: 151,
  durability: 'process',
  reason: null,
  sinceMicros: 0,
  bootId: 'a',
  detail: '',
};
const failing: Mark = { ...open, state: 'failing', given: 230, from: 201, reason: 'disk_full', sinceMicros: 1, detail: 'ENOSPC' };

describe('resume()', () => {
  test('begins a stream where there is nothing', () => {
    expect(resume(null, null, 'a')).toEqual({ gaps: [], last: 0 });
  });

  test('goes on behind the last record after a stop, and after a kill', () => {
    expect(resume(whole, { ...open, state: 'clean', given: 200, from: 201 }, 'b')).toEqual({ gaps: [], last: 200 });
    expect(resume(whole, open, 'a')).toEqual({ gaps: [], last: 200 });
  });

  test('states exactly what a kill took of a journal that failed', () => {
    const detail = 'ENOSPC';
    expect(resume(whole, failing, 'a')).toEqual({
      gaps: [{ from: 201, to: 230, count: 30, isExact: true, reason: 'disk_full', detail }],
      last: 230,
    });
    // It had written everything that had waited, and could not say so.
    expect(resume({ ...whole, lastSequence: 230 }, failing, 'a')).toEqual({ gaps: [], last: 230 });
  });

  test('states both what waited and what a power cut may have taken', () => {
    expect(resume(whole, failing, 'b').gaps).toMatchObject([
      { from: 201, to: 230, isExact: true, reason: 'disk_full' },
      { from: 231, to: 230 + MAX_UNSYNCED_RECORDS, isExact: false, reason: 'power_cut' },
    ]);
  });

  test('states records of a failed sync that may be there, with a number of its own', () => {
    const suspect: Mark = { ...failing, given: 200, from: 180, reason: 'sync_failed' };
    expect(resume(whole, suspect, 'a').gaps).toMatchObject([{ from: 180, to: 201, isExact: false, reason: 'sync_failed' }]);
    expect(resume(whole, { ...suspect, given: 260 }, 'a').gaps).toMatchObject([{ from: 180, to: 260, isExact: false }]);
  });

  test('takes no statement for exact that an earlier start could not write', () => {
    expect(resume(whole, { ...failing, reason: 'power_cut' }, 'a').gaps).toMatchObject([{ isExact: false, reason: 'power_cut' }]);
  });

  test('takes a boot that has no name for another one', () => {
    expect(resume(whole, { ...open, bootId: '' }, '').last).toBe(200 + MAX_UNSYNCED_RECORDS);
  });

  test('never gives a number twice, and leaves none out that it does not state', () => {
    const found = fc.record({
      firstSequence: fc.integer({ min: 1, max: 300 }),
      length: fc.nat(100),
      isDamaged: fc.boolean(),
      hiddenRecords: fc.nat(50),
    });
    const mark = fc.record({
      stream: fc.constant(0),
      state: fc.constantFrom('open', 'clean', 'failing'),
      given: fc.nat(500),
      from: fc.integer({ min: 1, max: 500 }),
      durability: fc.constantFrom('process', 'power'),
      reason: fc.constantFrom(...GAP_REASONS),
      sinceMicros: fc.constant(0),
      bootId: fc.constantFrom('a', 'b', ''),
      detail: fc.string({ maxLength: 3 }),
    }) as fc.Arbitrary<Mark>;
    fc.assert(
      fc.property(fc.option(found), fc.option(mark), (some, told) => {
        const segment = some && { ...some, lastSequence: some.firstSequence - 1 + some.length };
        const { gaps, last } = resume(segment, told, 'a');
        const known = segment?.lastSequence ?? (told === null ? 0 : told.from - 1);
        expect(last).toBeGreaterThanOrEqual(Math.max(known, told?.given ?? 0));
        let reached = known;
        for (const { from, to, count } of gaps) {
          expect(from).toBeLessThanOrEqual(reached + 1);
          expect(to).toBeGreaterThan(reached);
          expect(count).toBeLessThanOrEqual(to - from + 1);
          reached = to;
        }
        expect(reached).toBe(last);
        // The next segment's name is new.
        if (segment?.isDamaged === true) expect(gaps[0]!.to).toBeGreaterThan(segment.firstSequence);
      }),
      { numRuns: 2000 },
    );
  });
});
