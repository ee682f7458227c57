import { describe, expect, test } from 'vitest';
import { array, assert, integer, property } from 'fast-check';
import { median, medianRatio, ratio, rotated } from '../../bench/statistics.ts';

describe('median()', () => {
  test('is the value in the middle, whatever the order', () => {
    expect(median([9, 1, 5])).toBe(5);
  });

  test('of an even count is the mean of the two in the middle', () => {
    expect(median([1, 10, 2, 4])).toBe(3);
  });

  test('of nothing finite is null', () => {
    expect(median([])).toBeNull();
    expect(median([Number.NaN, Infinity])).toBeNull();
  });

  test('leaves the given list as it was', () => {
    const values = [3, 1, 2];
    median(values);
    expect(values).toEqual([3, 1, 2]);
  });

  test('has as many values above it as below', () => {
    assert(
      property(array(integer({ min: -1e6, max: 1e6 }), { minLength: 1 }), (values) => {
        const middle = median(values)!;
        const half = values.length / 2;
        expect(values.filter((value) => value < middle).length).toBeLessThanOrEqual(half);
        expect(values.filter((value) => value > middle).length).toBeLessThanOrEqual(half);
      }),
    );
  });
});

describe('ratios', () => {
  test('ratio() is null where a side is missing or the denominator is 0', () => {
    expect(ratio(6, 3)).toBe(2);
    expect(ratio(null, 3)).toBeNull();
    expect(ratio(6, null)).toBeNull();
    expect(ratio(6, 0)).toBeNull();
  });

  test('medianRatio() divides within each round, so that a slow round cancels out', () => {
    // The machine was 10 times slower in round 2: the ratio of the medians would be 20 / 10.
    expect(medianRatio([20, 250, 30], [10, 100, 10])).toBe(2.5);
  });

  test('medianRatio() leaves out rounds that have no value', () => {
    expect(medianRatio([4, null, 9], [2, 1, null])).toBe(2);
    expect(medianRatio([], [])).toBeNull();
  });
});

describe('rotated()', () => {
  test('moves the start on by one each round', () => {
    expect(rotated(['a', 'b', 'c'], 0)).toEqual(['a', 'b', 'c']);
    expect(rotated(['a', 'b', 'c'], 1)).toEqual(['b', 'c', 'a']);
    expect(rotated(['a', 'b', 'c'], 5)).toEqual(['c', 'a', 'b']);
    expect(rotated([], 3)).toEqual([]);
  });

  test('puts everyone on every place once in as many rounds as there are', () => {
    const items = ['a', 'b', 'c', 'd'];
    const firsts = items.map((_, round) => rotated(items, round)[0]);
    expect(firsts.toSorted((left, right) => items.indexOf(left!) - items.indexOf(right!))).toEqual(items);
  });
});
