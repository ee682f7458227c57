import type { AgentProcess, AgentSettings } from './agent-server.ts';
import { type BenchReport, latencyCells, rateCells, shareCells } from './bench-report.ts';
import { LATENCY, RATE, SHARES } from './columns.ts';
import type { Arena, Contender } from './contenders.ts';
import type { LoadResult, Pace } from './load-jobs.ts';
import { type BenchOptions, BUDGET_CONNECTIONS, BUDGET_IN_FLIGHT, BUDGET_RATE_PER_SECOND } from './options.ts';
import { processorMicros } from './processor-time.ts';
import { type Entry, runRounds, Series, type ModelAlone } from './rounds.ts';
import { median, medianRatio, ratio } from './statistics.ts';
import type { Table } from './table.ts';

/** What it costs to lose less: one agent for each level of durability, with the same model, in one run. */

interface Level {
  readonly name: string;
  readonly settings: AgentSettings;
  /** What an answer that was given survives. */
  readonly promise: string;
}

const JOURNAL_ONLY: Level = {
  name: 'journal only',
  // Without a store the journal only grows: the limit must not end the run.
  settings: { store: { enabled: false }, journal: { maxMebibytes: 65_536 } },
  promise: 'the record is with the operating system before the answer leaves, so the death of the agent loses none; kept until full',
};
const JOURNAL_AND_STORE: Level = {
  name: 'journal + store',
  settings: {},
  promise: 'the default: the same, and the store process takes every record over into LMDB, where it is synced, chained and indexed',
};
const POWER: Level = {
  name: 'durability: power',
  settings: { durability: 'power' },
  promise: 'the answer waits until its record is on the disk (one sync for all that wait), so the loss of power loses none; store on',
};
const LEVELS: readonly Level[] = [JOURNAL_ONLY, JOURNAL_AND_STORE, POWER];

interface Scenario {
  readonly id: 'closed' | 'open' | 'saturated';
  readonly title: string;
  readonly pace: Pace;
}

const SCENARIOS: readonly Scenario[] = [
  { id: 'closed', title: 'closed loop: 1 in flight', pace: { kind: 'closed', inFlight: 1, connections: 1 } },
  {
    id: 'open',
    title: `open loop: ${BUDGET_RATE_PER_SECOND} requests a second, latency from when each was due`,
    pace: { kind: 'open', ratePerSecond: BUDGET_RATE_PER_SECOND, connections: 1, tickMillis: 0 },
  },
  {
    id: 'saturated',
    title: `saturated: ${BUDGET_IN_FLIGHT} in flight on ${BUDGET_CONNECTIONS} connections`,
    pace: { kind: 'closed', inFlight: BUDGET_IN_FLIGHT, connections: BUDGET_CONNECTIONS },
  },
];

/** Processor time of one answer in one round, microseconds; null without /proc. */
interface Cost {
  readonly agentMicros: number | null;
  /** What the store did for it, also after the load had ended. Null where there is no store. */
  readonly storeMicros: number | null;
}

/** One contender in one scenario. */
export interface DurabilityRow {
  readonly name: string;
  readonly series: Series;
  readonly costs: readonly Cost[];
}

export async function runDurability(arena: Arena, options: BenchOptions, compute: ModelAlone): Promise<BenchReport> {
  const floor = await arena.startFloor();
  const agents: { contender: Contender; process: AgentProcess }[] = [];
  for (const { name, settings } of LEVELS) {
    const { mlp, process } = await arena.startAgent(name, settings);
    agents.push({ contender: mlp, process });
  }
  const groups = SCENARIOS.map((scenario) => ({
    scenario,
    entries: [
      { entry: { contender: floor, pace: scenario.pace }, costs: [] },
      ...agents.map(({ contender, process }) => costedEntry(contender, process, scenario.pace)),
    ],
  }));
  const all = await runRounds(
    arena,
    groups.flatMap(({ entries }) => entries.map(({ entry }) => entry)),
    options,
    compute,
  );
  const measured = groups.map(({ scenario, entries }) => ({
    scenario,
    rows: entries.map(({ entry, costs }): DurabilityRow => ({ name: entry.contender.name, series: all.get(entry) ?? new Series(), costs })),
  }));
  const rowsOf = (id: Scenario['id']): readonly DurabilityRow[] => measured.find(({ scenario }) => scenario.id === id)?.rows ?? [];
  return {
    tables: measured.map(({ scenario, rows }) => durabilityTable(scenario.title, rows)),
    measures: durabilityMeasures(rowsOf('closed'), rowsOf('saturated')),
  };
}

/** Takes the processor times around the whole of an entry: warm-up, interval, and what the store still drains after it. */
function costedEntry(contender: Contender, agent: AgentProcess, pace: Pace): { entry: Entry; costs: Cost[] } {
  const costs: Cost[] = [];
  let agentBefore: number | null = null;
  let storeBefore: number | null = null;
  const storeNow = (): number | null => (agent.storePid === null ? null : processorMicros([agent.storePid]));
  const entry: Entry = {
    contender,
    pace,
    before: async () => {
      await agent.resetServiceTimes();
      agentBefore = processorMicros([agent.pid]);
      storeBefore = storeNow();
    },
    after: async () => {
      const { count } = await agent.serviceTimes();
      const each = (now: number | null, before: number | null): number | null =>
        now === null || before === null ? null : ratio(now - before, count);
      costs.push({ agentMicros: each(processorMicros([agent.pid]), agentBefore), storeMicros: each(storeNow(), storeBefore) });
    },
  };
  return { entry, costs };
}

/** Ratios of the default to the journal alone: what the store costs those who wait for an answer. */
export function durabilityMeasures(
  closed: readonly DurabilityRow[],
  saturated: readonly DurabilityRow[],
): { durabilityClosedLoopRatio: number | null; durabilitySaturatedRatio: number | null } {
  const seriesOf = (rows: readonly DurabilityRow[], { name }: Level): Series =>
    rows.find((row) => row.name === name)?.series ?? new Series();
  return {
    durabilityClosedLoopRatio: medianRatio(
      seriesOf(closed, JOURNAL_AND_STORE).latency('p50'),
      seriesOf(closed, JOURNAL_ONLY).latency('p50'),
    ),
    durabilitySaturatedRatio: medianRatio(seriesOf(saturated, JOURNAL_AND_STORE).rates(), seriesOf(saturated, JOURNAL_ONLY).rates()),
  };
}

export function durabilityTable(title: string, rows: readonly DurabilityRow[]): Table {
  const first = rows.find(({ name }) => name === JOURNAL_ONLY.name)?.series ?? new Series();
  const over = (series: Series, pick: (one: Series) => readonly (number | null)[]): number | null =>
    series === first ? null : medianRatio(pick(series), pick(first));
  const costOf = (costs: readonly Cost[], key: keyof Cost): number | null =>
    median(costs.map((cost) => cost[key]).filter((one) => one !== null));
  return {
    title: `durability, ${title}`,
    columns: [
      { key: 'contender', label: 'level' },
      ...LATENCY,
      { key: 'ratioP50', label: 'p50 / first', digits: 2, suffix: 'x' },
      { key: 'ratioP99', label: 'p99 / first', digits: 2, suffix: 'x' },
      RATE,
      { key: 'ratioRate', label: 'rate / first', digits: 2, suffix: 'x' },
      { key: 'agentMicros', label: 'agent us/answer', digits: 1 },
      { key: 'storeMicros', label: 'store us/answer', digits: 1 },
      ...SHARES,
      { key: 'unanswered', label: 'unanswered' },
    ],
    rows: rows.map(({ name, series, costs }) => ({
      contender: name,
      ...latencyCells(series),
      ratioP50: over(series, (one) => one.latency('p50')),
      ratioP99: over(series, (one) => one.latency('p99')),
      ...rateCells(series),
      ratioRate: over(series, (one) => one.rates()),
      agentMicros: costOf(costs, 'agentMicros'),
      storeMicros: costOf(costs, 'storeMicros'),
      ...shareCells(series),
      unanswered: series.results.reduce((sum: number, { unanswered }: LoadResult) => sum + unanswered, 0),
    })),
    notes: [
      ...LEVELS.map(({ name, promise }) => `${name}: ${promise}`),
      '"first" is the journal alone; us/answer is processor time, the store\'s also of what it drained after the load had ended',
    ],
  };
}
