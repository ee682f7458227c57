import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkVector } from '../../../agent/guard/features.ts';
import {
  ACTION_CLAMPED,
  ACTION_FALLBACK,
  ACTION_MODEL,
  createEvidence,
  createVerdict,
  type Evidence,
  judge,
  type Verdict,
} from '../../../agent/guard/judge.ts';
import type { GuardPolicy } from '../../../agent/guard/policy.ts';
import { ACTIONS, type Reason, reasonNames, REASONS } from '../../../protocol/frames.ts';
import { CORRECTION_SPEC, FULL_SPEC, policyOf, PREDICTION_SPEC } from './guarded-manifest.ts';

const full = policyOf(FULL_SPEC);
const predicting = policyOf(PREDICTION_SPEC);
const correcting = policyOf(CORRECTION_SPEC);
const { step: _step, ...withoutStep } = FULL_SPEC.guard.correction;
const unstepped = policyOf({ ...FULL_SPEC, guard: { ...FULL_SPEC.guard, correction: withoutStep } });
const tensors = policyOf({ kind: 'tensors' });

/** A request that the full policy lets pass untouched. */
const GOOD: Evidence = {
  ...createEvidence(),
  hasEstimate: true,
  fallbackValue: 76,
  fallbackSetting: 4.5,
  prediction: 75,
  correctionOutput: 5.5,
  reference: 75.5,
  gsi: 3,
  lastApplied: 5,
};

function verdictOf(policy: GuardPolicy, changes: Partial<Evidence>): Verdict {
  const verdict = createVerdict();
  judge(policy, { ...GOOD, ...changes }, verdict);
  return verdict;
}

const anyNumber = fc.oneof(
  fc.double(),
  fc.double({ min: 0, max: 110 }),
  fc.constantFrom(NaN, Infinity, -Infinity, 0, -0, Number.MAX_VALUE, -Number.MAX_VALUE, 5, 74, 75),
);
const anyEvidence: fc.Arbitrary<Evidence> = fc.record({
  hasEstimate: fc.boolean(),
  isStale: fc.boolean(),
  fallbackValue: anyNumber,
  fallbackSetting: anyNumber,
  inputReasons: fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 7 })),
  isLate: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, fc.boolean()),
  laneReasons: fc.constantFrom(0, 0, 0, REASONS.overload, REASONS.model_failed),
  prediction: anyNumber,
  correctionOutput: anyNumber,
  reference: anyNumber,
  gsi: anyNumber,
  lastApplied: anyNumber,
});
const anyPolicy = fc.constantFrom(full, predicting, correcting, unstepped);

describe('judge()', () => {
  test('numbers its actions as the protocol does', () => {
    expect([ACTIONS[ACTION_MODEL], ACTIONS[ACTION_CLAMPED], ACTIONS[ACTION_FALLBACK]]).toEqual(['model', 'clamped', 'fallback']);
  });

  test('lets a good answer stand', () => {
    const { ri, ...verdict } = verdictOf(full, {});
    expect(verdict).toEqual({ action: 0, reasons: 0, value: 75, rawValue: 75, correction: 5.5, rawCorrection: 5.5, gsi: 3 });
    expect(ri).toBeCloseTo(0.97, 2);
  });

  test('adds an offset to the baseline', () => {
    expect(verdictOf(correcting, { correctionOutput: 0.75 })).toMatchObject({ correction: 5.75, rawCorrection: 5.75, value: NaN });
  });

  test('gives a prediction slot no correction and a correction slot no value', () => {
    expect(verdictOf(predicting, {})).toMatchObject({ value: 75, correction: NaN, rawCorrection: NaN });
    expect(verdictOf(predicting, { isLate: true })).toMatchObject({ value: 76, correction: NaN, rawCorrection: NaN });
    expect(verdictOf(correcting, { correctionOutput: 0 })).toMatchObject({ value: NaN, rawValue: NaN, correction: 5, ri: NaN });
    expect(verdictOf(correcting, { isLate: true })).toMatchObject({ value: NaN, correction: 4.5 });
  });

  const table: readonly (readonly [Partial<Evidence>, number, readonly Reason[]])[] = [
    [{ inputReasons: REASONS.input_count }, ACTION_FALLBACK, ['input_count']],
    [{ inputReasons: REASONS.input_not_finite }, ACTION_FALLBACK, ['input_not_finite']],
    [{ inputReasons: REASONS.input_range }, ACTION_FALLBACK, ['input_range']],
    [{ isLate: true }, ACTION_FALLBACK, ['deadline']],
    [{ laneReasons: REASONS.overload }, ACTION_FALLBACK, ['overload']],
    [{ laneReasons: REASONS.model_failed }, ACTION_FALLBACK, ['model_failed']],
    [{ laneReasons: REASONS.journal_failed }, ACTION_FALLBACK, ['journal_failed']],
    [{ prediction: NaN }, ACTION_FALLBACK, ['output_not_finite']],
    [{ prediction: Infinity }, ACTION_FALLBACK, ['output_not_finite']],
    [{ correctionOutput: -Infinity }, ACTION_FALLBACK, ['output_not_finite']],
    [{ reference: NaN }, ACTION_FALLBACK, ['output_not_finite']],
    [{ gsi: NaN }, ACTION_FALLBACK, ['output_not_finite']],
    [{ prediction: 49.9 }, ACTION_FALLBACK, ['output_range']],
    [{ prediction: 100.1 }, ACTION_FALLBACK, ['output_range']],
    [{ reference: 90 }, ACTION_FALLBACK, ['reliance_low']],
    [{ gsi: 9.01 }, ACTION_FALLBACK, ['similarity_low']],
    [{ reference: 90, gsi: 9.01 }, ACTION_FALLBACK, ['reliance_low', 'similarity_low']],
    [{ correctionOutput: 10.5, lastApplied: NaN }, ACTION_CLAMPED, ['clamp_window', 'clamp_total']],
    [{ correctionOutput: 7.5 }, ACTION_CLAMPED, ['clamp_step']],
    [{ correctionOutput: 9.5, lastApplied: 9 }, ACTION_CLAMPED, ['clamp_total']],
    [{ isLate: true, isStale: true }, ACTION_FALLBACK, ['deadline', 'fallback_stale']],
    [{ isLate: true, hasEstimate: false }, ACTION_FALLBACK, ['deadline', 'fallback_missing']],
    [{ isLate: true, fallbackSetting: 8 }, ACTION_FALLBACK, ['deadline', 'clamp_step']],
    [{ isLate: true, hasEstimate: false, lastApplied: 1 }, ACTION_FALLBACK, ['deadline', 'clamp_step', 'fallback_missing']],
  ];
  test.each(table)('answers %o with action %d for %o', (changes, action, reasons) => {
    const verdict = verdictOf(full, changes);
    expect(reasonNames(verdict.reasons)).toEqual(reasons);
    expect(verdict.action).toBe(action);
  });

  test('can give every reason there is', () => {
    const shown = new Set(table.flatMap(([, , reasons]) => reasons));
    expect([...shown].sort()).toEqual(Object.keys(REASONS).sort());
  });

  test('asks its stages in order and names the first that fails', () => {
    const stages: readonly (readonly [Partial<Evidence>, Reason])[] = [
      [{ inputReasons: REASONS.input_range }, 'input_range'],
      [{ isLate: true }, 'deadline'],
      [{ laneReasons: REASONS.model_failed }, 'model_failed'],
      [{ gsi: NaN }, 'output_not_finite'],
      [{ prediction: 10 }, 'output_range'],
      [{ reference: 1 }, 'reliance_low'],
      [{ correctionOutput: 11 }, 'clamp_window'],
    ];
    stages.forEach(([, first], index) => {
      const changes = Object.assign({}, ...stages.slice(index).map(([change]) => change)) as Partial<Evidence>;
      expect(reasonNames(verdictOf(full, changes).reasons)[0]).toBe(first);
    });
  });

  test('trusts RI and GSI on their thresholds', () => {
    const { ri } = verdictOf(full, { reference: 82 });
    expect(verdictOf({ ...full, riThreshold: ri }, { reference: 82 }).action).toBe(ACTION_MODEL);
    expect(verdictOf({ ...full, riThreshold: ri + 1e-12 }, { reference: 82 }).action).toBe(ACTION_FALLBACK);
    expect(verdictOf(full, { gsi: 9 }).action).toBe(ACTION_MODEL);
  });

  test('does not ask for outputs that no limit needs', () => {
    expect(verdictOf(predicting, { reference: NaN, gsi: Infinity, correctionOutput: NaN })).toMatchObject({ action: 0, gsi: NaN, ri: NaN });
  });

  test('keeps what the model said beside the fallback', () => {
    expect(verdictOf(full, { reference: 90 })).toMatchObject({ rawValue: 75, value: 76, rawCorrection: 4.5, correction: 4.5, gsi: 3 });
    expect(verdictOf(full, { reference: 90 }).ri).toBeLessThan(full.riThreshold);
  });

  test('answers with the baseline when the estimate is stale or missing', () => {
    for (const changes of [{ isStale: true }, { hasEstimate: false }, { hasEstimate: false, isStale: true }]) {
      expect(verdictOf(full, { isLate: true, ...changes })).toMatchObject({ value: 74, correction: 5, rawCorrection: 5 });
    }
  });

  test.each([
    ['not finite', { fallbackValue: NaN }],
    ['without a finite setting', { fallbackSetting: Infinity }],
    ['below the plausible range', { fallbackValue: 49 }],
    ['above the plausible range', { fallbackValue: 101 }],
  ])('takes an estimate that is %s for missing', (_name, changes) => {
    const verdict = verdictOf(full, { isLate: true, ...changes });
    expect(reasonNames(verdict.reasons)).toEqual(['deadline', 'fallback_missing']);
    expect(verdict).toMatchObject({ value: 74, correction: 5 });
  });

  test('goes back to a far baseline step by step, or at once where there is no step limit', () => {
    let lastApplied = 9.5;
    const settings = Array.from({ length: 4 }, () => {
      lastApplied = verdictOf(full, { isLate: true, hasEstimate: false, lastApplied }).correction;
      return lastApplied;
    });
    expect(settings).toEqual([7.5, 5.5, 5, 5]);
    expect(verdictOf(unstepped, { isLate: true, hasEstimate: false, lastApplied: 9.5 }).correction).toBe(5);
    expect(verdictOf(full, { isLate: true, hasEstimate: false, lastApplied: NaN }).correction).toBe(5);
  });

  test('has no answer of its own for a slot of tensors', () => {
    expect(verdictOf(tensors, {})).toMatchObject({ action: ACTION_MODEL, reasons: 0, value: NaN, correction: NaN });
    const failed = verdictOf(tensors, { laneReasons: REASONS.model_failed });
    expect(failed).toMatchObject({ action: ACTION_FALLBACK, value: NaN, correction: NaN });
    expect(reasonNames(failed.reasons)).toEqual(['model_failed', 'fallback_missing']);
  });

  test('forgets everything of the request before', () => {
    fc.assert(
      fc.property(anyPolicy, anyEvidence, anyPolicy, anyEvidence, (beforePolicy, before, policy, evidence) => {
        const reused = createVerdict();
        judge(beforePolicy, before, reused);
        judge(policy, evidence, reused);
        const fresh = createVerdict();
        judge(policy, evidence, fresh);
        expect(reused).toEqual(fresh);
      }),
    );
  });

  test('answers with a finite number inside every range whatever it is given', () => {
    fc.assert(
      fc.property(anyPolicy, anyEvidence, (policy, evidence) => {
        const verdict = createVerdict();
        judge(policy, evidence, verdict);
        expect(Number.isFinite(verdict.value)).toBe(policy.predicts);
        expect(Number.isFinite(verdict.correction)).toBe(policy.corrects);
        if (policy === full) {
          expect(verdict.value).toBeGreaterThanOrEqual(50);
          expect(verdict.value).toBeLessThanOrEqual(100);
        }
        if (policy.corrects) {
          expect(verdict.correction).toBeGreaterThanOrEqual(0);
          expect(verdict.correction).toBeLessThanOrEqual(10);
          expect(Number.isFinite(verdict.rawCorrection)).toBe(true);
        }
        const infinite = Object.values(verdict).filter((part) => part === Infinity || part === -Infinity);
        expect(infinite).toEqual([]);
      }),
      { numRuns: 3000 },
    );
  });

  test('gives no reason exactly when the model stands, clamp reasons only when it clamps, others when it falls back', () => {
    const clamps = REASONS.clamp_window | REASONS.clamp_step | REASONS.clamp_total;
    const seen = new Set<number>();
    fc.assert(
      fc.property(
        anyPolicy,
        fc.oneof(
          anyEvidence,
          anyNumber.map((correctionOutput) => ({ ...GOOD, correctionOutput })),
        ),
        (policy, evidence) => {
          const { action, reasons, value, rawValue, correction, rawCorrection } = verdictOf(policy, evidence);
          seen.add(action);
          expect(reasons === 0).toBe(action === ACTION_MODEL);
          expect(reasons !== 0 && (reasons & ~clamps) === 0).toBe(action === ACTION_CLAMPED);
          if (action === ACTION_MODEL) expect([value, correction]).toEqual([rawValue, rawCorrection]);
          const sources = reasons & (REASONS.fallback_missing | REASONS.fallback_stale);
          if (action !== ACTION_FALLBACK) expect(sources).toBe(0);
        },
      ),
      { numRuns: 3000 },
    );
    expect(seen.size).toBe(3);
  });

  test('never lets the model answer for a vector that holds a number that is not finite', () => {
    const spoiler = fc.constantFrom(NaN, Infinity, -Infinity);
    const vector = fc.array(fc.double({ noNaN: true, noDefaultInfinity: true }), { minLength: 3, maxLength: 3 });
    fc.assert(
      fc.property(anyPolicy, vector, fc.nat(2), spoiler, (policy, values, at, bad) => {
        values[at] = bad;
        const inputReasons = checkVector(Float64Array.from(values), 0, 3, policy);
        expect(verdictOf(policy, { inputReasons }).action).toBe(ACTION_FALLBACK);
      }),
    );
  });

  test('does not touch the evidence', () => {
    const evidence = Object.freeze({ ...GOOD, correctionOutput: 99 });
    judge(full, evidence, createVerdict());
    expect(evidence).toEqual({ ...GOOD, correctionOutput: 99 });
  });
});
