import type { WireTensor } from './datatype.ts';

/**
 * The frames of protocol v1, as values. Their byte layout is protocol/README.md; codec.ts turns one into the other.
 * A frame is a MessagePack array whose position 0 is its kind.
 */
export const FRAME_KINDS = { hello: 1, welcome: 2, predict: 3, decision: 4, observe: 5, observed: 6, error: 7 } as const;

/** What the agent answered with: the model's own value, the model's value after a limit, or the fallback. */
export const ACTIONS = ['model', 'clamped', 'fallback'] as const;
export type Action = (typeof ACTIONS)[number];

/** Why, as bits of `reasons`. The first group leads to the fallback, the second to a clamp, the third tells which fallback. */
export const REASONS = {
  input_count: 1 << 0,
  input_not_finite: 1 << 1,
  input_range: 1 << 2,
  deadline: 1 << 3,
  overload: 1 << 4,
  model_failed: 1 << 5,
  output_not_finite: 1 << 6,
  output_range: 1 << 7,
  reliance_low: 1 << 8,
  similarity_low: 1 << 9,
  journal_failed: 1 << 10,
  clamp_window: 1 << 12,
  clamp_step: 1 << 13,
  clamp_total: 1 << 14,
  fallback_stale: 1 << 16,
  fallback_missing: 1 << 17,
} as const;
export type Reason = keyof typeof REASONS;

/** The names of the bits set in `bits`, in the order of the guard. */
export function reasonNames(bits: number): Reason[] {
  return (Object.keys(REASONS) as Reason[]).filter((name) => (bits & REASONS[name]) !== 0);
}

/** The SEMI identifiers of one processed substrate. Positions on the wire are the order of these fields. */
export interface Context {
  /** E90 SubstID. */
  readonly substrateId: string | null;
  /** E90 SubstLotID. */
  readonly lotId: string | null;
  /** E87 CarrierID. */
  readonly carrierId: string | null;
  /** E87 carrier slot, as the equipment writes it. Not the model slot. */
  readonly slotId: string | null;
  readonly equipmentId: string | null;
  /** E157 module (chamber). */
  readonly moduleId: string | null;
  /** E40 RecID with its revision. */
  readonly recipeId: string | null;
  /** Operation or recipe step whose result is predicted. */
  readonly stepId: string | null;
  /** E40 PRJobID. */
  readonly processJobId: string | null;
  /** E94 CtrlJobID. */
  readonly controlJobId: string | null;
  readonly product: string | null;
  /** Counts runs of this control thread; tells rework apart and gives the age of an estimate in runs. */
  readonly runNumber: number | null;
  /** E148 end of processing, milliseconds since 1970-01-01 UTC. */
  readonly processEndMillis: number | null;
}

export const CONTEXT_FIELDS = [
  'substrateId',
  'lotId',
  'carrierId',
  'slotId',
  'equipmentId',
  'moduleId',
  'recipeId',
  'stepId',
  'processJobId',
  'controlJobId',
  'product',
  'runNumber',
  'processEndMillis',
] as const satisfies readonly (keyof Context)[];

export interface HelloFrame {
  readonly kind: typeof FRAME_KINDS.hello;
  readonly versionOldest: number;
  readonly versionNewest: number;
  /** Name and version of the client software, for the agent's log. */
  readonly client: string;
  readonly token: string | null;
}

interface WelcomeLimits {
  readonly maxFrameBytes: number;
  readonly maxInFlight: number;
  /** Applied when a request asks for deadline 0, microseconds. */
  readonly defaultDeadlineMicros: number;
}

export interface SlotInfo {
  readonly slot: string;
  /** What the slot answers with: 'prediction', 'correction', 'prediction+correction' or 'tensors'. */
  readonly kind: string;
  /** SHA-256 of the manifest's bytes, 32 bytes. */
  readonly bundleId: Uint8Array;
  readonly version: string;
  /** Length of the feature vector, or null when the model takes named tensors only. */
  readonly featureCount: number | null;
  readonly valueUnit: string | null;
  readonly correctionUnit: string | null;
}

export interface WelcomeFrame {
  readonly kind: typeof FRAME_KINDS.welcome;
  readonly version: number;
  readonly agentId: string;
  readonly software: string;
  readonly serverTimeMicros: number;
  readonly limits: WelcomeLimits;
  readonly slots: readonly SlotInfo[];
}

/** One vector of little-endian floats, or named tensors for a model with several inputs. */
export type Features =
  | { readonly encoding: 'float32' | 'float64'; readonly bytes: Uint8Array }
  | { readonly encoding: 'tensors'; readonly tensors: readonly WireTensor[] };

export interface PredictFrame {
  readonly kind: typeof FRAME_KINDS.predict;
  /** Chosen by the controller, echoed in the decision; 0 .. 2^53-1. */
  readonly requestId: number;
  readonly slot: string;
  readonly context: Context | null;
  /** Time the agent may take from the arrival of the frame, microseconds; 0 asks for the agent's default. */
  readonly deadlineMicros: number;
  /** The recipe setting in force, in the correction's unit; the step limit is measured from it. */
  readonly lastApplied: number | null;
  readonly features: Features;
  /** Model outputs to return with the decision: null for none, an empty list for all. */
  readonly outputs: readonly string[] | null;
}

export interface DecisionFrame {
  readonly kind: typeof FRAME_KINDS.decision;
  readonly requestId: number;
  /** Grows by one with every record of `stream`; (agentId, stream, sequence) names this decision for ever. */
  readonly sequence: number;
  /** The journal stream of the serving thread that answered. */
  readonly stream: number;
  readonly action: Action;
  /** Bits of REASONS; 0 when the model's own value stands. */
  readonly reasons: number;
  /** The value to use: predicted metrology value, in the slot's value unit. Null where the slot predicts none. */
  readonly value: number | null;
  /** What the model itself said, before the guard. */
  readonly rawValue: number | null;
  /** The recipe setting to apply, after every limit. Null where the slot corrects nothing. */
  readonly correction: number | null;
  /** The recipe setting that the model (or the fallback) asked for, before the limits. */
  readonly rawCorrection: number | null;
  readonly ri: number | null;
  readonly riThreshold: number | null;
  readonly gsi: number | null;
  readonly gsiThreshold: number | null;
  readonly bundleId: Uint8Array;
  readonly version: string;
  readonly serverTimeMicros: number;
  readonly outputs: readonly WireTensor[] | null;
}

export interface ObserveFrame {
  readonly kind: typeof FRAME_KINDS.observe;
  readonly requestId: number;
  readonly slot: string;
  readonly context: Context;
  /** Names this measurement; a repeated id changes nothing. */
  readonly measurementId: string;
  /** What was measured, for example 'CD' or 'thickness'. */
  readonly parameter: string;
  readonly value: number;
  readonly unit: string | null;
  /** The recipe setting this substrate was really processed with. */
  readonly appliedInput: number | null;
  readonly measuredAtMillis: number;
}

/** What became of an observation. All but 'duplicate' are in the journal. */
export const OUTCOMES = ['applied', 'duplicate', 'late', 'outlier', 'recorded'] as const;
export type Outcome = (typeof OUTCOMES)[number];

export interface ObservedFrame {
  readonly kind: typeof FRAME_KINDS.observed;
  readonly requestId: number;
  readonly sequence: number;
  readonly stream: number;
  readonly outcome: Outcome;
  /** The estimator's prediction for the next run of this control thread, null when the slot has no estimator. */
  readonly estimate: number | null;
}

export interface ErrorFrame {
  readonly kind: typeof FRAME_KINDS.error;
  /** The request this answers, null when the frame was too broken to tell. */
  readonly requestId: number | null;
  readonly code: string;
  readonly field: string | null;
  readonly message: string;
  readonly remedy: string;
  readonly retryable: boolean;
}

export type ClientFrame = HelloFrame | PredictFrame | ObserveFrame;
export type ServerFrame = WelcomeFrame | DecisionFrame | ObservedFrame | ErrorFrame;
export type Frame = ClientFrame | ServerFrame;
