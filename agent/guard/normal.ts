/**
 * The normal distribution, to the last bits of a double.
 *
 * `erfc` is W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation 23 (1969)
 * 631-637, with the coefficients of his CALERF (netlib specfun), highest power first, rounded to double.
 */

/** Up to here 1 - erf(x) loses nothing to cancellation and erf(x) / x is a ratio of polynomials in x^2. */
const SMALL = 0.46875;
const SMALL_ABOVE = [0.18577770618460315, 3.1611237438705655, 113.86415415105016, 377.485237685302, 3209.3775891384694];
const SMALL_BELOW = [1, 23.601290952344122, 244.02463793444417, 1282.6165260773723, 2844.236833439171];

/** Up to here erfc(x) exp(x^2) is a ratio of polynomials in x; beyond, an expansion in 1 / x^2 converges faster. */
const MIDDLE = 4;
const MIDDLE_ABOVE = [
  2.1531153547440383e-8, 0.5641884969886701, 8.883149794388377, 66.11919063714163, 298.6351381974001, 881.952221241769, 1712.0476126340707,
  2051.0783778260716, 1230.3393547979972,
];
const MIDDLE_BELOW = [
  1, 15.744926110709835, 117.6939508913125, 537.1811018620099, 1621.3895745666903, 3290.7992357334597, 4362.619090143247,
  3439.3676741437216, 1230.3393548037495,
];
const LARGE_ABOVE = [
  0.016315387137302097, 0.30532663496123236, 0.36034489994980445, 0.12578172611122926, 0.016083785148742275, 0.0006587491615298378,
];
const LARGE_BELOW = [1, 2.568520192289822, 1.8729528499234673, 0.5279051029514285, 0.06051834131244132, 0.0023352049762686918];

/** From here erfc is below half the smallest positive double. */
const VANISHES = 27.3;
const ONE_OVER_SQRT_PI = 0.5641895835477563;

/** The complementary error function 1 - erf(x), 0 to 2; NaN for NaN. */
export function erfc(x: number): number {
  if (Number.isNaN(x)) return NaN;
  const magnitude = Math.abs(x);
  if (magnitude <= SMALL) return 1 - (x * polynomial(SMALL_ABOVE, x * x)) / polynomial(SMALL_BELOW, x * x);
  const tail = magnitude >= VANISHES ? 0 : gaussian(magnitude) * scaledTail(magnitude);
  return x < 0 ? 2 - tail : tail;
}

/** Phi(x): the probability that a unit normal is at most x. */
export function normalCdf(x: number): number {
  return 0.5 * erfc(-x * Math.SQRT1_2);
}

/** erfc(x) exp(x^2) for x > 0.46875. */
function scaledTail(x: number): number {
  if (x <= MIDDLE) return polynomial(MIDDLE_ABOVE, x) / polynomial(MIDDLE_BELOW, x);
  const y = 1 / (x * x);
  return (ONE_OVER_SQRT_PI - (y * polynomial(LARGE_ABOVE, y)) / polynomial(LARGE_BELOW, y)) / x;
}

/** exp(-x^2), with x split at its sixteenths so that the rounding error of x^2 is not blown up by the exponential. */
function gaussian(x: number): number {
  const coarse = Math.trunc(x * 16) / 16;
  return Math.exp(-coarse * coarse) * Math.exp(-(x - coarse) * (x + coarse));
}

function polynomial(coefficients: readonly number[], x: number): number {
  let sum = 0;
  for (let index = 0; index < coefficients.length; index++) sum = sum * x + (coefficients[index] ?? 0);
  return sum;
}
