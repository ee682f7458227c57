import { z } from 'zod';
import { SetpointError } from '../../protocol/errors.ts';

/**
 * Observations an estimator keeps so that a late one can still be put in its place. Metrology of one lot (25 wafers) may
 * come back in any order; 32 holds a lot and a few wafers of the next. One thread's state is then about 5 KB of JSON.
 */
export const HISTORY_LENGTH = 32;

/** Outliers in a row, on the same side of the estimate, that are a real shift and no longer outliers. */
export const OUTLIERS_OF_A_SHIFT = 5;

/** Values beyond this are no measurement of anything; below it no sum or product of the estimator can overflow. */
export const MAGNITUDE_LIMIT = 1e100;

/** State may exceed what was observed by sums over a few runs and the drift over 2^53 of them. */
const STATE_MAGNITUDE_LIMIT = 1e140;

/** One metrology value of one run of a control thread. */
export interface Observation {
  readonly measurementId: string;
  /** End of processing, milliseconds since 1970 UTC. Not later than its arrival: the caller sees to that. */
  readonly processMillis: number;
  readonly runNumber: number | null;
  readonly value: number;
  /** The recipe setting this substrate was really processed with. */
  readonly appliedInput: number | null;
}

/** Where an observation stands in the order of process: time, then run number, then measurement id. */
export type Position = Pick<Observation, 'processMillis' | 'runNumber' | 'measurementId'>;

/** What the observations up to some point teach. */
export interface Knowledge {
  /** Observations learnt since the last reset; 0 when nothing is known. */
  readonly count: number;
  /** The level of y - b u at the last learnt run. */
  readonly intercept: number;
  /** Its change per run. */
  readonly drift: number;
  /** Runs from the learnt observation before to the last one; 1 when not known. */
  readonly gapRuns: number;
  readonly lastRunNumber: number | null;
  readonly lastProcessMillis: number;
  /** Outliers in a row since the last learnt observation, as y - b u, all on `outlierSide` of the estimate. */
  readonly outliers: readonly number[];
  readonly outlierSide: -1 | 0 | 1;
}

/**
 * An estimator, as plain JSON. `current` is `base` taught with `history` in order: an observation that arrives late is put
 * into its place in the history and everything after it is learnt again.
 */
export interface EstimatorState {
  readonly base: Knowledge;
  /** The newest observation that is part of the base; what is not after it comes too late. Null while none is. */
  readonly baseEnd: Position | null;
  /** In the order of process, at most HISTORY_LENGTH. */
  readonly history: readonly Observation[];
  readonly current: Knowledge;
}

export const NOTHING_KNOWN: Knowledge = Object.freeze({
  count: 0,
  intercept: 0,
  drift: 0,
  gapRuns: 1,
  lastRunNumber: null,
  lastProcessMillis: 0,
  outliers: Object.freeze([]),
  outlierSide: 0,
});

/** Below 0 when `left` was processed before `right`; 0 only for the same position. A run without a number comes first. */
export function comparePositions(left: Position, right: Position): number {
  if (left.processMillis !== right.processMillis) return left.processMillis - right.processMillis;
  const leftRun = left.runNumber ?? -1;
  const rightRun = right.runNumber ?? -1;
  if (leftRun !== rightRun) return leftRun - rightRun;
  return left.measurementId < right.measurementId ? -1 : left.measurementId > right.measurementId ? 1 : 0;
}

const quantity = z.number().min(-STATE_MAGNITUDE_LIMIT).max(STATE_MAGNITUDE_LIMIT);
const observed = z.number().min(-MAGNITUDE_LIMIT).max(MAGNITUDE_LIMIT);
const run = z.int().min(0).nullable();
const positionFields = { measurementId: z.string().max(255), processMillis: z.number(), runNumber: run };

const knowledgeSchema = z
  .strictObject({
    count: z.int().min(0),
    intercept: quantity,
    drift: quantity,
    gapRuns: z.int().min(1),
    lastRunNumber: run,
    lastProcessMillis: z.number(),
    outliers: z.array(quantity).max(OUTLIERS_OF_A_SHIFT - 1),
    outlierSide: z.union([z.literal(-1), z.literal(0), z.literal(1)]),
  })
  .refine((knowledge) => (knowledge.outliers.length === 0) === (knowledge.outlierSide === 0), {
    path: ['outlierSide'],
    message: 'must be 0 exactly when there are no outliers',
  });

const stateSchema = z
  .strictObject({
    base: knowledgeSchema,
    baseEnd: z.strictObject(positionFields).nullable(),
    history: z.array(z.strictObject({ ...positionFields, value: observed, appliedInput: observed.nullable() })).max(HISTORY_LENGTH),
    current: knowledgeSchema,
  })
  .refine(({ baseEnd, history }) => [...(baseEnd === null ? [] : [baseEnd]), ...history].every(isAfterTheOneBefore), {
    path: ['history'],
    message: 'must be in the order of process, after baseEnd',
  })
  .refine(({ history }) => new Set(history.map((one) => one.measurementId)).size === history.length, {
    path: ['history'],
    message: 'must not repeat a measurementId',
  });

function isAfterTheOneBefore(position: Position, index: number, all: readonly Position[]): boolean {
  const before = all[index - 1];
  return before === undefined || comparePositions(before, position) < 0;
}

/**
 * Checks a state that was stored as JSON.
 * @throws SetpointError invalid_field that names the part and what is wrong with it
 */
export function parseEstimatorState(value: unknown): EstimatorState {
  const result = stateSchema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const path = issue?.path.join('.') || '(top level)';
  throw new SetpointError('invalid_field', `Cannot take up an estimator state: ${path}: ${issue?.message ?? 'is wrong'}`, {
    field: path,
    remedy: 'delete this state; the control thread starts anew with its next observation',
  });
}
