import { assert } from '../../protocol/errors.ts';

/** A dense row-major matrix of float64. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: Float64Array;
}

export function matrix(rows: number, columns: number, data: Float64Array = new Float64Array(rows * columns)): Matrix {
  assert(data.length === rows * columns, 'a matrix has rows x columns elements');
  return { rows, columns, data };
}

/** Reads one element; the bounds are the caller's. */
export function at(given: Matrix, row: number, column: number): number {
  return given.data[row * given.columns + column] ?? 0;
}

/** The mean and population standard deviation of every column; a constant column has deviation 1. */
export function columnMoments(given: Matrix): { readonly means: Float64Array; readonly deviations: Float64Array } {
  const means = new Float64Array(given.columns);
  const deviations = new Float64Array(given.columns);
  for (let column = 0; column < given.columns; column++) {
    let sum = 0;
    for (let row = 0; row < given.rows; row++) sum += at(given, row, column);
    const mean = sum / given.rows;
    let squares = 0;
    for (let row = 0; row < given.rows; row++) squares += (at(given, row, column) - mean) ** 2;
    means[column] = mean;
    deviations[column] = squares > 0 ? Math.sqrt(squares / given.rows) : 1;
  }
  return { means, deviations };
}

/** X^T X + ridge I, symmetric. */
export function gram(given: Matrix, ridge: number): Matrix {
  const size = given.columns;
  const product = matrix(size, size);
  for (let left = 0; left < size; left++) {
    for (let right = left; right < size; right++) {
      let sum = left === right ? ridge : 0;
      for (let row = 0; row < given.rows; row++) sum += at(given, row, left) * at(given, row, right);
      product.data[left * size + right] = sum;
      product.data[right * size + left] = sum;
    }
  }
  return product;
}

/** Solves A x = b for a symmetric positive definite A, by Cholesky's factorisation. */
export function solveSymmetric(given: Matrix, right: Float64Array): Float64Array {
  const size = given.rows;
  const lower = matrix(size, size);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column <= row; column++) {
      let sum = at(given, row, column);
      for (let inner = 0; inner < column; inner++) sum -= at(lower, row, inner) * at(lower, column, inner);
      if (row === column) assert(sum > 0, 'the matrix is positive definite');
      lower.data[row * size + column] = row === column ? Math.sqrt(sum) : sum / at(lower, column, column);
    }
  }
  const solution = Float64Array.from(right);
  for (let row = 0; row < size; row++) {
    let sum = solution[row] ?? 0;
    for (let inner = 0; inner < row; inner++) sum -= at(lower, row, inner) * (solution[inner] ?? 0);
    solution[row] = sum / at(lower, row, row);
  }
  for (let row = size - 1; row >= 0; row--) {
    let sum = solution[row] ?? 0;
    for (let inner = row + 1; inner < size; inner++) sum -= at(lower, inner, row) * (solution[inner] ?? 0);
    solution[row] = sum / at(lower, row, row);
  }
  return solution;
}

/** Sweeps of Jacobi's method; a 32 x 32 correlation matrix converges in under 10. */
const MAX_SWEEPS = 64;

/**
 * Eigenvalues (descending) and eigenvectors (as columns, in the same order) of a symmetric matrix, by Jacobi's cyclic
 * method (Golub and Van Loan, Matrix Computations, 8.5).
 */
export function eigenSymmetric(given: Matrix): { readonly values: Float64Array; readonly vectors: Matrix } {
  const size = given.rows;
  const work = matrix(size, size, Float64Array.from(given.data));
  const vectors = matrix(size, size);
  for (let index = 0; index < size; index++) vectors.data[index * size + index] = 1;
  for (let sweep = 0; sweep < MAX_SWEEPS; sweep++) {
    let rotated = false;
    for (let row = 0; row < size - 1; row++) {
      for (let column = row + 1; column < size; column++) rotated = rotate(work, vectors, row, column) || rotated;
    }
    if (!rotated) break;
  }
  const order = Array.from({ length: size }, (_, index) => index).sort((left, right) => at(work, right, right) - at(work, left, left));
  const sorted = matrix(size, size);
  for (const [to, from] of order.entries()) {
    for (let row = 0; row < size; row++) sorted.data[row * size + to] = at(vectors, row, from);
  }
  return { values: Float64Array.from(order, (index) => at(work, index, index)), vectors: sorted };
}

/** Zeroes work[p][q] by one plane rotation; false when it is zero already, to rounding. */
function rotate(work: Matrix, vectors: Matrix, p: number, q: number): boolean {
  const size = work.rows;
  const element = at(work, p, q);
  if (Math.abs(element) <= 1e-15 * Math.sqrt(Math.abs(at(work, p, p) * at(work, q, q)))) return false;
  const theta = (at(work, q, q) - at(work, p, p)) / (2 * element);
  const tangent = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const cosine = 1 / Math.sqrt(tangent * tangent + 1);
  const sine = tangent * cosine;
  for (let index = 0; index < size; index++) turn(work, index * size + p, index * size + q, cosine, sine);
  for (let index = 0; index < size; index++) turn(work, p * size + index, q * size + index, cosine, sine);
  for (let index = 0; index < size; index++) turn(vectors, index * size + p, index * size + q, cosine, sine);
  return true;
}

function turn(given: Matrix, first: number, second: number, cosine: number, sine: number): void {
  const left = given.data[first] ?? 0;
  const right = given.data[second] ?? 0;
  given.data[first] = cosine * left - sine * right;
  given.data[second] = sine * left + cosine * right;
}

/** Ridge regression of centred targets on standardised columns: (X^T X + ridge n I)^-1 X^T y. */
export function ridgeWeights(standardised: Matrix, centred: Float64Array, ridge: number): Float64Array {
  const right = new Float64Array(standardised.columns);
  for (let column = 0; column < standardised.columns; column++) {
    let sum = 0;
    for (let row = 0; row < standardised.rows; row++) sum += at(standardised, row, column) * (centred[row] ?? 0);
    right[column] = sum;
  }
  return solveSymmetric(gram(standardised, ridge * standardised.rows), right);
}
