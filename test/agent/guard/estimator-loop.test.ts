import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type EstimatorState, irregularGain, type Observation, observe } from '../../../agent/guard/estimator.ts';
import type { EstimatorParameters } from '../../../agent/guard/policy.ts';
import { DOUBLE, estimated, observationOf, SINGLE, taught } from './observations.ts';

/** Reproducible unit normals (Lehmer's generator, Box and Muller's transform). */
function normals(seed: number): () => number {
  let word = seed;
  const uniform = (): number => (word = (word * 48_271) % 2_147_483_647) / 2_147_483_647;
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
}

interface Loop {
  readonly parameters: EstimatorParameters;
  /** beta / b: how wrong the process gain is. */
  readonly gainRatio: number;
  readonly runs: number;
  readonly delay?: number;
  readonly driftPerRun?: number;
  /** One run of this many is measured. */
  readonly sampling?: number;
}

/** The errors y - target of a closed loop y = 10 + beta u + drift k, with metrology after `delay` more runs. */
function closedLoopErrors({ parameters, gainRatio, runs, delay = 0, driftPerRun = 0, sampling = 1 }: Loop): number[] {
  const beta = gainRatio * parameters.processGain;
  const history: { readonly value: number; readonly input: number }[] = [];
  let state: EstimatorState | undefined;
  for (let run = 0; run < runs; run++) {
    const { hasEstimate, fallbackSetting } = estimated(state, parameters, { runNumber: run });
    const input = hasEstimate ? fallbackSetting : 0;
    history.push({ value: 10 + beta * input + driftPerRun * run, input });
    const measured = run - delay;
    const known = history[measured];
    if (known !== undefined && measured % sampling === 0) {
      state = observe(state, observationOf(measured, known.value, { appliedInput: known.input }), parameters).state;
    }
  }
  return history.map(({ value }) => value - parameters.target);
}

const anyValue = fc.double({ min: 60, max: 90, noNaN: true });

describe('irregularGain()', () => {
  test.each([
    [1, 0.3],
    [2, 0.36],
    [5, 0.49],
    [10, 0.61],
    [25, 0.78],
    [50, 0.87],
  ])('after %d runs is %d for lambda 0.3', (runs, expected) => {
    expect(Math.abs(irregularGain(0.3, runs) - expected)).toBeLessThan(0.005);
  });

  test('is lambda after one run and stays within 0 to 1', () => {
    fc.assert(
      fc.property(fc.double({ min: 1e-6, max: 1, noNaN: true }), fc.nat(), (lambda, runs) => {
        expect(irregularGain(lambda, 1)).toBeCloseTo(lambda, 12);
        expect(irregularGain(lambda, runs)).toBeGreaterThan(0);
        expect(irregularGain(lambda, runs)).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('is taken for the runs since the last one learnt, and lambda when these are not known', () => {
    const averaged = [1, 2, 3, 4].map((run) => observationOf(run, 70));
    const errorAfter = (changes: Partial<Observation>, before: readonly Observation[] = averaged): number =>
      taught([...before, observationOf(29, 80, changes)], SINGLE).current.intercept - 70;
    expect(errorAfter({})).toBeCloseTo(10 * irregularGain(0.3, 25), 12);
    expect(errorAfter({ runNumber: null })).toBeCloseTo(3, 12);
    expect(errorAfter({ runNumber: 4 })).toBeCloseTo(10 * irregularGain(0.3, 0), 12);
    expect(errorAfter({ runNumber: 2 })).toBeCloseTo(3, 12);
    expect(
      errorAfter(
        {},
        averaged.map((one) => ({ ...one, runNumber: null })),
      ),
    ).toBeCloseTo(3, 12);
  });

  test('halves the error of the state where one run of 25 is measured', () => {
    const normal = normals(7);
    const deviation = Math.sqrt(0.09 / 0.7);
    let level = 0;
    let [fixed, compensated]: (EstimatorState | undefined)[] = [];
    const sums = { fixed: 0, compensated: 0, count: 0 };
    for (let run = 0; run < 60_000; run++) {
      level += deviation * normal();
      if (fixed !== undefined && compensated !== undefined) {
        sums.fixed += (fixed.current.intercept - level) ** 2;
        sums.compensated += (compensated.current.intercept - level) ** 2;
        sums.count++;
      }
      if (run % 25 !== 0) continue;
      const observation = observationOf(run, level + normal());
      fixed = observe(fixed, { ...observation, runNumber: null }, SINGLE).state;
      compensated = observe(compensated, observation, SINGLE).state;
    }
    expect(Math.abs(sums.fixed / sums.count - 4.72)).toBeLessThan(0.5);
    expect(Math.abs(sums.compensated / sums.count - 2.49)).toBeLessThan(0.25);
  });
});

describe('the closed loop', () => {
  const parameters = { ...SINGLE, lambda: 0.5, processGain: 2 };

  test.each([
    [0.1, true],
    [1, true],
    [3.9, true],
    [4.1, false],
    [-0.1, false],
  ])('with lambda 0.5 and gain ratio %d is stable: %s, as 0 < lambda xi < 2 says', (gainRatio, isStable) => {
    const errors = closedLoopErrors({ parameters, gainRatio, runs: 400 });
    const last = Math.abs(errors.at(-1) ?? NaN);
    if (isStable) expect(last).toBeLessThan(1e-3);
    else expect(last).toBeGreaterThan(1e3);
  });

  test('is stable with metrology 10 runs late and lambda 0.3, xi 1.5, where the integral form diverges', () => {
    const matched = closedLoopErrors({ parameters: { ...parameters, lambda: 0.3 }, gainRatio: 1.5, runs: 600, delay: 10 });
    expect(Math.max(...matched.slice(-20).map(Math.abs))).toBeLessThan(1e-3);
    const errors: number[] = [];
    let intercept = 0;
    for (let run = 0; run < 600; run++) {
      errors.push(10 + 1.5 * 2 * ((75 - intercept) / 2) - 75);
      if (run >= 10) intercept += 0.3 * (errors[run - 10] ?? 0);
    }
    expect(Math.max(...errors.slice(-20).map(Math.abs))).toBeGreaterThan(1e6);
  });

  test('leaves drift / (lambda xi) of a linear drift with one term and nothing with two', () => {
    const drifting = { gainRatio: 1.2, runs: 400, driftPerRun: 0.5 };
    expect(closedLoopErrors({ ...drifting, parameters }).at(-1)).toBeCloseTo(0.5 / (0.5 * 1.2), 6);
    expect(closedLoopErrors({ ...drifting, parameters: { ...DOUBLE, processGain: 2 } }).at(-1)).toBeCloseTo(0, 6);
  });

  test('follows a drift through the runs that are not measured', () => {
    const sampled = { gainRatio: 1, runs: 2000, driftPerRun: 0.5, sampling: 25 };
    const double = closedLoopErrors({ ...sampled, parameters: { ...DOUBLE, processGain: 2 } }).slice(-50);
    expect(Math.max(...double.map(Math.abs))).toBeLessThan(1e-6);
    const single = closedLoopErrors({ ...sampled, parameters }).slice(-50);
    expect(Math.max(...single.map(Math.abs))).toBeGreaterThan(12);
  });

  test.each([
    [1.95, true],
    [2.05, false],
  ])('with two terms is stable up to xi = 4 / (2 (l1 + l2) - l1 l2): at %d of the weights 0.8 and 0.7 %s', (share, isStable) => {
    const [l1, l2] = [0.8, 0.7];
    const limit = 4 / (2 * (l1 + l2) - l1 * l2);
    const gainRatio = (share / 2) * limit;
    const errors = closedLoopErrors({ parameters: { ...DOUBLE, lambda: l1, driftLambda: l2, processGain: 2 }, gainRatio, runs: 600 });
    if (isStable) expect(Math.abs(errors.at(-1) ?? NaN)).toBeLessThan(1e-3);
    else expect(Math.abs(errors.at(-1) ?? NaN)).toBeGreaterThan(1e3);
  });

  test('with two terms is the predictor-corrector of Butler and Stefani', () => {
    // Weights from 1/2 on, so that the averaging of the first runs is never the larger gain.
    const weight = fc.double({ min: 0.5, max: 1, noNaN: true });
    fc.assert(
      fc.property(fc.array(anyValue, { minLength: 2, maxLength: 30 }), weight, weight, (values, lambda, driftLambda) => {
        const parameters = { ...DOUBLE, lambda, driftLambda };
        let intercept = values[0] ?? NaN;
        let drift = 0;
        for (const value of values.slice(1)) {
          drift = driftLambda * (value - intercept) + (1 - driftLambda) * drift;
          intercept = lambda * value + (1 - lambda) * intercept;
        }
        const state = taught(
          values.map((value, run) => observationOf(run, value)),
          parameters,
        );
        expect(estimated(state, parameters).fallbackValue).toBeCloseTo(intercept + drift, 8);
      }),
    );
  });
});
