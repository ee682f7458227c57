import type { Measures } from './budgets.ts';
import { CONTENDER, LATENCY } from './columns.ts';
import type { Latency } from './load-jobs.ts';
import type { ModelAlone, Series } from './rounds.ts';
import { medianRatio } from './statistics.ts';
import type { Cell, Table } from './table.ts';

/** What one bench gives back: tables to read and the values its budgets are judged by. */
export interface BenchReport {
  readonly tables: readonly Table[];
  readonly measures: Measures;
}

const PERCENTILES = ['p50', 'p90', 'p99', 'p999', 'max'] as const satisfies readonly (keyof Latency)[];

export function latencyCells(series: Series): Record<string, Cell> {
  return Object.fromEntries(PERCENTILES.map((key) => [key, series.median(({ latencyMicros }) => latencyMicros?.[key] ?? null)]));
}

export function rateCells(series: Series): Record<string, Cell> {
  return { rate: series.median(({ ratePerSecond }) => ratePerSecond) };
}

/** Shares of one core in percent. */
export function shareCells(series: Series): Record<string, Cell> {
  const percent = (share: number | null): number | null => (share === null ? null : share * 100);
  return {
    serverShare: percent(series.median(({ serverShare }) => serverShare)),
    loadShare: percent(series.median(({ loadShare }) => loadShare)),
  };
}

/** How often slower than the floor, by percentile; null for the floor itself. */
export function overFloor(series: Series, floor: Series | undefined, key: keyof Latency): number | null {
  return floor === undefined || floor === series ? null : medianRatio(series.latency(key), floor.latency(key));
}

/** The model alone, in the same run: tells a slow machine from a slow agent. */
export function modelAloneTable(compute: ModelAlone, factor: number | null): Table {
  return {
    title: 'the model alone: one row a run, by the call the agent makes, in a process with nothing else to do',
    columns: [CONTENDER, ...LATENCY, { key: 'factor', label: 'machine factor', digits: 2, suffix: 'x' }],
    rows: [
      { contender: 'ONNX Runtime, MLP 86-64-32-1, in a loop', ...latencyCells(compute.loop), factor },
      { contender: 'rested: each run after 200 us of sleep', ...latencyCells(compute.rested), factor: null },
    ],
    notes: [
      'machine factor: the first p50 / the one of the reference machine in bench/budgets.json',
      'the difference between the rows is the machine waking up with cold caches; no server can be below the second when it was idle',
    ],
  };
}
