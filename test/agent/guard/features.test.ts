import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkVector } from '../../../agent/guard/features.ts';
import { REASONS } from '../../../protocol/frames.ts';
import { FULL_SPEC, policyOf, PREDICTION_SPEC } from './guarded-manifest.ts';

const ranged = policyOf(FULL_SPEC);
const unranged = policyOf(PREDICTION_SPEC);
const anyLength = policyOf({ kind: 'tensors' }, [{ name: 'x', datatype: 'FP32', shape: [-1] }]);

describe('checkVector()', () => {
  test('lets a good vector pass', () => {
    expect(checkVector(Float64Array.of(1, -1e30, -5), 0, 3, ranged)).toBe(0);
    expect(checkVector(Float32Array.of(1, 2, 3), 0, 3, unranged)).toBe(0);
  });

  test.each([0, 2, 4])('refuses %d features where the model takes 3', (count) => {
    const values = new Float64Array(8).fill(NaN);
    expect(checkVector(values, 0, count, ranged)).toBe(REASONS.input_count);
    expect(checkVector(values, 0, count, unranged)).toBe(REASONS.input_count);
  });

  test('takes any length but none where the model takes any', () => {
    expect(checkVector(Float64Array.of(1, 2), 0, 2, anyLength)).toBe(0);
    expect(checkVector(Float64Array.of(1, NaN), 0, 2, anyLength)).toBe(REASONS.input_not_finite);
    expect(checkVector(Float64Array.of(), 0, 0, anyLength)).toBe(REASONS.input_count);
  });

  test('finds a number that is not finite wherever it stands, in either width', () => {
    const spoiler = fc.constantFrom(NaN, Infinity, -Infinity);
    const good = fc.double({ min: -1e30, max: 1e30, noNaN: true });
    fc.assert(
      fc.property(fc.array(good, { minLength: 3, maxLength: 3 }), fc.nat(2), spoiler, fc.boolean(), (values, at, bad, isNarrow) => {
        values[at] = bad;
        const vector = isNarrow ? Float32Array.from(values) : Float64Array.from(values);
        expect(checkVector(vector, 0, 3, unranged)).toBe(REASONS.input_not_finite);
        expect(checkVector(vector, 0, 3, ranged) & REASONS.input_not_finite).not.toBe(0);
      }),
    );
  });

  test('is not fooled by numbers whose sum overflows', () => {
    expect(checkVector(Float64Array.of(Number.MAX_VALUE, Number.MAX_VALUE, -Number.MAX_VALUE), 0, 3, unranged)).toBe(0);
  });

  test.each([
    [[-0.001, 0, 0], REASONS.input_range],
    [[10.001, 0, 0], REASONS.input_range],
    [[5, 0, 0.11], REASONS.input_range],
    [[5, 1e300, -1e300], 0],
    [[0, 0, 0], 0],
    [[10, 0, 0.1], 0],
    [[11, NaN, 0], REASONS.input_range | REASONS.input_not_finite],
  ])('judges %j against the ranges', (values, expected) => {
    expect(checkVector(Float64Array.from(values), 0, 3, ranged)).toBe(expected);
  });

  test('takes a value on its limit for inside after it travelled as float32', () => {
    expect(Math.fround(0.1)).toBeGreaterThan(0.1);
    expect(checkVector(Float32Array.of(5, 0, 0.1), 0, 3, ranged)).toBe(0);
  });

  test('looks at its own row only', () => {
    const rows = Float64Array.of(NaN, NaN, NaN, 5, 0, 0, 99, 99, 99);
    expect(checkVector(rows, 3, 3, ranged)).toBe(0);
    expect(checkVector(rows, 6, 3, ranged)).toBe(REASONS.input_range);
    expect(checkVector(rows, 0, 3, unranged)).toBe(REASONS.input_not_finite);
    expect(checkVector(rows, 3, 3, unranged)).toBe(0);
  });

  test('takes what lies beyond the end of the array for not finite', () => {
    expect(checkVector(Float64Array.of(1, 2), 0, 3, unranged)).toBe(REASONS.input_not_finite);
  });
});
