import { REASONS } from '../../protocol/frames.ts';
import type { Estimate } from './estimator.ts';
import { limitCorrection } from './limits.ts';
import type { GuardPolicy } from './policy.ts';
import { relianceIndex } from './reliance.ts';

/** `verdict.action` as an index into ACTIONS of protocol/frames.ts. */
export const ACTION_MODEL = 0;
export const ACTION_CLAMPED = 1;
export const ACTION_FALLBACK = 2;

/** Everything one request offers to the guard. One object per serving thread, written anew for each request. */
export interface Evidence extends Estimate {
  /** Bits from checkVector. */
  inputReasons: number;
  /** The deadline has passed, or cannot be met. */
  isLate: boolean;
  /** overload and model_failed, as the lane that ran (or refused) the model reports them. */
  laneReasons: number;
  /** Model outputs by role; NaN when the model has no such role or did not run. */
  prediction: number;
  correctionOutput: number;
  reference: number;
  gsi: number;
  /** The recipe setting in force; NaN when the controller did not say. */
  lastApplied: number;
}

/** The guard's answer. One object per serving thread. Every number is finite or NaN (absent); none is infinite. */
export interface Verdict {
  action: 0 | 1 | 2;
  /** Bits of REASONS; 0 exactly when the action is 'model'. */
  reasons: number;
  /** The value to use, value unit; NaN where the slot predicts none. */
  value: number;
  /** What the model predicted, whatever became of it. */
  rawValue: number;
  /** The recipe setting to apply, inside every limit; NaN where the slot corrects nothing. */
  correction: number;
  /** The recipe setting that the model (or the fallback) asked for, before the limits. */
  rawCorrection: number;
  ri: number;
  gsi: number;
}

export function createEvidence(): Evidence {
  return {
    hasEstimate: false,
    isStale: false,
    fallbackValue: NaN,
    fallbackSetting: NaN,
    inputReasons: 0,
    isLate: false,
    laneReasons: 0,
    prediction: NaN,
    correctionOutput: NaN,
    reference: NaN,
    gsi: NaN,
    lastApplied: NaN,
  };
}

export function createVerdict(): Verdict {
  return {
    action: ACTION_MODEL,
    reasons: 0,
    value: NaN,
    rawValue: NaN,
    correction: NaN,
    rawCorrection: NaN,
    ri: NaN,
    gsi: NaN,
  };
}

/**
 * Decides what to answer: every field of `verdict` is written, nothing is allocated, nothing else is touched.
 * The stages are asked in the order of README.md and the first that fails sends the request to the fallback, with all
 * reasons of that stage; what a failed stage was to protect is not judged any more.
 */
export function judge(policy: GuardPolicy, evidence: Evidence, verdict: Verdict): void {
  const setting = !policy.corrects ? NaN : policy.isOffset ? policy.baseline + evidence.correctionOutput : evidence.correctionOutput;
  const ri = relianceIndex(evidence.prediction, evidence.reference, policy.trainingStandardDeviation);
  verdict.rawValue = policy.predicts ? finiteOrNaN(evidence.prediction) : NaN;
  verdict.ri = ri;
  verdict.gsi = finiteOrNaN(evidence.gsi);
  const failure = findFailure(policy, evidence, setting, ri);
  if (failure !== 0) {
    fallBack(policy, evidence, failure, verdict);
    return;
  }
  verdict.value = verdict.rawValue;
  applySetting(policy, setting, evidence.lastApplied, 0, verdict);
  verdict.action = verdict.reasons === 0 ? ACTION_MODEL : ACTION_CLAMPED;
}

/** The reasons of the first stage that fails; 0 when the model's answer may go on to the correction limits. */
function findFailure(policy: GuardPolicy, evidence: Evidence, setting: number, ri: number): number {
  if (evidence.inputReasons !== 0) return evidence.inputReasons;
  if (evidence.isLate) return REASONS.deadline;
  if (evidence.laneReasons !== 0) return evidence.laneReasons;
  if (hasSpoiledOutput(policy, evidence, setting)) return REASONS.output_not_finite;
  // A limit that is not given is NaN, and no comparison with NaN holds.
  if (evidence.prediction < policy.predictionMin || evidence.prediction > policy.predictionMax) return REASONS.output_range;
  return (ri < policy.riThreshold ? REASONS.reliance_low : 0) | (evidence.gsi > policy.gsiThreshold ? REASONS.similarity_low : 0);
}

/** Whether an output that is answered or judged is not finite. x - x is 0 for finite numbers only. */
function hasSpoiledOutput(policy: GuardPolicy, evidence: Evidence, setting: number): boolean {
  return (
    (policy.predicts && evidence.prediction - evidence.prediction !== 0) ||
    (policy.corrects && setting - setting !== 0) ||
    (policy.riThreshold === policy.riThreshold && evidence.reference - evidence.reference !== 0) ||
    (policy.gsiThreshold === policy.gsiThreshold && evidence.gsi - evidence.gsi !== 0)
  );
}

/**
 * Answers with the estimate, or with the baseline when the estimate is stale, missing, not finite or outside the plausible
 * range. Both parts of an answer come from one source. The setting passes the same limits as the model's.
 */
function fallBack(policy: GuardPolicy, evidence: Evidence, failure: number, verdict: Verdict): void {
  const isUsable = evidence.hasEstimate && !evidence.isStale && isAnswerable(policy, evidence);
  const isOld = evidence.hasEstimate && evidence.isStale;
  const source = isUsable ? 0 : isOld ? REASONS.fallback_stale : REASONS.fallback_missing;
  verdict.value = policy.predicts ? (isUsable ? evidence.fallbackValue : policy.baselineValue) : NaN;
  applySetting(policy, isUsable ? evidence.fallbackSetting : policy.baseline, evidence.lastApplied, failure | source, verdict);
  verdict.action = ACTION_FALLBACK;
}

function isAnswerable(policy: GuardPolicy, evidence: Evidence): boolean {
  if (policy.corrects && evidence.fallbackSetting - evidence.fallbackSetting !== 0) return false;
  if (!policy.predicts) return policy.corrects;
  const value = evidence.fallbackValue;
  return value - value === 0 && !(value < policy.predictionMin) && !(value > policy.predictionMax);
}

function applySetting(policy: GuardPolicy, setting: number, lastApplied: number, reasons: number, verdict: Verdict): void {
  verdict.reasons = reasons;
  if (!policy.corrects) {
    verdict.rawCorrection = NaN;
    verdict.correction = NaN;
    return;
  }
  verdict.rawCorrection = setting;
  limitCorrection(policy, setting, lastApplied, verdict);
}

function finiteOrNaN(value: number): number {
  return value - value === 0 ? value : NaN;
}
