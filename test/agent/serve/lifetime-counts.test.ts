import { expect, test } from 'vitest';
import { addCounts, parseLifetimeCounts } from '../../../agent/serve/lifetime-counts.ts';
import { metricsBytes, ThreadMetrics } from '../../../agent/serve/metrics.ts';

test('counts of this process are added to those from before, by slot and action, over all threads', () => {
  const threads = [0, 1].map(() => new ThreadMetrics(new SharedArrayBuffer(metricsBytes(2))));
  threads[0]!.answered(0, 0, 0, 10);
  threads[1]!.answered(0, 0, 0, 10);
  threads[1]!.answered(1, 1, 0, 10);
  const before = { a: { model: 10, clamped: 1, fallback: 2 }, gone: { model: 1, clamped: 0, fallback: 0 } };
  const total = addCounts(before, ['a', 'b'], threads);
  expect(total).toEqual({ a: { model: 12, clamped: 1, fallback: 2 }, b: { model: 0, clamped: 1, fallback: 0 }, gone: before.gone });
  expect(parseLifetimeCounts(JSON.parse(JSON.stringify(total)))).toEqual(total);
});

test.each([[undefined], [null], ['text'], [{ a: 5 }], [{ a: { model: 'many', clamped: 0, fallback: 0 } }]])(
  'what is not counts is no counts: %j',
  (kept) => expect(parseLifetimeCounts(kept)).toEqual({}),
);
