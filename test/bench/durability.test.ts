import { expect, test } from 'vitest';
import { durabilityMeasures, type DurabilityRow, durabilityTable } from '../../bench/durability.ts';
import type { LoadResult } from '../../bench/load-jobs.ts';
import { Series } from '../../bench/rounds.ts';

/** Rounds of which each has this p50 and this rate. */
function rowOf(name: string, p50s: readonly number[], rates: readonly number[], costs: DurabilityRow['costs'] = []): DurabilityRow {
  const series = new Series();
  for (const [round, p50] of p50s.entries()) {
    const result: LoadResult = {
      replies: 1,
      seconds: 1,
      ratePerSecond: rates[round]!,
      unanswered: round,
      latencyMicros: { p50, p90: p50, p99: p50 * 2, p999: p50, max: p50 },
      sendLagMicros: null,
      loadShare: 0.5,
      serverShare: 0.5,
      reply: null,
    };
    series.results.push(result);
  }
  return { name, series, costs };
}

const FLOOR = rowOf('floor: uWS echo', [50, 500, 50], [40_000, 4000, 40_000]);
const JOURNAL = rowOf('journal only', [100, 1000, 100], [20_000, 2000, 20_000], [{ agentMicros: 30, storeMicros: null }]);
const STORE = rowOf(
  'journal + store',
  [110, 1100, 120],
  [19_000, 1800, 19_000],
  [
    { agentMicros: 31, storeMicros: 8 },
    { agentMicros: 33, storeMicros: 10 },
    { agentMicros: 32, storeMicros: 9 },
  ],
);
const POWER = rowOf('durability: power', [300, 3000, 300], [10_000, 1000, 10_000]);
const ROWS = [FLOOR, JOURNAL, STORE, POWER];

test('ratios are to the journal alone, within each round, so that a slow round cancels out', () => {
  const { rows } = durabilityTable('closed loop', ROWS);
  expect(rows.map(({ ratioP50 }) => ratioP50)).toEqual([0.5, null, 1.1, 3]);
  expect(rows.map(({ ratioP99 }) => ratioP99)).toEqual([0.5, null, 1.1, 3]);
  expect(rows.map(({ ratioRate }) => ratioRate)).toEqual([2, null, 0.95, 0.5]);
});

test('costs of an answer are medians over the rounds, and there is none of a store where there is no store', () => {
  const { rows } = durabilityTable('closed loop', ROWS);
  expect(rows.map(({ agentMicros, storeMicros }) => [agentMicros, storeMicros])).toEqual([
    [null, null],
    [30, null],
    [32, 9],
    [null, null],
  ]);
});

test('says of every level what an answer survives, and counts what was never answered', () => {
  const { notes, rows } = durabilityTable('closed loop', ROWS);
  for (const name of ['journal only', 'journal + store', 'durability: power']) {
    expect(notes!.some((note) => note.startsWith(`${name}: `))).toBe(true);
  }
  expect(rows[2]).toMatchObject({ unanswered: 3 });
});

test('the budgets judge the default against the journal alone', () => {
  expect(durabilityMeasures(ROWS, ROWS)).toEqual({ durabilityClosedLoopRatio: 1.1, durabilitySaturatedRatio: 0.95 });
});

test('without a measurement there is no ratio', () => {
  expect(durabilityMeasures([], [FLOOR, JOURNAL])).toEqual({ durabilityClosedLoopRatio: null, durabilitySaturatedRatio: null });
});
