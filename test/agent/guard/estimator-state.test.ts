import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type EstimatorState, observe, parseEstimatorState } from '../../../agent/guard/estimator.ts';
import { DOUBLE, estimated, observationOf, SINGLE, taught } from './observations.ts';

describe('parseEstimatorState()', () => {
  const extreme = fc.oneof(fc.double(), fc.double({ min: -1e3, max: 1e3 }), fc.constantFrom(1e100, -1e100, NaN, Infinity, 0));
  const anyObservation = fc.record({
    measurementId: fc.string({ maxLength: 20 }),
    processMillis: fc.integer(),
    runNumber: fc.option(fc.maxSafeNat()),
    value: extreme,
    appliedInput: fc.option(extreme),
  });

  test('takes back every state that observe() made, and its estimates are numbers', () => {
    const parameters = fc.constantFrom({ ...SINGLE, outlierDistance: 5, processGain: 2 }, { ...DOUBLE, processGain: -0.5 }, DOUBLE);
    fc.assert(
      fc.property(fc.array(anyObservation, { maxLength: 60 }), parameters, fc.maxSafeNat(), (observations, given, runNumber) => {
        let state: EstimatorState | undefined;
        for (const observation of observations) ({ state } = observe(state, observation, given));
        if (state === undefined) return;
        const parsed = parseEstimatorState(JSON.parse(JSON.stringify(state)));
        expect(JSON.stringify(parsed)).toBe(JSON.stringify(state));
        const { fallbackValue, fallbackSetting } = estimated(parsed, given, { runNumber, input: 1 });
        expect(Number.isFinite(fallbackValue)).toBe(true);
        expect(Number.isFinite(fallbackSetting)).toBe(given.processGain !== 0);
      }),
      { numRuns: 500 },
    );
  });

  const good = taught(
    [1, 2, 3].map((run) => observationOf(run, 70)),
    SINGLE,
  );
  const [first, second, third] = good.history;
  test.each([
    ['nothing', null, '(top level)'],
    ['a number', 7, '(top level)'],
    ['an extra key', { ...good, extra: 1 }, '(top level)'],
    ['a missing part', { ...good, base: undefined }, 'base'],
    ['an infinite intercept', { ...good, current: { ...good.current, intercept: Infinity } }, 'current.intercept'],
    ['an intercept beyond all bounds', { ...good, current: { ...good.current, intercept: 1e141 } }, 'current.intercept'],
    ['a negative count', { ...good, current: { ...good.current, count: -1 } }, 'current.count'],
    ['a gap of no runs', { ...good, current: { ...good.current, gapRuns: 0 } }, 'current.gapRuns'],
    ['outliers without a side', { ...good, current: { ...good.current, outliers: [1] } }, 'current.outlierSide'],
    ['too many outliers', { ...good, current: { ...good.current, outliers: [1, 2, 3, 4, 5], outlierSide: 1 } }, 'current.outliers'],
    ['a disorderly history', { ...good, history: [second, first, third] }, 'history'],
    ['a history before its base', { ...good, baseEnd: { measurementId: 'm9', processMillis: 9000, runNumber: 9 } }, 'history'],
    ['a repeated measurement', { ...good, history: [first, { ...second, measurementId: first?.measurementId }] }, 'history'],
    ['a long history', { ...good, history: Array.from({ length: 33 }, (_, run) => observationOf(run, 70)) }, 'history'],
    ['a value that is text', { ...good, history: [{ ...first, value: '70' }] }, 'history.0.value'],
    ['an endless id', { ...good, history: [{ ...first, measurementId: 'm'.repeat(256) }] }, 'history.0.measurementId'],
  ])('refuses %s', (_name, value, field) => {
    expect(() => parseEstimatorState(value)).toThrow(expect.objectContaining({ code: 'invalid_field', field }));
  });

  test('answers any JSON with a state or invalid_field', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(() => parseEstimatorState(value)).toThrow(expect.objectContaining({ code: 'invalid_field' }));
      }),
    );
  });
});
