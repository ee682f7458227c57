import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { BACKOFF_CAP_MILLIS, reconnectDelayMillis } from '../../protocol/backoff.ts';

test('reconnectDelayMillis() doubles its window from 100 ms up to 10 s', () => {
  const windows = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((attempt) => reconnectDelayMillis(attempt, 0.5) * 2);
  expect(windows).toEqual([100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
});

test('reconnectDelayMillis() spreads evenly over the whole window: nothing is added to the random part', () => {
  expect(reconnectDelayMillis(3, 0)).toBe(0);
  expect(reconnectDelayMillis(3, 0.25)).toBe(200);
});

test('reconnectDelayMillis() never leaves [0, cap), however often the agent was away', () => {
  fc.assert(
    fc.property(fc.nat(), fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (attempt, random) => {
      const delay = reconnectDelayMillis(attempt, random);
      expect(delay).toBeGreaterThanOrEqual(0);
      expect(delay).toBeLessThan(BACKOFF_CAP_MILLIS);
    }),
  );
});
