import { REASONS } from '../../protocol/frames.ts';
import type { GuardPolicy } from './policy.ts';

/** Every bit a correction limit can set. */
export const CLAMP_REASONS = REASONS.clamp_window | REASONS.clamp_step | REASONS.clamp_total;

export type CorrectionLimits = Pick<GuardPolicy, 'baseline' | 'windowMin' | 'windowMax' | 'step' | 'totalOffset'>;

/** Where limitCorrection writes; a verdict is one. */
export interface LimitedCorrection {
  /** The setting to apply. */
  correction: number;
  /** Reason bits; only the clamp bits are changed. */
  reasons: number;
}

/**
 * Brings a recipe setting inside the correction limits: `result.correction` is the allowed setting nearest to the one asked
 * for, always finite and inside the window, and the clamp bits tell which limits the asked-for setting broke.
 *
 * The limits are the qualified window, the largest distance from the baseline (`totalOffset`) and the largest step from
 * `lastApplied`. The step is skipped when `lastApplied` is not a finite number. Where they contradict each other (the last
 * applied setting lies outside the window, say after a change of recipe), the window wins over the total offset and the
 * total offset over the step: the answer is then the allowed setting nearest to `lastApplied`, even if that is more than one
 * step away, and clamp_step says so. A setting that is not a number counts as the baseline and breaks the window.
 */
export function limitCorrection(limits: CorrectionLimits, setting: number, lastApplied: number, result: LimitedCorrection): void {
  const asked = setting === setting ? setting : limits.baseline;
  let reasons = setting >= limits.windowMin && setting <= limits.windowMax ? 0 : REASONS.clamp_window;
  let low = limits.windowMin;
  let high = limits.windowMax;
  if (limits.totalOffset === limits.totalOffset) {
    const lowest = limits.baseline - limits.totalOffset;
    const highest = limits.baseline + limits.totalOffset;
    if (asked < lowest || asked > highest) reasons |= REASONS.clamp_total;
    low = within(lowest, low, high);
    high = within(highest, low, high);
  }
  if (limits.step === limits.step && lastApplied - lastApplied === 0) {
    const lowest = lastApplied - limits.step;
    const highest = lastApplied + limits.step;
    if (asked < lowest || asked > highest) reasons |= REASONS.clamp_step;
    low = within(lowest, low, high);
    high = within(highest, low, high);
  }
  result.correction = within(asked, low, high);
  result.reasons = (result.reasons & ~CLAMP_REASONS) | reasons;
}

function within(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}
