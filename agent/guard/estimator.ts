import {
  comparePositions,
  HISTORY_LENGTH,
  MAGNITUDE_LIMIT,
  NOTHING_KNOWN,
  OUTLIERS_OF_A_SHIFT,
  type EstimatorState,
  type Knowledge,
  type Observation,
} from './estimator-state.ts';
import type { Outcome } from '../../protocol/frames.ts';
import type { EstimatorParameters } from './policy.ts';

export { parseEstimatorState, type EstimatorState, type Observation } from './estimator-state.ts';

/** What the fallback knows about one control thread. Absent numbers are NaN. */
export interface Estimate {
  hasEstimate: boolean;
  isStale: boolean;
  /** Predicted metrology value of the next run for the input in force, value unit. */
  fallbackValue: number;
  /** Recipe setting that should bring the next run to the target, correction unit. */
  fallbackSetting: number;
}

/** The run to estimate for. Absent numbers are NaN. May be one reused object. */
export interface EstimateQuery {
  readonly runNumber: number;
  readonly nowMillis: number;
  /** The recipe setting in force; the baseline stands in when it is not finite. */
  readonly input: number;
}

export interface ObserveResult {
  /** Undefined while nothing was ever learnt. The state that was passed in is never changed. */
  readonly state: EstimatorState | undefined;
  readonly outcome: Outcome;
}

/**
 * Teaches the estimator one observation, in its place in the order of process whatever the order of arrival.
 *
 * - `applied`: learnt
 * - `outlier`: kept in the history, not learnt; a neighbour that arrives later may still change that verdict
 * - `duplicate`: this measurement id is in the history; nothing changes
 * - `late`: not after the newest observation that left the history; nothing changes
 * - `recorded`: there is nothing to learn from it (no estimator, no finite value, or the input that the process gain needs is
 *   not known); nothing changes
 */
export function observe(state: EstimatorState | undefined, observation: Observation, parameters: EstimatorParameters): ObserveResult {
  if (parameters.estimatorOrder === 0 || !isLearnable(observation, parameters)) return { state, outcome: 'recorded' };
  const history = state?.history ?? [];
  if (history.some((one) => one.measurementId === observation.measurementId)) return { state, outcome: 'duplicate' };
  const baseEnd = state?.baseEnd ?? null;
  if (baseEnd !== null && comparePositions(observation, baseEnd) <= 0) return { state, outcome: 'late' };
  const after = history.findIndex((one) => comparePositions(observation, one) < 0);
  const place = after === -1 ? history.length : after;
  return learnAgain(state?.base ?? NOTHING_KNOWN, baseEnd, history.toSpliced(place, 0, pick(observation)), place, parameters);
}

/** Teaches `base` the whole history; the oldest observation becomes part of the base when the history is too long. */
function learnAgain(
  base: Knowledge,
  baseEnd: EstimatorState['baseEnd'],
  history: readonly Observation[],
  place: number,
  parameters: EstimatorParameters,
): ObserveResult {
  const leaving = history.length - HISTORY_LENGTH;
  const oldest = history[0];
  let current = base;
  let outcome: Outcome = 'applied';
  let newBase = base;
  history.forEach((observation, index) => {
    const taught = learn(current, observation, parameters);
    if (index === place && taught.outliers.length > 0) outcome = 'outlier';
    if (index < leaving) newBase = taught;
    current = taught;
  });
  const state: EstimatorState =
    leaving > 0 && oldest !== undefined
      ? { base: newBase, baseEnd: positionOf(oldest), history: history.slice(leaving), current }
      : { base, baseEnd, history, current };
  return { state, outcome };
}

/** One step of the estimator: what is known after one more observation. */
function learn(known: Knowledge, observation: Observation, parameters: EstimatorParameters): Knowledge {
  const level = interceptOf(observation, parameters);
  if (known.count === 0) return restart(level, observation);
  const runs = runsSince(known, observation.runNumber ?? NaN);
  const drift = driftOf(known, parameters);
  const expected = known.intercept + drift * runs;
  const error = level - expected;
  if (Math.abs(error) > parameters.outlierDistance) return withOutlier(known, level, error > 0 ? 1 : -1, observation);
  const gain = irregularGain(parameters.lambda, runs);
  // The double EWMA with weights l1, l2 as level and drift: gains l1 + l2 - l1 l2 and l1 l2 (README.md, "The estimator").
  const levelGain = Math.max(gain + parameters.driftLambda * (1 - gain), 1 / (known.count + 1));
  const driftGain = (gain * parameters.driftLambda) / Math.max(runs, 1);
  return {
    count: known.count + 1,
    intercept: expected + levelGain * error,
    drift: drift + driftGain * error,
    gapRuns: Math.max(runs, 1),
    lastRunNumber: observation.runNumber,
    lastProcessMillis: observation.processMillis,
    outliers: [],
    outlierSide: 0,
  };
}

/**
 * Kalman gain of an IMA(1,1) disturbance after `runs` runs since the last update: K = (lambda + k q) / (1 + lambda + k q),
 * q = lambda^2 / (1 - lambda). It is lambda for one run, grows to 1 with the gap, and is lambda / (1 + lambda) for a second
 * measurement of the same run. A lambda of 1 (a random walk measured without noise) believes the newest run wholly.
 */
export function irregularGain(lambda: number, runs: number): number {
  if (runs === 0) return lambda / (1 + lambda);
  if (lambda >= 1) return 1;
  const grown = lambda + (runs * lambda * lambda) / (1 - lambda);
  return grown / (1 + grown);
}

function withOutlier(known: Knowledge, level: number, side: -1 | 1, observation: Observation): Knowledge {
  const outliers = known.outlierSide === side ? [...known.outliers, level] : [level];
  if (outliers.length < OUTLIERS_OF_A_SHIFT) return { ...known, outliers, outlierSide: side };
  return restart(medianOf(outliers), observation);
}

function restart(intercept: number, observation: Observation): Knowledge {
  const { runNumber, processMillis } = observation;
  return { ...NOTHING_KNOWN, count: 1, intercept, lastRunNumber: runNumber, lastProcessMillis: processMillis };
}

/** Two absurd values among five do not move it far. */
function medianOf(values: readonly number[]): number {
  return values.toSorted((left, right) => left - right)[values.length >> 1] ?? NaN;
}

/**
 * Estimates the next run and writes `result`: value = a + b u and setting = (target - a) / b, where a is the intercept of
 * that run: the last level plus the drift over the runs since, but over no more runs than lie between two observations, the
 * horizon within which the drift has been confirmed. Nothing is allocated.
 */
export function estimateNext(
  state: EstimatorState | undefined,
  parameters: EstimatorParameters,
  query: EstimateQuery,
  result: Estimate,
): void {
  result.hasEstimate = state !== undefined && state.current.count > 0 && parameters.estimatorOrder !== 0;
  result.isStale = false;
  result.fallbackValue = NaN;
  result.fallbackSetting = NaN;
  if (state === undefined || !result.hasEstimate) return;
  const known = state.current;
  const horizon = Math.max(1, Math.min(runsSince(known, query.runNumber), known.gapRuns));
  const intercept = known.intercept + driftOf(known, parameters) * horizon;
  const gain = parameters.processGain;
  const input = query.input - query.input === 0 ? query.input : parameters.baseline;
  result.isStale = isStale(known, parameters, query);
  result.fallbackValue = gain === 0 ? intercept : intercept + gain * input;
  result.fallbackSetting = gain === 0 ? NaN : (parameters.target - intercept) / gain;
}

/**
 * An estimate is stale when a limit is exceeded, and also when limits are given but none of them can be checked (a limit in
 * runs, and the controller counts none): an age that nobody knows is not a young one. Without limits nothing is ever stale.
 */
function isStale(known: Knowledge, parameters: EstimatorParameters, query: EstimateQuery): boolean {
  const ageRuns = known.lastRunNumber === null ? NaN : query.runNumber - known.lastRunNumber;
  const ageMillis = query.nowMillis - known.lastProcessMillis;
  if (ageRuns > parameters.staleAfterRuns || ageMillis > parameters.staleAfterMillis) return true;
  const hasRunLimit = parameters.staleAfterRuns > 0;
  const canCheckRuns = hasRunLimit && ageRuns >= 0;
  const canCheckMillis = parameters.staleAfterMillis > 0 && !Number.isNaN(ageMillis);
  return (hasRunLimit || parameters.staleAfterMillis > 0) && !canCheckRuns && !canCheckMillis;
}

/** A drift learnt by a former bundle's double EWMA means nothing to a single one. */
function driftOf(known: Knowledge, parameters: EstimatorParameters): number {
  return parameters.estimatorOrder === 2 ? known.drift : 0;
}

/** Runs since the last learnt one; 1 when it is not known, or when the counter was set back. */
function runsSince(known: Knowledge, runNumber: number): number {
  const runs = known.lastRunNumber === null ? NaN : runNumber - known.lastRunNumber;
  return runs >= 0 ? runs : 1;
}

function isLearnable(observation: Observation, parameters: EstimatorParameters): boolean {
  const { runNumber, processMillis, value, appliedInput } = observation;
  return (
    Number.isFinite(processMillis) &&
    (runNumber === null || (Number.isSafeInteger(runNumber) && runNumber >= 0)) &&
    Math.abs(value) <= MAGNITUDE_LIMIT &&
    Math.abs(appliedInput ?? 0) <= MAGNITUDE_LIMIT &&
    Math.abs(interceptOf(observation, parameters)) <= MAGNITUDE_LIMIT
  );
}

/** y - b u; NaN when b is not 0 and u is not known. */
function interceptOf(observation: Observation, parameters: EstimatorParameters): number {
  return parameters.processGain === 0 ? observation.value : observation.value - parameters.processGain * (observation.appliedInput ?? NaN);
}

function pick(observation: Observation): Observation {
  const { measurementId, processMillis, runNumber, value, appliedInput } = observation;
  return { measurementId, processMillis, runNumber, value, appliedInput };
}

function positionOf(observation: Observation): EstimatorState['baseEnd'] {
  const { measurementId, processMillis, runNumber } = observation;
  return { measurementId, processMillis, runNumber };
}
