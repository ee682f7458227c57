import { erfc } from './normal.ts';

/** Z_N - Z_r enters erfc as |dZ| / (2 sqrt 2). */
const TWO_SQRT_TWO = 2 * Math.SQRT2;

/**
 * RI, the reliance index of automatic virtual metrology (US 7,593,912; Cheng et al., IEEE Trans. Semiconductor Manufacturing
 * 21(1):92-103, 2008): the overlap area of two unit normals centred on the standardised prediction and reference,
 * 2 (1 - Phi(|Z_N - Z_r| / 2)) = erfc(|dZ| / (2 sqrt 2)). The training mean cancels in the difference.
 *
 * @param prediction the conjecture model's value, in the value unit
 * @param reference the reference model's value for the same features, in the value unit
 * @param trainingStandardDeviation of the training metrology values, > 0, in the value unit
 * @returns 0 (no agreement) to 1 (equal); NaN when an argument is not a number
 */
export function relianceIndex(prediction: number, reference: number, trainingStandardDeviation: number): number {
  return erfc(Math.abs(prediction - reference) / trainingStandardDeviation / TWO_SQRT_TWO);
}

/** How an operator states RI_T: exactly one of the three, as the manifest's guard.reliance has it. */
export interface RelianceLimit {
  readonly trainingMean: number;
  readonly trainingStandardDeviation: number;
  /** E_L, a fraction of the training mean. */
  readonly maximalErrorFraction?: number | undefined;
  /** E_L in the value unit. */
  readonly maximalErrorAbsolute?: number | undefined;
  /** RI_T itself. */
  readonly threshold?: number | undefined;
}

/**
 * RI_T: the reliance index of two models that differ by exactly the tolerable error, 2 (1 - Phi(E / (2 s))) with
 * E = |mean| E_L or the absolute tolerance (source as relianceIndex; E_L of 3 % in the patent's example gives 0.567).
 * The fraction depends on where the quantity has its zero: 350 K and 77 degrees Celsius give different thresholds for the same
 * process, so quantities with an arbitrary zero need the absolute form.
 * @returns RI_T in [0, 1], or NaN when none of the three is given
 */
export function relianceThreshold(limit: RelianceLimit): number {
  if (limit.threshold !== undefined) return limit.threshold;
  const tolerance = limit.maximalErrorAbsolute ?? limit.trainingMean * (limit.maximalErrorFraction ?? NaN);
  return relianceIndex(tolerance, 0, limit.trainingStandardDeviation);
}
