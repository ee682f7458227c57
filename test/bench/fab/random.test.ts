import { describe, expect, test } from 'vitest';
import { Random } from '../../../bench/fab/random.ts';

describe('Random', () => {
  test('gives the same numbers for the same seed and stream, on every machine', () => {
    const random = new Random(1);
    const words = Array.from({ length: 4 }, () => random.uniform() * 2 ** 32);
    expect(words).toEqual(WORDS_OF_SEED_1);
  });

  test('gives other numbers for another seed and for another stream', () => {
    expect(new Random(2).uniform()).not.toBe(new Random(1).uniform());
    expect(new Random(1, 1).uniform()).not.toBe(new Random(1).uniform());
  });

  test('uniform() is uniform: mean 1/2, variance 1/12, inside [0, 1)', () => {
    const random = new Random(3);
    const drawn = Array.from({ length: 20_000 }, () => random.uniform());
    expect(Math.min(...drawn)).toBeGreaterThanOrEqual(0);
    expect(Math.max(...drawn)).toBeLessThan(1);
    expect(meanOf(drawn)).toBeCloseTo(0.5, 2);
    expect(varianceOf(drawn)).toBeCloseTo(1 / 12, 2);
  });

  test('normal() is normal: mean, deviation, and 31.7 % beyond one deviation', () => {
    const random = new Random(4);
    const drawn = Array.from({ length: 40_000 }, () => random.normal(5, 2));
    expect(meanOf(drawn)).toBeCloseTo(5, 1);
    expect(Math.sqrt(varianceOf(drawn))).toBeCloseTo(2, 1);
    expect(drawn.filter((value) => Math.abs(value - 5) > 2).length / drawn.length).toBeCloseTo(0.3173, 2);
  });
});

const WORDS_OF_SEED_1: readonly number[] = [1771943286, 2547028168, 3428534565, 3996612980];

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

function varianceOf(values: readonly number[]): number {
  const mean = meanOf(values);
  return meanOf(values.map((value) => (value - mean) ** 2));
}
