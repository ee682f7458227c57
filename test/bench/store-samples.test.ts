import { describe, expect, test } from 'vitest';
import { array, assert, integer, property } from 'fast-check';
import {
  answerRates,
  halvesRatio,
  journalRate,
  lagGrowth,
  meanStoreRate,
  medianOf,
  memoryGrowth,
  slope,
  soakFileGrowth,
  storeRates,
  type StoreSample,
  thinned,
} from '../../bench/store-samples.ts';

/** Second `seconds` of an agent that answers and stores 20,000 decisions of 1,000 bytes. */
function sampleAt(seconds: number, changes: Partial<StoreSample> = {}): StoreSample {
  return {
    seconds,
    answered: seconds * 20_000,
    journalBytes: 5e6 + seconds * 2e7,
    headIndex: 500 + seconds * 20_000,
    commitMillis: 1_700_000_000_000 + seconds * 1000,
    lagBytes: 2e6,
    fileBytes: 1e8,
    usedBytes: 1e8,
    agentBytes: 1e8,
    storeBytes: 5e7,
    storeMappedBytes: 1e8,
    dropped: { telemetry: 0, records: 0, lost: 0 },
    ...changes,
  };
}

function samplesOf(count: number, changes: (seconds: number) => Partial<StoreSample> = () => ({})): StoreSample[] {
  return Array.from({ length: count }, (_, seconds) => sampleAt(seconds, changes(seconds)));
}

describe('rates', () => {
  test('answers and entries a second are differences over their own clocks', () => {
    expect(answerRates(samplesOf(3))).toEqual([null, 20_000, 20_000]);
    expect(storeRates(samplesOf(3))).toEqual([null, 20_000, 20_000]);
  });

  test('a store that reports out of step with the samples has neither a second of nothing nor a double one', () => {
    // At 2 s the report of 1 s is still shown; at 3 s that of 3 s.
    const samples = [sampleAt(0), sampleAt(1), sampleAt(2, { headIndex: 20_500, commitMillis: 1_700_000_001_000 }), sampleAt(3)];
    expect(storeRates(samples)).toEqual([null, 20_000, null, 20_000]);
  });

  test('a store that stands still while its clock goes on shows 0', () => {
    const samples = [sampleAt(0), sampleAt(1, { headIndex: 500 })];
    expect(storeRates(samples)).toEqual([null, 0]);
  });

  test('before its first commit a store has no rate', () => {
    const samples = [sampleAt(0, { headIndex: 0, commitMillis: null }), sampleAt(1), sampleAt(2)];
    expect(storeRates(samples)).toEqual([null, null, 20_000]);
    expect(meanStoreRate(samples)).toBe(20_000);
  });

  test('the mean counts a stall that the median leaves out', () => {
    const samples = [sampleAt(0), sampleAt(1), sampleAt(2), sampleAt(5, { headIndex: sampleAt(3).headIndex })];
    expect(medianOf(storeRates(samples))).toBe(20_000);
    expect(meanStoreRate(samples)).toBe(12_000);
  });

  test('nothing measured is null, not 0', () => {
    expect(medianOf(storeRates([]))).toBeNull();
    expect(meanStoreRate([sampleAt(0)])).toBeNull();
    expect(journalRate([sampleAt(0, { journalBytes: null }), sampleAt(1)])).toBeNull();
  });
});

describe('slope()', () => {
  test('finds the slope of a straight line, whatever its slope', () => {
    assert(
      property(integer({ min: -1000, max: 1000 }), integer({ min: 2, max: 30 }), (rise, count) => {
        expect(slope(Array.from({ length: count }, (_, x) => [x, 7 + rise * x] as const))).toBeCloseTo(rise, 6);
      }),
    );
  });

  test('one sample far off does not tilt it', () => {
    expect(
      slope([
        [0, 0],
        [1, 0],
        [2, 1e9],
        [3, 0],
        [4, 0],
        [5, 0],
      ]),
    ).toBe(0);
  });

  test('needs two points', () => {
    expect(slope([[1, 1]])).toBeNull();
  });
});

describe('lagGrowth()', () => {
  test('is 0 when the store keeps up, however much lies between two commits', () => {
    expect(lagGrowth(samplesOf(20, (seconds) => ({ lagBytes: seconds % 2 === 0 ? 1e6 : 4e6 })))).toBeCloseTo(0, 2);
  });

  test('is the share that stays behind when it does not', () => {
    // Of 20 MB a second, 5 MB are not stored.
    expect(lagGrowth(samplesOf(20, (seconds) => ({ lagBytes: seconds * 5e6 })))).toBeCloseTo(0.25, 6);
  });
});

describe('memory growth', () => {
  test('is the second half over the first', () => {
    expect(halvesRatio([1, 1, 1, 2, 2, 2])).toBe(2);
    expect(halvesRatio([2, 2, 1, 1])).toBe(0.5);
  });

  test('with a value missing it is not known', () => {
    expect(halvesRatio([1, null, 1, 1])).toBeNull();
    expect(halvesRatio([1])).toBeNull();
  });

  test('is that of the process that grows faster', () => {
    const growing = (bytes: (seconds: number) => number) => (seconds: number) => ({ storeBytes: bytes(seconds) });
    expect(memoryGrowth(samplesOf(10))).toBe(1);
    expect(
      memoryGrowth(
        samplesOf(
          10,
          growing((seconds) => (seconds < 5 ? 1e7 : 3e7)),
        ),
      ),
    ).toBe(3);
    expect(
      memoryGrowth(
        samplesOf(
          10,
          growing((seconds) => (seconds < 5 ? 3e7 : 1e7)),
        ),
      ),
    ).toBe(1);
    expect(memoryGrowth(samplesOf(10, () => ({ agentBytes: null })))).toBeNull();
  });
});

describe('soakFileGrowth()', () => {
  const dropping = (seconds: number): Partial<StoreSample> => ({ dropped: { telemetry: seconds * 100, records: 0, lost: 0 } });

  test('leaves the first quarter for filling and compares the largest file of the second with that of the last', () => {
    const filling = samplesOf(12, (seconds) => ({ ...dropping(seconds), fileBytes: seconds < 3 ? seconds * 1e6 : 4e6 }));
    expect(soakFileGrowth(filling)).toBe(1);
    const growing = samplesOf(12, (seconds) => ({ ...dropping(seconds), fileBytes: (seconds + 1) * 1e6 }));
    expect(soakFileGrowth(growing)).toBe(2);
  });

  test('proves nothing when nothing was dropped', () => {
    expect(soakFileGrowth(samplesOf(12))).toBeNull();
  });

  test('a soak too short for quarters is not measured', () => {
    expect(soakFileGrowth(samplesOf(3, dropping))).toBeNull();
  });
});

describe('thinned()', () => {
  test('keeps a short list and the ends of a long one', () => {
    expect(thinned([1, 2, 3], 5)).toEqual([1, 2, 3]);
    const long = Array.from({ length: 101 }, (_, index) => index);
    expect(thinned(long, 5)).toEqual([0, 25, 50, 75, 100]);
  });

  test('never gives more than was asked for, and never one item twice', () => {
    assert(
      property(array(integer()), integer({ min: 2, max: 40 }), (items, limit) => {
        const indexed = items.map((_, index) => index);
        const kept = thinned(indexed, limit);
        expect(kept.length).toBe(Math.min(indexed.length, limit));
        expect(new Set(kept).size).toBe(kept.length);
      }),
    );
  });
});
