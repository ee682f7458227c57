import { describe, expect, test } from 'vitest';
import { compilePolicy, DEFAULT_THREAD_FIELDS } from '../../../agent/guard/policy.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { CORRECTION_SPEC, FULL_SPEC, guardedManifest, policyOf, PREDICTION_SPEC } from './guarded-manifest.ts';

const TENSORS_SPEC = { kind: 'tensors' } as const;

function inputOf(shape: readonly number[]): unknown {
  return [{ name: 'x', datatype: 'FP32', shape }];
}

describe('compilePolicy()', () => {
  test('lays out every limit of a manifest as a number', () => {
    const { featureMin, featureMax, riThreshold, threadFields: _fields, ...numbers } = policyOf(FULL_SPEC);
    expect(numbers).toEqual({
      predicts: true,
      corrects: true,
      featureCount: 3,
      predictionMin: 50,
      predictionMax: 100,
      trainingStandardDeviation: 6.65,
      gsiThreshold: 9,
      isOffset: false,
      baseline: 5,
      windowMin: 0,
      windowMax: 10,
      step: 2,
      totalOffset: 4,
      baselineValue: 74,
      estimatorOrder: 1,
      lambda: 0.3,
      driftLambda: 0,
      processGain: 2,
      target: 75,
      outlierDistance: 10,
      staleAfterRuns: 50,
      staleAfterMillis: 3_600_000,
    });
    expect([...(featureMin ?? [])]).toEqual([0, -Number.MAX_VALUE, -Number.MAX_VALUE]);
    expect([...(featureMax ?? [])]).toEqual([10, Number.MAX_VALUE, Math.fround(0.1)]);
    expect(riThreshold).toBeCloseTo(0.583, 3);
  });

  test('writes NaN for every limit that is not given', () => {
    const policy = policyOf(PREDICTION_SPEC);
    const { predictionMin, predictionMax, riThreshold, gsiThreshold, windowMin, windowMax, step, totalOffset, baseline } = policy;
    const absent = [predictionMin, predictionMax, riThreshold, gsiThreshold, windowMin, windowMax, step, totalOffset, baseline];
    expect(absent.every(Number.isNaN)).toBe(true);
    expect([policy.featureMin, policy.featureMax]).toEqual([null, null]);
    expect([policy.estimatorOrder, policy.processGain, policy.driftLambda]).toEqual([0, 0, 0]);
    expect([policy.staleAfterRuns, policy.staleAfterMillis, policy.outlierDistance].every(Number.isNaN)).toBe(true);
  });

  test('keeps the drift weight of a double EWMA only', () => {
    const fallback = { estimator: 'double-ewma', lambda: 0.45, driftLambda: 0.35, baselineValue: 74 };
    expect(policyOf({ ...PREDICTION_SPEC, fallback })).toMatchObject({ estimatorOrder: 2, driftLambda: 0.35 });
    expect(policyOf({ ...PREDICTION_SPEC, fallback: { ...fallback, estimator: 'ewma' } })).toMatchObject({ driftLambda: 0 });
  });

  test('tells the kinds of slot apart', () => {
    expect(policyOf(FULL_SPEC)).toMatchObject({ predicts: true, corrects: true, isOffset: false });
    expect(policyOf(PREDICTION_SPEC)).toMatchObject({ predicts: true, corrects: false, isOffset: false });
    expect(policyOf(CORRECTION_SPEC)).toMatchObject({ predicts: false, corrects: true, isOffset: true });
    expect(policyOf(TENSORS_SPEC)).toMatchObject({ predicts: false, corrects: false });
  });

  test('is frozen', () => {
    const policy = policyOf(FULL_SPEC);
    expect(Object.isFrozen(policy) && Object.isFrozen(policy.threadFields)).toBe(true);
  });

  test('threads by tool, chamber, product, recipe and step, or as the manifest says', () => {
    expect(policyOf(PREDICTION_SPEC).threadFields).toEqual(['equipmentId', 'moduleId', 'product', 'recipeId', 'stepId']);
    expect(policyOf(PREDICTION_SPEC).threadFields).toEqual(DEFAULT_THREAD_FIELDS);
    const fallback = { ...PREDICTION_SPEC.fallback, threadBy: ['product'] };
    expect(policyOf({ ...PREDICTION_SPEC, fallback }).threadFields).toEqual(['product']);
    expect(policyOf({ ...PREDICTION_SPEC, fallback: { ...fallback, threadBy: [] } }).threadFields).toEqual([]);
  });

  test.each([
    [[-1, 86], 86],
    [[1, 86], 86],
    [[86], 86],
    [[-1], -1],
    [[-1, -1], -1],
    [[2, 86], -1],
    [[-1, 10, 4], -1],
    [[], -1],
  ])('reads the feature count of an input of shape [%j] as %d', (shape, expected) => {
    expect(policyOf(TENSORS_SPEC, inputOf(shape)).featureCount).toBe(expected);
  });

  test('does not count the features of a model with several inputs', () => {
    const inputs = ['a', 'b'].map((name) => ({ name, datatype: 'FP32', shape: [-1, 2] }));
    expect(policyOf(TENSORS_SPEC, inputs).featureCount).toBe(-1);
  });

  test.each([
    ['features', { ...FULL_SPEC, features: [{ name: 'only' }] }, '1 are listed'],
    ['features', { ...FULL_SPEC, features: [{ name: 'a', min: 2, max: 1 }, { name: 'b' }, { name: 'c' }] }, "'a' has min 2 above max 1"],
    ['guard.correction.baseline', { ...CORRECTION_SPEC, guard: { correction: { baseline: 11, window: [0, 10] } } }, 'it is 11'],
    ['fallback.baselineValue', { ...PREDICTION_SPEC, guard: { predictionRange: [80, 90] } }, 'it is 74'],
    [
      'guard.reliance.maximalErrorFraction',
      {
        ...FULL_SPEC,
        guard: { ...FULL_SPEC.guard, reliance: { trainingMean: 0, trainingStandardDeviation: 1, maximalErrorFraction: 0.1 } },
      },
      'trainingMean is 0',
    ],
  ])('refuses a manifest whose %s no answer could obey', (field, spec, reason) => {
    const compile = (): unknown => compilePolicy(guardedManifest(spec));
    expect(compile).toThrow(SetpointError);
    expect(compile).toThrow(expect.objectContaining({ code: 'invalid_bundle', field, message: expect.stringContaining(reason) }));
  });
});
