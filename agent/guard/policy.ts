import { SetpointError } from '../../protocol/errors.ts';
import type { Context } from '../../protocol/frames.ts';
import type { Manifest } from '../../protocol/manifest.ts';
import { relianceThreshold } from './reliance.ts';

/** What makes one control thread when the manifest does not say: tool, chamber, product, recipe, step. */
export const DEFAULT_THREAD_FIELDS: readonly (keyof Context)[] = ['equipmentId', 'moduleId', 'product', 'recipeId', 'stepId'];

/** `estimatorOrder`: how many terms the estimator of the fallback follows. */
const ESTIMATOR_ORDERS = { none: 0, ewma: 1, 'double-ewma': 2 } as const;

/** What the estimator of the fallback is run with. Absent numbers are NaN. */
export interface EstimatorParameters {
  /** 0: no estimator, 1: EWMA of the intercept, 2: double EWMA of intercept and drift. */
  readonly estimatorOrder: 0 | 1 | 2;
  /** Weight of the intercept, 0 < lambda <= 1. */
  readonly lambda: number;
  /** Weight of the drift, 0 < driftLambda <= 1; 0 for order 1. */
  readonly driftLambda: number;
  /** b of y = a + b u, value unit per correction unit; 0 when the value does not depend on the input. */
  readonly processGain: number;
  /** Value the process should reach. */
  readonly target: number;
  /** The input assumed when the one in force is not known; NaN for a slot that corrects nothing. */
  readonly baseline: number;
  /** Largest believable distance of an observation from the estimate, value unit. */
  readonly outlierDistance: number;
  readonly staleAfterRuns: number;
  readonly staleAfterMillis: number;
}

/** A manifest's guard and fallback as flat numbers for the predict path. Absent numbers are NaN. */
export interface GuardPolicy extends EstimatorParameters {
  readonly predicts: boolean;
  readonly corrects: boolean;
  /** Length of the feature vector: the feature list's or the input's; -1 when neither says, any length will then do. */
  readonly featureCount: number;
  /**
   * Valid range per feature, the largest finite number where there is no limit; null when no feature has one. The elements
   * must not be written.
   */
  readonly featureMin: Float64Array | null;
  readonly featureMax: Float64Array | null;
  readonly predictionMin: number;
  readonly predictionMax: number;
  /** Standard deviation of the training metrology values; NaN when RI is not asked for. */
  readonly trainingStandardDeviation: number;
  /** RI_T; the prediction is reliable from there on. */
  readonly riThreshold: number;
  /** GSI_T; the input is similar to the training data up to there. */
  readonly gsiThreshold: number;
  /** Whether the correction output is an offset from the baseline instead of the setting itself. */
  readonly isOffset: boolean;
  readonly windowMin: number;
  readonly windowMax: number;
  readonly step: number;
  readonly totalOffset: number;
  /** Value answered without model and estimate. */
  readonly baselineValue: number;
  readonly threadFields: readonly (keyof Context)[];
}

/**
 * Turns a manifest that parseManifest accepted into the guard's policy. Done once, at activation.
 * @throws SetpointError invalid_bundle when limits contradict each other so that no answer could obey them
 */
export function compilePolicy(manifest: Manifest): GuardPolicy {
  rejectContradictions(manifest);
  const { kind, features, guard, fallback } = manifest;
  const ranged = features?.some((feature) => feature.min !== undefined || feature.max !== undefined) ? features : null;
  return Object.freeze({
    predicts: kind.startsWith('prediction'),
    corrects: kind.endsWith('correction'),
    featureCount: features?.length ?? rowLength(manifest.inputs),
    featureMin:
      ranged &&
      featureLimits(
        ranged.map((feature) => feature.min),
        -Number.MAX_VALUE,
      ),
    featureMax:
      ranged &&
      featureLimits(
        ranged.map((feature) => feature.max),
        Number.MAX_VALUE,
      ),
    predictionMin: guard.predictionRange?.[0] ?? NaN,
    predictionMax: guard.predictionRange?.[1] ?? NaN,
    trainingStandardDeviation: guard.reliance?.trainingStandardDeviation ?? NaN,
    riThreshold: guard.reliance === undefined ? NaN : relianceThreshold(guard.reliance),
    gsiThreshold: guard.gsiThreshold ?? NaN,
    isOffset: manifest.roles.correction?.form === 'offset',
    windowMin: guard.correction?.window[0] ?? NaN,
    windowMax: guard.correction?.window[1] ?? NaN,
    step: guard.correction?.step ?? NaN,
    totalOffset: guard.correction?.totalOffset ?? NaN,
    baselineValue: fallback?.baselineValue ?? NaN,
    threadFields: Object.freeze([...(fallback?.threadBy ?? DEFAULT_THREAD_FIELDS)]),
    ...compileEstimator(fallback, guard.correction?.baseline),
  });
}

function compileEstimator(fallback: Manifest['fallback'], baseline: number | undefined): EstimatorParameters {
  const estimatorOrder = ESTIMATOR_ORDERS[fallback?.estimator ?? 'none'];
  return {
    estimatorOrder,
    lambda: fallback?.lambda ?? NaN,
    driftLambda: estimatorOrder === 2 ? (fallback?.driftLambda ?? NaN) : 0,
    processGain: fallback?.processGain ?? 0,
    target: fallback?.target ?? NaN,
    baseline: baseline ?? NaN,
    outlierDistance: fallback?.outlierDistance ?? NaN,
    staleAfterRuns: fallback?.staleAfterRuns ?? NaN,
    staleAfterMillis: (fallback?.staleAfterSeconds ?? NaN) * 1000,
  };
}

/** Length of a row of the model's only input, [N, length], [1, length] or [length]; -1 for any other shape. */
function rowLength(inputs: Manifest['inputs']): number {
  const shape = inputs.length === 1 ? inputs[0]?.shape : undefined;
  const isVector = shape?.length === 1 || (shape?.length === 2 && (shape[0] === -1 || shape[0] === 1));
  return isVector ? Math.max(-1, shape?.at(-1) ?? -1) : -1;
}

/**
 * Limits as finite numbers, each widened to its own float32 rounding: a value on the limit that travelled as float32 is inside.
 * @param absent the largest finite number on this limit's side, which stands for no limit
 */
function featureLimits(limits: readonly (number | undefined)[], absent: number): Float64Array {
  return Float64Array.from(limits, (limit = absent) => {
    const rounded = Math.fround(limit);
    const isWider = absent < 0 ? rounded < limit : rounded > limit;
    return isWider && Number.isFinite(rounded) ? rounded : limit;
  });
}

function rejectContradictions(manifest: Manifest): void {
  const { features, inputs, guard, fallback } = manifest;
  const expected = rowLength(inputs);
  if (features !== undefined && expected >= 0 && features.length !== expected) {
    throw contradiction('features', `${features.length} are listed, input '${inputs[0]?.name}' takes ${expected}`);
  }
  features?.forEach(({ name, min = -Infinity, max = Infinity }) => {
    if (min > max) throw contradiction('features', `'${name}' has min ${min} above max ${max}`);
  });
  const correction = guard.correction;
  if (correction !== undefined && !isWithin(correction.baseline, correction.window)) {
    throw contradiction('guard.correction.baseline', `it is ${correction.baseline}, the window is ${correction.window.join(' to ')}`);
  }
  const value = fallback?.baselineValue;
  if (value !== undefined && guard.predictionRange !== undefined && !isWithin(value, guard.predictionRange)) {
    throw contradiction('fallback.baselineValue', `it is ${value}, guard.predictionRange is ${guard.predictionRange.join(' to ')}`);
  }
  if (guard.reliance?.maximalErrorFraction !== undefined && guard.reliance.trainingMean === 0) {
    const field = 'guard.reliance.maximalErrorFraction';
    throw contradiction(field, 'trainingMean is 0, of which every fraction is 0; give maximalErrorAbsolute');
  }
}

function isWithin(value: number, [low, high]: readonly [number, number]): boolean {
  return value >= low && value <= high;
}

function contradiction(field: string, reason: string): SetpointError {
  return new SetpointError('invalid_bundle', `Cannot guard with this manifest: ${field}: ${reason}`, { field });
}
