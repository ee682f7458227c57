import { type BenchReport, latencyCells, rateCells, shareCells } from './bench-report.ts';
import { CONTENDER, LATENCY, RATE, SHARES } from './columns.ts';
import { type Arena, type Contender, NAMES } from './contenders.ts';
import type { BenchOptions } from './options.ts';
import { type Entry, runRounds, Series, type ModelAlone } from './rounds.ts';
import { median, medianRatio } from './statistics.ts';
import type { Table } from './table.ts';

/** The same model behind what a user would pick today, and the agent's HTTP door. */

/** Callers that wait for their answers: on one WebSocket, one gRPC channel, or as many HTTP connections. */
const SATURATED_IN_FLIGHT = 64;

export async function runPeers(arena: Arena, options: BenchOptions, compute: ModelAlone): Promise<BenchReport> {
  const agent = await arena.startAgent();
  const contenders = [agent.mlp, agent.http, agent.httpAutocannon, ...(await arena.startPeers())];
  const saturated = contenders.map((contender) => entryOf(contender, SATURATED_IN_FLIGHT));
  const single = contenders.filter(({ endpoint }) => endpoint.transport !== 'autocannon').map((contender) => entryOf(contender, 1));
  const all = await runRounds(arena, [...saturated, ...single], options, compute);
  const rowsOf = (entries: readonly Entry[]): Row[] =>
    entries.map((entry) => ({ name: entry.contender.name, series: all.get(entry) ?? new Series() }));
  const rows = rowsOf(saturated);
  return {
    tables: [saturatedTable(rows), singleTable(rowsOf(single))],
    measures: {
      saturatedOverWebSocketPeer: agentOver(rows, NAMES.webSocketPeer),
      saturatedOverHttpPeer: agentOver(rows, NAMES.httpPeer),
      saturatedOverGrpcPeer: agentOver(rows, NAMES.grpcPeer),
    },
  };
}

/** HTTP/1.1 clients of today do not pipeline: one connection for each request in flight. */
function entryOf(contender: Contender, inFlight: number): Entry {
  const { transport } = contender.endpoint;
  return { contender, pace: { kind: 'closed', inFlight, connections: transport === 'http' || transport === 'autocannon' ? inFlight : 1 } };
}

interface Row {
  readonly name: string;
  readonly series: Series;
}

function seriesNamed(rows: readonly Row[], name: string): Series {
  return rows.find((row) => row.name === name)?.series ?? new Series();
}

function agentOver(rows: readonly Row[], peer: string): number | null {
  return medianRatio(seriesNamed(rows, NAMES.agent).rates(), seriesNamed(rows, peer).capacities());
}

function saturatedTable(rows: readonly Row[]): Table {
  const agent = seriesNamed(rows, NAMES.agent);
  return {
    title: `peers, saturated: ${SATURATED_IN_FLIGHT} in flight`,
    columns: [
      CONTENDER,
      RATE,
      ...SHARES,
      { key: 'capacity', label: 'at a full core' },
      { key: 'measured', label: 'agent / it', digits: 2, suffix: 'x' },
      { key: 'ratio', label: 'agent / it at a full core', digits: 2, suffix: 'x' },
      ...LATENCY,
    ],
    rows: rows.map(({ name, series }) => ({
      contender: name,
      ...rateCells(series),
      ...shareCells(series),
      capacity: median(series.capacities()),
      measured: series === agent ? null : medianRatio(agent.rates(), series.rates()),
      ratio: series === agent ? null : medianRatio(agent.rates(), series.capacities()),
      ...latencyCells(series),
    })),
    notes: [
      'peers have no journal, no guard and no context to read, and gRPC and ws no schema: the comparison favours them',
      '"at a full core" scales a rate up where the client kept the server from using its core; budgets use the agent\'s measured rate over that',
    ],
  };
}

function singleTable(rows: readonly Row[]): Table {
  const agent = seriesNamed(rows, NAMES.agent);
  return {
    title: 'peers, closed loop: 1 in flight',
    columns: [
      CONTENDER,
      ...LATENCY,
      { key: 'ratioP50', label: 'p50, it / agent', digits: 2, suffix: 'x' },
      { key: 'ratioP99', label: 'p99, it / agent', digits: 2, suffix: 'x' },
      RATE,
      ...SHARES,
    ],
    rows: rows.map(({ name, series }) => ({
      contender: name,
      ...latencyCells(series),
      ratioP50: series === agent ? null : medianRatio(series.latency('p50'), agent.latency('p50')),
      ratioP99: series === agent ? null : medianRatio(series.latency('p99'), agent.latency('p99')),
      ...rateCells(series),
      ...shareCells(series),
    })),
    notes: ['a part of the gRPC latency is the gRPC client, which is what a user of gRPC gets'],
  };
}
