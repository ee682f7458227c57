import { REASONS } from '../../protocol/frames.ts';
import type { GuardPolicy } from './policy.ts';

/**
 * Checks one feature vector in one pass: `values[offset .. offset + count - 1]`, in feature order.
 * A vector of the wrong length is not looked into, because its positions name no features.
 * @returns reason bits (input_count, input_not_finite, input_range), 0 when the model may see it
 */
export function checkVector(values: Float32Array | Float64Array, offset: number, count: number, policy: GuardPolicy): number {
  if (count === 0 || (policy.featureCount >= 0 && count !== policy.featureCount)) return REASONS.input_count;
  return policy.featureMin === null || policy.featureMax === null
    ? checkFinite(values, offset, count)
    : checkRanges(values, offset, count, policy.featureMin, policy.featureMax);
}

/** x - x is 0 for every finite x and NaN for NaN and the infinities, so one sum tells of them all without a branch. */
function checkFinite(values: Float32Array | Float64Array, offset: number, count: number): number {
  let spoiled = 0;
  const end = offset + count;
  for (let index = offset; index < end; index++) {
    const value = values[index] ?? NaN;
    spoiled += value - value;
  }
  return spoiled === 0 ? 0 : REASONS.input_not_finite;
}

/** No limit lies beyond the largest finite number, so one comparison on either side tells of NaN and the infinities too. */
function checkRanges(
  values: Float32Array | Float64Array,
  offset: number,
  count: number,
  minima: Float64Array,
  maxima: Float64Array,
): number {
  let reasons = 0;
  for (let feature = 0; feature < count; feature++) {
    const value = values[offset + feature] ?? NaN;
    const isInside = value >= (minima[feature] ?? NaN) && value <= (maxima[feature] ?? NaN);
    if (!isInside) reasons |= value - value === 0 ? REASONS.input_range : REASONS.input_not_finite;
  }
  return reasons;
}
