import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { observe } from '../../../agent/guard/estimator.ts';
import { HISTORY_LENGTH, OUTLIERS_OF_A_SHIFT } from '../../../agent/guard/estimator-state.ts';
import type { Observation } from '../../../agent/guard/estimator.ts';
import { DOUBLE, estimated, observationOf, outcomesOf, SINGLE, taught } from './observations.ts';

function freezeDeep<Value>(value: Value): Value {
  if (typeof value === 'object' && value !== null) Object.values(Object.freeze(value)).forEach(freezeDeep);
  return value;
}

const anyValue = fc.double({ min: 60, max: 90, noNaN: true });

describe('observe() and estimateNext()', () => {
  test('average while that is the larger gain, then forget exponentially', () => {
    const values = [70, 74, 78, 82, 90];
    const estimates = values.map((_, index) => {
      const state = taught(
        values.slice(0, index + 1).map((value, run) => observationOf(run, value)),
        SINGLE,
      );
      return estimated(state, SINGLE).fallbackValue;
    });
    const third = 74;
    const fourth = third + 0.3 * (82 - third);
    [70, 72, third, fourth, fourth + 0.3 * (90 - fourth)].forEach((expected, index) => expect(estimates[index]).toBeCloseTo(expected, 12));
  });

  test('are the plain recursion however much of it has left the history', () => {
    const values = Array.from({ length: 3 * HISTORY_LENGTH }, (_, run) => 70 + ((run * 37) % 11));
    let intercept = 0;
    values.forEach((value, run) => (intercept += Math.max(0.3, 1 / (run + 1)) * (value - intercept)));
    const state = taught(
      values.map((value, run) => observationOf(run, value)),
      SINGLE,
    );
    expect(estimated(state, SINGLE).fallbackValue).toBeCloseTo(intercept, 10);
  });

  test('predict a + b u and set (target - a) / b', () => {
    const parameters = { ...SINGLE, processGain: 2 };
    const state = taught([observationOf(1, 71, { appliedInput: 3 })], parameters);
    expect(estimated(state, parameters, { input: 4 })).toEqual({
      hasEstimate: true,
      isStale: false,
      fallbackValue: 73,
      fallbackSetting: 5,
    });
  });

  test('assume the baseline input when the one in force is not known', () => {
    const parameters = { ...SINGLE, processGain: 2, baseline: 4 };
    const state = taught([observationOf(1, 71, { appliedInput: 3 })], parameters);
    expect(estimated(state, parameters).fallbackValue).toBe(73);
    expect(estimated(state, { ...parameters, baseline: NaN })).toMatchObject({ fallbackValue: NaN, fallbackSetting: 5 });
  });

  test('ignore the input where there is no process gain', () => {
    const state = taught([observationOf(1, 71, { appliedInput: 3 })], SINGLE);
    expect(estimated(state, SINGLE, { input: 9 })).toMatchObject({ fallbackValue: 71, fallbackSetting: NaN });
  });

  test('know nothing before the first observation, and without an estimator', () => {
    const nothing = { hasEstimate: false, isStale: false, fallbackValue: NaN, fallbackSetting: NaN };
    expect(estimated(undefined, SINGLE)).toEqual(nothing);
    const none = { ...SINGLE, estimatorOrder: 0 } as const;
    expect(estimated(taught([observationOf(1, 71)], SINGLE), none)).toEqual(nothing);
    expect(observe(undefined, observationOf(1, 71), none)).toEqual({ state: undefined, outcome: 'recorded' });
  });

  test('converge in one run with lambda 1, and do not divide by zero', () => {
    const parameters = { ...SINGLE, lambda: 1 };
    const state = taught([observationOf(1, 70), observationOf(2, 80), observationOf(2, 90, { measurementId: 'again' })], parameters);
    expect(taught([observationOf(1, 70), observationOf(9, 80)], parameters).current.intercept).toBe(80);
    expect(state.current.intercept).toBe(85);
  });

  test('follow no drift that an earlier bundle learnt when this one has a single EWMA', () => {
    const state = taught(
      [1, 2, 3, 4].map((run) => observationOf(run, 10 * run)),
      DOUBLE,
    );
    expect(state.current.drift).toBeGreaterThan(1);
    expect(estimated(state, SINGLE).fallbackValue).toBe(state.current.intercept);
    const next = observe(state, observationOf(5, state.current.intercept), SINGLE).state;
    expect(next?.current.drift).toBe(0);
  });
});

describe('the order of arrival', () => {
  const spread = fc.record({
    processMillis: fc.nat(20),
    runNumber: fc.option(fc.nat(20)),
    value: fc.oneof(anyValue, fc.double({ min: -500, max: 500, noNaN: true })),
    appliedInput: fc.double({ min: -5, max: 5, noNaN: true }),
  });
  const numbered = (parts: readonly Omit<Observation, 'measurementId'>[]): Observation[] =>
    parts.map((part, index) => ({ ...part, measurementId: `m${index}` }));
  const manyParameters = [SINGLE, DOUBLE].flatMap((one) => [
    { ...one, processGain: 2 },
    { ...one, processGain: 2, outlierDistance: 8 },
  ]);
  const anyParameters = fc.constantFrom(...manyParameters);

  test('does not matter within the history, and duplicates do not either', () => {
    const scenario = fc.array(spread, { minLength: 1, maxLength: HISTORY_LENGTH }).chain((parts) => {
      const observations = numbered(parts);
      const shuffled = fc.shuffledSubarray(observations, { minLength: observations.length });
      return fc.tuple(shuffled, shuffled, fc.array(fc.constantFrom(...observations), { maxLength: 8 }));
    });
    fc.assert(
      fc.property(scenario, anyParameters, ([left, right, duplicates], parameters) => {
        expect(taught([...right, ...duplicates], parameters)).toEqual(taught(left, parameters));
      }),
    );
  });

  test('does not matter in a long sequence when none is overtaken by more than the history holds', () => {
    const scenario = fc.array(fc.tuple(spread, fc.nat(HISTORY_LENGTH - 1)), { minLength: 40, maxLength: 120 });
    fc.assert(
      fc.property(scenario, anyParameters, (parts, parameters) => {
        const orderly = parts.map(([part], run) => ({ ...part, measurementId: `m${run}`, processMillis: run, runNumber: run }));
        const arrival = orderly.map((observation, run) => ({ observation, at: run + (parts[run]?.[1] ?? 0) }));
        const disorderly = arrival.toSorted((left, right) => left.at - right.at).map(({ observation }) => observation);
        expect(taught(disorderly, parameters)).toEqual(taught(orderly, parameters));
        expect(outcomesOf(disorderly, parameters)).not.toContain('late');
      }),
      { numRuns: 50 },
    );
  });

  test('is by process time, then run number, then measurement id', () => {
    const parts = [
      { measurementId: 'z', processMillis: 1, runNumber: 9 },
      { measurementId: 'y', processMillis: 2, runNumber: null },
      { measurementId: 'x', processMillis: 2, runNumber: 0 },
      { measurementId: 'a', processMillis: 2, runNumber: 1 },
      { measurementId: 'b', processMillis: 2, runNumber: 1 },
    ];
    const state = taught(parts.map((part) => observationOf(0, 70, part)).toReversed(), SINGLE);
    expect(state.history.map((one) => one.measurementId)).toEqual(['z', 'y', 'x', 'a', 'b']);
  });

  test('leaves the state that was passed in as it was', () => {
    const before = freezeDeep(
      taught(
        [3, 1, 2].map((run) => observationOf(run, 70 + run)),
        DOUBLE,
      ),
    );
    const copy = structuredClone(before);
    observe(before, observationOf(0, 99), DOUBLE);
    expect(before).toEqual(copy);
  });
});

describe('the outcome', () => {
  const orderly = Array.from({ length: HISTORY_LENGTH + 2 }, (_, run) => observationOf(10 + run, 70));

  test('is late for what was processed before the history, and that changes nothing', () => {
    const state = taught(orderly, SINGLE);
    expect(state.history).toHaveLength(HISTORY_LENGTH);
    expect(observe(state, observationOf(1, 90), SINGLE)).toEqual({ state, outcome: 'late' });
    expect(observe(state, observationOf(10, 90), SINGLE).outcome).toBe('late');
    expect(observe(state, observationOf(11, 70), SINGLE).outcome).toBe('late');
    expect(observe(state, observationOf(11, 90, { measurementId: 'm110' }), SINGLE).outcome).toBe('applied');
  });

  test('is duplicate for a measurement id in the history, whatever else it says', () => {
    const state = taught(orderly, SINGLE);
    expect(observe(state, observationOf(43, 99), SINGLE)).toEqual({ state, outcome: 'duplicate' });
    expect(observe(state, observationOf(500, 99, { measurementId: 'm43' }), SINGLE)).toEqual({ state, outcome: 'duplicate' });
  });

  test('is applied for a revised value under a new id, as a second measurement of the same run', () => {
    const result = observe(taught(orderly, SINGLE), observationOf(43, 80, { measurementId: 'm43-revised' }), SINGLE);
    expect(result.outcome).toBe('applied');
    expect(result.state?.current.intercept).toBeCloseTo(70 + 10 * (0.3 / 1.3), 12);
  });

  test.each([
    ['a value that is not a number', { value: NaN }],
    ['an infinite value', { value: -Infinity }],
    ['a value that no instrument gives', { value: 2e100 }],
    ['an input that is not known', { appliedInput: null }],
    ['an input that is not finite', { appliedInput: Infinity }],
    ['a time that is not finite', { processMillis: NaN }],
    ['a run number that counts nothing', { runNumber: -1 }],
  ])('is recorded for %s', (_name, changes) => {
    const parameters = { ...SINGLE, processGain: 2 };
    const observation = observationOf(1, 70, { appliedInput: 1 });
    expect(observe(undefined, observation, parameters).outcome).toBe('applied');
    expect(observe(undefined, { ...observation, ...changes }, parameters)).toEqual({ state: undefined, outcome: 'recorded' });
  });
});

describe('an outlier', () => {
  const orderly = Array.from({ length: 5 }, (_, run) => observationOf(10 + run, 70));

  test('is what lies beyond the outlier distance from the estimate, and nothing is learnt', () => {
    const parameters = { ...SINGLE, outlierDistance: 5 };
    const before = taught(orderly, parameters);
    const { state, outcome } = observe(before, observationOf(50, 75.1), parameters);
    expect(outcome).toBe('outlier');
    expect(state?.current).toEqual({ ...before.current, outliers: [75.1], outlierSide: 1 });
    expect(observe(before, observationOf(50, 75), parameters).outcome).toBe('applied');
  });

  test('the fifth in a row on one side, is a shift: the estimate starts anew from their median', () => {
    const parameters = { ...SINGLE, outlierDistance: 5 };
    const values = [70, 70, 70, 90, 92, 1e9, 91, 89];
    const observations = values.map((value, run) => observationOf(run, value));
    expect(outcomesOf(observations, parameters)).toEqual([
      'applied',
      'applied',
      'applied',
      'outlier',
      'outlier',
      'outlier',
      'outlier',
      'applied',
    ]);
    const state = taught(observations, parameters);
    expect(state.current).toMatchObject({ count: 1, intercept: 91, drift: 0, outliers: [], lastRunNumber: 7 });
    expect(OUTLIERS_OF_A_SHIFT).toBe(5);
  });

  test('on both sides, or with a good value between, is no shift', () => {
    const parameters = { ...SINGLE, outlierDistance: 5 };
    const values = [70, 90, 90, 90, 90, 50, 90, 90, 90, 90, 71, 90];
    const state = taught(
      values.map((value, run) => observationOf(run, value)),
      parameters,
    );
    expect(state.current.intercept).toBeLessThan(72);
    expect(state.current.outliers).toEqual([90]);
  });

  test('stops being one when a late neighbour shows what the process did', () => {
    const parameters = { ...SINGLE, outlierDistance: 8, lambda: 1 };
    const early = [observationOf(1, 70), observationOf(3, 82)];
    expect(outcomesOf(early, parameters)).toEqual(['applied', 'outlier']);
    expect(taught([...early, observationOf(2, 76)], parameters).current).toMatchObject({ intercept: 82, outliers: [] });
  });
});

describe('staleness', () => {
  const state = taught([observationOf(100, 70)], SINGLE);
  const uncounted = taught([observationOf(100, 70, { runNumber: null })], SINGLE);
  const runs = { ...SINGLE, staleAfterRuns: 50 };
  const seconds = { ...SINGLE, staleAfterMillis: 60_000 };
  const both = { ...runs, ...seconds, staleAfterRuns: 50 };

  test.each([
    ['within the runs', state, runs, { runNumber: 150 }, false],
    ['beyond the runs', state, runs, { runNumber: 151 }, true],
    ['within the seconds', state, seconds, { nowMillis: 160_000 }, false],
    ['beyond the seconds', state, seconds, { nowMillis: 160_001 }, true],
    ['beyond the runs only', state, both, { runNumber: 151, nowMillis: 100_001 }, true],
    ['beyond the seconds only', state, both, { runNumber: 101, nowMillis: 160_001 }, true],
    ['within both', state, both, { runNumber: 101, nowMillis: 100_001 }, false],
    ['of unknown runs, within the seconds', uncounted, both, { runNumber: 101, nowMillis: 100_001 }, false],
    ['of unknown runs, with a limit in runs only', uncounted, runs, { runNumber: 101, nowMillis: 100_001 }, true],
    ['asked without a run number', state, runs, { nowMillis: 100_001 }, true],
    ['after the run counter was set back', state, runs, { runNumber: 3 }, true],
    ['without limits', uncounted, SINGLE, { nowMillis: 1e15 }, false],
  ])('of an estimate %s is found', (_name, known, parameters, query, isStale) => {
    expect(estimated(known, parameters, query)).toMatchObject({ hasEstimate: true, isStale, fallbackValue: 70 });
  });
});
