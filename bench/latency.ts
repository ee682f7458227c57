import type { ServiceTimes } from './agent-server.ts';
import { type BenchReport, latencyCells, overFloor, rateCells, shareCells } from './bench-report.ts';
import { CONTENDER, LATENCY, RATE, SHARES } from './columns.ts';
import { type AgentContenders, type Arena, type Contender, NAMES } from './contenders.ts';
import { type BenchOptions, BUDGET_RATE_PER_SECOND } from './options.ts';
import { type Entry, runRounds, type Series, type ModelAlone } from './rounds.ts';
import { median, ratio } from './statistics.ts';
import type { Column, Table } from './table.ts';

/** Closed loop with one request in flight, open loop at constant rates, and the agent's own service time during both. */

/** The agent's service times while one entry ran, one for each round. */
interface ServiceSeries {
  readonly name: string;
  readonly times: ServiceTimes[];
}

interface LatencyEntry extends Entry {
  readonly service: ServiceSeries | null;
}

export async function runLatency(arena: Arena, options: BenchOptions, compute: ModelAlone): Promise<BenchReport> {
  const floor = await arena.startFloor();
  const agent = await arena.startAgent();
  const closed = [floor, agent.mlp, agent.avm].map((contender) =>
    entryOf(agent, contender, { kind: 'closed', inFlight: 1, connections: 1 }, `${contender.name}, closed loop`),
  );
  const open = options.ratesPerSecond.flatMap((ratePerSecond) =>
    [floor, agent.mlp, agent.avm].map((contender) =>
      entryOf(agent, contender, { kind: 'open', ratePerSecond, connections: 1, tickMillis: 0 }, `${contender.name}, ${ratePerSecond}/s`),
    ),
  );
  const all = await runRounds(arena, [...closed, ...open], options, compute);
  const seriesOf = (entries: readonly LatencyEntry[]) => entries.map((entry) => ({ name: entry.contender.name, series: all.get(entry) }));
  const openByRate = options.ratesPerSecond.map((rate) => ({
    rate,
    rows: seriesOf(open.filter(({ pace }) => pace.kind === 'open' && pace.ratePerSecond === rate)),
  }));
  const services = [...closed, ...open].flatMap(({ service }) => (service === null ? [] : [service]));
  const budgetRows = openByRate.find(({ rate }) => rate === BUDGET_RATE_PER_SECOND)?.rows ?? [];
  return {
    tables: [closedTable(seriesOf(closed)), ...openByRate.map(({ rate, rows }) => openTable(rate, rows)), serviceTable(services, compute)],
    measures: {
      closedLoopRatio: agentOverFloor(seriesOf(closed), 'p50'),
      openLoopRatioP99: agentOverFloor(budgetRows, 'p99'),
      serviceMicrosP50: serviceMedian(services[0], 'p50Micros'),
      serviceMicrosP99: serviceMedian(services[0], 'p99Micros'),
    },
  };
}

function entryOf(agent: AgentContenders, contender: Contender, pace: Entry['pace'], name: string): LatencyEntry {
  if (contender !== agent.mlp && contender !== agent.avm) return { contender, pace, service: null };
  const service: ServiceSeries = { name, times: [] };
  return {
    contender,
    pace,
    service,
    before: () => agent.process.resetServiceTimes(),
    after: async () => void service.times.push(await agent.process.serviceTimes()),
  };
}

interface Row {
  readonly name: string;
  readonly series: Series | undefined;
}

function agentOverFloor(rows: readonly Row[], key: 'p50' | 'p99'): number | null {
  const agent = rows.find(({ name }) => name === NAMES.agent)?.series;
  return agent === undefined ? null : overFloor(agent, floorOf(rows), key);
}

function floorOf(rows: readonly Row[]): Series | undefined {
  return rows.find(({ name }) => name === NAMES.floor)?.series;
}

const RATIOS: readonly Column[] = [
  { key: 'ratioP50', label: 'p50 / floor', digits: 2, suffix: 'x' },
  { key: 'ratioP99', label: 'p99 / floor', digits: 2, suffix: 'x' },
];

function rowCells({ name, series }: Row, rows: readonly Row[]) {
  if (series === undefined) return { contender: name };
  const floor = floorOf(rows);
  return {
    contender: name,
    ...latencyCells(series),
    ratioP50: overFloor(series, floor, 'p50'),
    ratioP99: overFloor(series, floor, 'p99'),
    ...rateCells(series),
    ...shareCells(series),
  };
}

function closedTable(rows: readonly Row[]): Table {
  return {
    title: 'closed loop: 1 request in flight, latency from write to whole reply',
    columns: [CONTENDER, ...LATENCY, ...RATIOS, RATE, ...SHARES],
    rows: rows.map((row) => rowCells(row, rows)),
    notes: ['percentiles are medians over the rounds; "/ floor" is the median of the rounds\' own ratios'],
  };
}

function openTable(rate: number, rows: readonly Row[]): Table {
  return {
    title: `open loop: ${rate} requests a second, latency from when each was due`,
    columns: [
      CONTENDER,
      ...LATENCY,
      ...RATIOS,
      RATE,
      { key: 'late', label: 'sent late p99 us', digits: 1 },
      { key: 'unanswered', label: 'unanswered' },
      ...SHARES,
    ],
    rows: rows.map((row) => ({
      ...rowCells(row, rows),
      late: row.series?.median(({ sendLagMicros }) => sendLagMicros?.p99 ?? null) ?? null,
      unanswered: row.series?.results.reduce((sum, { unanswered }) => sum + unanswered, 0) ?? null,
    })),
    notes: [
      'the client watches the clock in every turn of its event loop: about 100% of its core is its design, "sent late" is its quality',
    ],
  };
}

function serviceTable(services: readonly ServiceSeries[], compute: ModelAlone): Table {
  const p50Of = (series: Series): number | null => series.median(({ latencyMicros }) => latencyMicros?.p50 ?? null);
  return {
    title: 'service time: frame in -> reply handed to the socket, measured by the agent; guard and journal on',
    columns: [
      { key: 'contender', label: 'load' },
      ...LATENCY,
      { key: 'overRested', label: 'p50 / model alone, rested', digits: 2, suffix: 'x' },
      { key: 'overModel', label: 'in a loop', digits: 2, suffix: 'x' },
      { key: 'count', label: 'requests' },
    ],
    rows: services.map((service) => ({
      contender: service.name,
      p50: serviceMedian(service, 'p50Micros'),
      p90: serviceMedian(service, 'p90Micros'),
      p99: serviceMedian(service, 'p99Micros'),
      p999: serviceMedian(service, 'p999Micros'),
      max: serviceMedian(service, 'maxMicros'),
      overRested: ratio(serviceMedian(service, 'p50Micros'), p50Of(compute.rested)),
      overModel: ratio(serviceMedian(service, 'p50Micros'), p50Of(compute.loop)),
      count: service.times.reduce((sum, { count }) => sum + count, 0),
    })),
    notes: [
      '"model alone" is the MLP run alone in this same run; the AVM graph alone costs more (1.3 to 1.9 times)',
      '"rested": each run after 200 us of sleep, which is how a request finds the model unless another has just left it',
    ],
  };
}

function serviceMedian(service: ServiceSeries | undefined, key: Exclude<keyof ServiceTimes, 'count'>): number | null {
  return service === undefined ? null : median(service.times.map((times) => times[key]).filter((one) => one !== null));
}
