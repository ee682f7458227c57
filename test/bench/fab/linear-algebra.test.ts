import { array, assert, double, property } from 'fast-check';
import { describe, expect, test } from 'vitest';
import { at, columnMoments, eigenSymmetric, gram, matrix, ridgeWeights, solveSymmetric } from '../../../bench/fab/linear-algebra.ts';

/** A random 5 x 5 Gram matrix plus 0.1 I: symmetric and positive definite. */
const positiveDefinite = array(double({ min: -3, max: 3, noNaN: true }), { minLength: 35, maxLength: 35 }).map((values) =>
  gram(matrix(7, 5, Float64Array.from(values)), 0.1),
);

describe('linear algebra', () => {
  test('solveSymmetric() gives x with A x = b', () => {
    assert(
      property(positiveDefinite, (given) => {
        const right = Float64Array.from([1, -2, 3, 0.5, 4]);
        const solution = solveSymmetric(given, right);
        for (let row = 0; row < 5; row++) {
          const sum = solution.reduce((total, value, column) => total + value * at(given, row, column), 0);
          expect(sum).toBeCloseTo(right[row]!, 6);
        }
      }),
    );
  });

  test('solveSymmetric() refuses a matrix that is not positive definite', () => {
    expect(() => solveSymmetric(matrix(2, 2, Float64Array.from([1, 2, 2, 1])), Float64Array.from([1, 1]))).toThrow('positive definite');
  });

  test('eigenSymmetric() gives A v = w v, with orthonormal v and falling w', () => {
    assert(
      property(positiveDefinite, (given) => {
        const { values, vectors } = eigenSymmetric(given);
        for (let one = 0; one < 5; one++) {
          if (one > 0) expect(values[one]!).toBeLessThanOrEqual(values[one - 1]!);
          for (let row = 0; row < 5; row++) {
            let product = 0;
            for (let inner = 0; inner < 5; inner++) product += at(given, row, inner) * at(vectors, inner, one);
            expect(product).toBeCloseTo(values[one]! * at(vectors, row, one), 8);
          }
          for (let other = 0; other < 5; other++) {
            let dot = 0;
            for (let row = 0; row < 5; row++) dot += at(vectors, row, one) * at(vectors, row, other);
            expect(dot).toBeCloseTo(one === other ? 1 : 0, 10);
          }
        }
      }),
    );
  });

  test('columnMoments() gives mean and population deviation, and deviation 1 for a constant column', () => {
    const { means, deviations } = columnMoments(matrix(2, 2, Float64Array.from([1, 5, 3, 5])));
    expect([...means, ...deviations]).toEqual([2, 5, 1, 1]);
  });

  test('ridgeWeights() finds the weights of exact data, and shrinks them under a penalty', () => {
    const given = matrix(4, 2, Float64Array.from([1, 1, 1, -1, -1, 1, -1, -1]));
    const targets = Float64Array.from([5, -1, 1, -5]);
    const [first, second] = ridgeWeights(given, targets, 0);
    expect([first, second]).toEqual([2, 3]);
    const [less, alsoLess] = ridgeWeights(given, targets, 1);
    expect(less).toBeCloseTo(1, 12);
    expect(alsoLess).toBeCloseTo(1.5, 12);
  });
});
