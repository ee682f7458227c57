import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CLAMP_REASONS, type CorrectionLimits, limitCorrection } from '../../../agent/guard/limits.ts';
import { REASONS } from '../../../protocol/frames.ts';

const { clamp_window: WINDOW, clamp_step: STEP, clamp_total: TOTAL } = REASONS;
const LIMITS: CorrectionLimits = { baseline: 5, windowMin: 0, windowMax: 10, step: 2, totalOffset: 4 };

function limited(limits: CorrectionLimits, setting: number, lastApplied: number): { correction: number; reasons: number } {
  const result = { correction: NaN, reasons: 0 };
  limitCorrection(limits, setting, lastApplied, result);
  return result;
}

/** Any number at all, with the extremes often. */
const anyNumber = fc.oneof(
  fc.double(),
  fc.double({ min: -20, max: 20 }),
  fc.constantFrom(NaN, Infinity, -Infinity, 0, -0, Number.MAX_VALUE, -Number.MAX_VALUE, Number.MIN_VALUE),
);
const anyAmount = fc.oneof(fc.constant(NaN), fc.double({ min: 1e-3, max: 20, noNaN: true }), fc.constant(Number.MAX_VALUE));
const anyLimits = fc
  .tuple(fc.uniqueArray(fc.double({ min: -1e308, max: 1e308, noNaN: true }), { minLength: 3, maxLength: 3 }), anyAmount, anyAmount)
  .map(([ends, step, totalOffset]): CorrectionLimits => {
    const [windowMin, baseline, windowMax] = ends.toSorted((left, right) => left - right) as [number, number, number];
    return { baseline, windowMin, windowMax, step, totalOffset };
  });

describe('limitCorrection()', () => {
  test.each([
    ['inside every limit', 6, 5, 6, 0],
    ['on the limits', 7, 5, 7, 0],
    ['more than a step up', 8, 5, 7, STEP],
    ['more than a step down', 2, 5, 3, STEP],
    ['too far from the baseline', 9.5, 9, 9, TOTAL],
    ['too far below the baseline', 0.5, 1, 1, TOTAL],
    ['outside the window and too far from the baseline', 11, 9, 9, WINDOW | TOTAL],
    ['outside everything', -1, 8, 6, WINDOW | TOTAL | STEP],
    ['a step from an unknown setting', 9, NaN, 9, 0],
    ['a step from an infinite setting', 9, Infinity, 9, 0],
  ])('%s: %d after %d becomes %d', (_name, setting, lastApplied, correction, reasons) => {
    expect(limited(LIMITS, setting, lastApplied)).toEqual({ correction, reasons });
  });

  test('lets the window and the total offset win over the step when the last setting lies outside them', () => {
    expect(limited(LIMITS, 5, 20)).toEqual({ correction: 9, reasons: STEP });
    expect(limited({ ...LIMITS, totalOffset: NaN }, 5, 20)).toEqual({ correction: 10, reasons: STEP });
    expect(limited({ ...LIMITS, totalOffset: NaN }, 25, -20)).toEqual({ correction: 0, reasons: STEP | WINDOW });
  });

  test('lets the window win over the total offset', () => {
    expect(limited({ ...LIMITS, totalOffset: 100 }, 12, NaN)).toEqual({ correction: 10, reasons: WINDOW });
  });

  test('counts what is not a number as the baseline outside the window', () => {
    expect(limited(LIMITS, NaN, NaN)).toEqual({ correction: 5, reasons: WINDOW });
    expect(limited(LIMITS, NaN, 1)).toEqual({ correction: 3, reasons: WINDOW | STEP });
  });

  test('leaves the bits of other reasons alone and takes back old clamp bits', () => {
    const result = { correction: NaN, reasons: REASONS.deadline | CLAMP_REASONS };
    limitCorrection(LIMITS, 8, 5, result);
    expect(result.reasons).toBe(REASONS.deadline | STEP);
  });

  test('answers inside the window, with a finite number, whatever is asked', () => {
    fc.assert(
      fc.property(anyLimits, anyNumber, anyNumber, (limits, setting, lastApplied) => {
        const { correction } = limited(limits, setting, lastApplied);
        expect(Number.isFinite(correction)).toBe(true);
        expect(correction).toBeGreaterThanOrEqual(limits.windowMin);
        expect(correction).toBeLessThanOrEqual(limits.windowMax);
      }),
      { numRuns: 2000 },
    );
  });

  test('is idempotent', () => {
    fc.assert(
      fc.property(anyLimits, anyNumber, anyNumber, (limits, setting, lastApplied) => {
        const once = limited(limits, setting, lastApplied);
        expect(limited(limits, once.correction, lastApplied).correction).toBe(once.correction);
      }),
      { numRuns: 2000 },
    );
  });

  test('changes nothing without a reason', () => {
    fc.assert(
      fc.property(anyLimits, anyNumber, anyNumber, (limits, setting, lastApplied) => {
        const { correction, reasons } = limited(limits, setting, lastApplied);
        if (reasons === 0) expect(correction).toBe(setting);
      }),
      { numRuns: 2000 },
    );
  });

  test('keeps the step and the total offset whenever the last setting itself obeys them', () => {
    const inside = fc.double({ min: 1, max: 9, noNaN: true });
    fc.assert(
      fc.property(anyNumber, inside, (setting, lastApplied) => {
        const { correction } = limited(LIMITS, setting, lastApplied);
        expect(Math.abs(correction - lastApplied)).toBeLessThanOrEqual(2 + 1e-12);
        expect(Math.abs(correction - 5)).toBeLessThanOrEqual(4);
      }),
    );
  });
});
