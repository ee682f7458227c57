import { type BenchReport, latencyCells, rateCells, shareCells } from './bench-report.ts';
import { CONTENDER, LATENCY, RATE, SHARES } from './columns.ts';
import { type Arena, NAMES } from './contenders.ts';
import { type BenchOptions, BUDGET_CONNECTIONS, BUDGET_IN_FLIGHT } from './options.ts';
import { type Entry, runRounds, Series, type ModelAlone } from './rounds.ts';
import { medianRatio } from './statistics.ts';
import type { Table } from './table.ts';

/** As many requests as the server takes, with a fixed number in flight, against the echo floor. */
export async function runThroughput(arena: Arena, options: BenchOptions, compute: ModelAlone): Promise<BenchReport> {
  const floor = await arena.startFloor();
  const agent = await arena.startAgent();
  const groups = scenariosOf(options).map((scenario) => ({
    scenario,
    entries: [floor, agent.mlp, agent.avm].map((contender): Entry => ({ contender, pace: { kind: 'closed', ...scenario } })),
  }));
  const all = await runRounds(
    arena,
    groups.flatMap(({ entries }) => entries),
    options,
    compute,
  );
  const measured = groups.map(({ scenario, entries }) => ({
    scenario,
    rows: entries.map((entry) => ({ name: entry.contender.name, series: all.get(entry) ?? new Series() })),
  }));
  const budgeted = measured.find(({ scenario }) => scenario.inFlight === BUDGET_IN_FLIGHT && scenario.connections === BUDGET_CONNECTIONS);
  return {
    tables: measured.map(({ scenario, rows }) => throughputTable(scenario, rows)),
    measures: { saturatedOverFloor: budgeted === undefined ? null : agentOverFloor(budgeted.rows) },
  };
}

interface Scenario {
  readonly inFlight: number;
  readonly connections: number;
}

/** Every number in flight over every number of connections that leaves at least one for each connection. */
function scenariosOf({ inFlight, connections }: BenchOptions): Scenario[] {
  return inFlight.flatMap((one) =>
    connections.filter((count) => count <= one).map((count): Scenario => ({ inFlight: one, connections: count })),
  );
}

interface Row {
  readonly name: string;
  readonly series: Series;
}

function seriesNamed(rows: readonly Row[], name: string): Series {
  return rows.find((row) => row.name === name)?.series ?? new Series();
}

function agentOverFloor(rows: readonly Row[]): number | null {
  return medianRatio(seriesNamed(rows, NAMES.agent).rates(), seriesNamed(rows, NAMES.floor).rates());
}

function throughputTable({ inFlight, connections }: Scenario, rows: readonly Row[]): Table {
  const floor = seriesNamed(rows, NAMES.floor);
  return {
    title: `throughput: ${inFlight} in flight on ${connections === 1 ? '1 connection' : `${connections} connections`}`,
    columns: [
      CONTENDER,
      RATE,
      { key: 'ratio', label: 'rate / floor', digits: 2, suffix: 'x' },
      { key: 'capacityRatio', label: 'both at a full core', digits: 2, suffix: 'x' },
      ...LATENCY,
      ...SHARES,
    ],
    rows: rows.map(({ name, series }) => ({
      contender: name,
      ...rateCells(series),
      ratio: series === floor ? null : medianRatio(series.rates(), floor.rates()),
      capacityRatio: series === floor ? null : medianRatio(series.capacities(), floor.capacities()),
      ...latencyCells(series),
      ...shareCells(series),
    })),
    notes: [
      "the load generator reaches at least the floor's rate; where its share of a core comes near 100% it limits that row: compare the columns at a full core",
    ],
  };
}
