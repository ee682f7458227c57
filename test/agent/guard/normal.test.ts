import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { erfc, normalCdf } from '../../../agent/guard/normal.ts';

/** x and erfc(x), rounded from 60 digits (mpmath). */
const REFERENCE: readonly (readonly [number, number])[] = [
  [-27, 2.0],
  [-6, 2.0],
  [-3, 1.9999779095030015],
  [-1, 1.8427007929497148],
  [-0.5, 1.5204998778130465],
  [-0.46875, 1.492613473217938],
  [-0.25, 1.276326390168237],
  [-1e-10, 1.000000000112838],
  [0, 1.0],
  [1e-300, 1.0],
  [1e-10, 0.999999999887162],
  [0.1, 0.887537083981715],
  [0.25, 0.7236736098317631],
  [0.46875, 0.507386526782062],
  [0.4687500001, 0.5073865266914827],
  [0.5, 0.4795001221869535],
  [0.5727, 0.41798609465717185],
  [0.75, 0.28884436634648486],
  [1, 0.15729920705028513],
  [1.2345678, 0.08082093925683101],
  [1.5, 0.033894853524689274],
  [2, 0.004677734981047266],
  [2.5, 0.0004069520174449589],
  [3, 2.209049699858544e-5],
  [3.999, 1.554474949099499e-8],
  [4, 1.541725790028002e-8],
  [4.0001, 1.5404564743590145e-8],
  [5, 1.537459794428035e-12],
  [6, 2.1519736712498913e-17],
  [7.77, 4.343717238924727e-28],
  [10, 2.088487583762545e-45],
  [15, 7.212994172451207e-100],
  [20, 5.395865611607901e-176],
  [24.5, 4.749361264067379e-263],
  [26, 5.663192408856143e-296],
];

describe('erfc()', () => {
  test.each(REFERENCE)('of %d is exact to 1e-15', (x, expected) => {
    expect(Math.abs(erfc(x) / expected - 1)).toBeLessThan(1e-15);
  });

  test('vanishes beyond the smallest double and keeps its limits', () => {
    expect(erfc(27)).toBeGreaterThan(0);
    expect([erfc(28), erfc(Infinity), erfc(-28), erfc(-Infinity)]).toEqual([0, 0, 2, 2]);
    expect(erfc(NaN)).toBeNaN();
  });

  test('mirrors at 0 and never grows', () => {
    const anywhere = fc.double({ min: -30, max: 30, noNaN: true });
    fc.assert(
      fc.property(anywhere, anywhere, (left, right) => {
        expect(erfc(left) + erfc(-left)).toBeCloseTo(2, 14);
        if (left < right) expect(erfc(left)).toBeGreaterThanOrEqual(erfc(right) * (1 - 1e-15));
      }),
    );
  });
});

describe('normalCdf()', () => {
  test('gives the textbook quantiles', () => {
    expect(normalCdf(0)).toBe(0.5);
    expect(normalCdf(1.959963984540054)).toBeCloseTo(0.975, 14);
    expect(normalCdf(-3)).toBeCloseTo(0.00134989803163009, 16);
  });
});
