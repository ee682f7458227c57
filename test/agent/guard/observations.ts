import {
  type Estimate,
  type EstimateQuery,
  estimateNext,
  type EstimatorState,
  type Observation,
  observe,
} from '../../../agent/guard/estimator.ts';
import type { EstimatorParameters } from '../../../agent/guard/policy.ts';
import type { Outcome } from '../../../protocol/frames.ts';

/** A single EWMA that ignores the input. */
export const SINGLE: EstimatorParameters = {
  estimatorOrder: 1,
  lambda: 0.3,
  driftLambda: 0,
  processGain: 0,
  target: 75,
  baseline: NaN,
  outlierDistance: NaN,
  staleAfterRuns: NaN,
  staleAfterMillis: NaN,
};
export const DOUBLE: EstimatorParameters = { ...SINGLE, estimatorOrder: 2, lambda: 0.45, driftLambda: 0.35 };

/** The observation of run `run`, processed in second `run`. */
export function observationOf(run: number, value: number, changes: Partial<Observation> = {}): Observation {
  return { measurementId: `m${run}`, processMillis: run * 1000, runNumber: run, value, appliedInput: null, ...changes };
}

export function taught(observations: readonly Observation[], parameters: EstimatorParameters, before?: EstimatorState): EstimatorState {
  let state = before;
  for (const observation of observations) state = observe(state, observation, parameters).state;
  if (state === undefined) throw new Error('nothing was learnt');
  return state;
}

export function outcomesOf(observations: readonly Observation[], parameters: EstimatorParameters): Outcome[] {
  let state: EstimatorState | undefined;
  return observations.map((observation) => {
    const result = observe(state, observation, parameters);
    ({ state } = result);
    return result.outcome;
  });
}

export function estimated(
  state: EstimatorState | undefined,
  parameters: EstimatorParameters,
  query: Partial<EstimateQuery> = {},
): Estimate {
  const result: Estimate = { hasEstimate: true, isStale: true, fallbackValue: 0, fallbackSetting: 0 };
  estimateNext(state, parameters, { runNumber: NaN, nowMillis: NaN, input: NaN, ...query }, result);
  return result;
}
