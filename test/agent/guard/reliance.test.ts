import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { normalCdf } from '../../../agent/guard/normal.ts';
import { relianceIndex, relianceThreshold } from '../../../agent/guard/reliance.ts';
import { hasShared, sharedJson, sharedPath } from '../../support/shared.ts';

const anyValue = fc.double({ min: -1e6, max: 1e6, noNaN: true });
const anyDeviation = fc.double({ min: 1e-3, max: 1e6, noNaN: true });

/** The overlap of two unit normals by Simpson's rule on the lesser of the two densities. */
function overlapArea(distance: number): number {
  const density = (x: number): number => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
  const lesser = (x: number): number => Math.min(density(x), density(x - distance));
  const steps = 4000;
  // From the crossing of the two, where the minimum has its kink, outwards; the other half is its mirror image.
  const width = 12 / steps;
  let sum = lesser(distance / 2) + lesser(distance / 2 + 12);
  for (let step = 1; step < steps; step++) sum += (step % 2 === 0 ? 2 : 4) * lesser(distance / 2 + step * width);
  return (2 * sum * width) / 3;
}

describe('relianceIndex()', () => {
  test('is symmetric and lies in 0 to 1 whatever the models say', () => {
    fc.assert(
      fc.property(anyValue, anyValue, anyDeviation, (prediction, reference, deviation) => {
        const index = relianceIndex(prediction, reference, deviation);
        expect(index).toBe(relianceIndex(reference, prediction, deviation));
        expect(index).toBeGreaterThanOrEqual(0);
        expect(index).toBeLessThanOrEqual(1);
      }),
    );
  });

  test('is 1 for equal models and 0 for models that are worlds apart', () => {
    expect(relianceIndex(151.2, 151.2, 3.9)).toBe(1);
    expect(relianceIndex(Number.MAX_VALUE, -Number.MAX_VALUE, 1e-300)).toBe(0);
  });

  test('is not a number when a model gave none', () => {
    expect(relianceIndex(NaN, 1, 1)).toBeNaN();
    expect(relianceIndex(1, NaN, 1)).toBeNaN();
    expect(relianceIndex(1, 1, NaN)).toBeNaN();
  });

  test('equals the overlap area of two unit normals', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 9, noNaN: true }), anyDeviation, (distance, deviation) => {
        expect(Math.abs(relianceIndex(distance * deviation, 0, deviation) - overlapArea(distance))).toBeLessThan(1e-9);
      }),
      { numRuns: 30 },
    );
  });

  test('equals 2 (1 - Phi(|dZ| / 2))', () => {
    const metrology = fc.double({ min: -1000, max: 1000, noNaN: true });
    fc.assert(
      fc.property(metrology, metrology, fc.double({ min: 0.1, max: 100, noNaN: true }), (prediction, reference, deviation) => {
        const distance = Math.abs((prediction - 7) / deviation - (reference - 7) / deviation);
        expect(Math.abs(relianceIndex(prediction, reference, deviation) - 2 * (1 - normalCdf(distance / 2)))).toBeLessThan(1e-9);
      }),
    );
  });
});

describe('relianceThreshold()', () => {
  test('gives 0.567 for the example of the patent, a distance of 1.145', () => {
    const given = { trainingMean: 1.145 / 0.03, trainingStandardDeviation: 1, maximalErrorFraction: 0.03 };
    expect(relianceThreshold(given)).toBeCloseTo(0.567, 3);
  });

  test.each([
    ['A123', 151.2, 3.9, 0.1, 0.0525],
    ['A123', 151.2, 3.9, 0.03, 0.561],
    ['A456', 73.1, 6.65, 0.1, 0.583],
    ['A456', 73.1, 6.65, 0.03, 0.869],
    ['B456', 79.97, 9.15, 0.1, 0.662],
    ['B456', 79.97, 9.15, 0.03, 0.896],
  ])('matches the figures of regime %s: mean %d, deviation %d, E_L %d', (_regime, mean, deviation, fraction, expected) => {
    const found = relianceThreshold({ trainingMean: mean, trainingStandardDeviation: deviation, maximalErrorFraction: fraction });
    expect(Math.abs(found - expected)).toBeLessThan(6e-4);
  });

  test('depends on the zero of the quantity with a fraction and not with an absolute tolerance', () => {
    const at = (trainingMean: number) => ({ trainingMean, trainingStandardDeviation: 2 });
    const fraction = (mean: number): number => relianceThreshold({ ...at(mean), maximalErrorFraction: 0.01 });
    const absolute = (mean: number): number => relianceThreshold({ ...at(mean), maximalErrorAbsolute: 3 });
    expect(fraction(350)).not.toBeCloseTo(fraction(77), 2);
    expect(absolute(350)).toBe(absolute(77));
    expect(fraction(-77)).toBe(fraction(77));
  });

  test('takes RI_T as it is given, and is absent when nothing is', () => {
    expect(relianceThreshold({ trainingMean: 1, trainingStandardDeviation: 1, threshold: 0.7 })).toBe(0.7);
    expect(relianceThreshold({ trainingMean: 1, trainingStandardDeviation: 1 })).toBeNaN();
  });

  test('is what two models reach that differ by exactly the tolerance', () => {
    const threshold = relianceThreshold({ trainingMean: 73.1, trainingStandardDeviation: 6.65, maximalErrorFraction: 0.1 });
    expect(relianceIndex(80, 80 - 7.31, 6.65)).toBeCloseTo(threshold, 12);
  });
});

interface AvmCase {
  readonly avm: {
    readonly y_mean: number;
    readonly y_std: number;
    readonly E_L: number;
    readonly RI_T: number;
    readonly RI_per_row: number[];
  };
}

/** The floats of an ONNX TensorProto: field 4 (float_data) or 9 (raw_data). */
function readFloats(path: string): number[] {
  const bytes = readFileSync(path);
  let at = 0;
  const varint = (): number => {
    for (let value = 0, scale = 1; ; scale *= 128) {
      const byte = bytes[at++] ?? 0;
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const wireType = tag & 7;
    const length = wireType === 2 ? varint() : 0;
    const start = at;
    if (wireType === 0) varint();
    else at += length;
    if (tag >> 3 === 4 || tag >> 3 === 9) return Array.from({ length: length / 4 }, (_, index) => bytes.readFloatLE(start + index * 4));
  }
  throw new Error(`${path} holds no floats`);
}

describe('on the wafers of PHM16', () => {
  test.skipIf(!hasShared)('relianceIndex() and relianceThreshold() give the recorded RI and RI_T', () => {
    const folder = ['onnx-cases', 'vm', 'phm16_avm_multi_output'] as const;
    const { avm } = sharedJson(...folder, 'case.json') as AvmCase;
    const predictions = readFloats(sharedPath(...folder, 'test_data_set_0', 'output_0.pb'));
    const references = readFloats(sharedPath(...folder, 'test_data_set_0', 'output_1.pb'));
    expect(predictions).toHaveLength(avm.RI_per_row.length);
    avm.RI_per_row.forEach((expected, row) => {
      const found = relianceIndex(predictions[row] ?? NaN, references[row] ?? NaN, avm.y_std);
      expect(Math.abs(found - expected), `row ${row}`).toBeLessThan(1e-3);
    });
    const given = { trainingMean: avm.y_mean, trainingStandardDeviation: avm.y_std, maximalErrorFraction: avm.E_L };
    expect(relianceThreshold(given)).toBeCloseTo(avm.RI_T, 12);
  });
});
