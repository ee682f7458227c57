import type { LoadResult } from './load-jobs.ts';
import type { ServiceTimes } from './agent-server.ts';
import type { AgentErrors } from './agent-status.ts';
import {
  answerRates,
  journalRate,
  lagGrowth,
  meanStoreRate,
  medianOf,
  memoryGrowth,
  soakFileGrowth,
  storeRates,
  type StoreSample,
  thinned,
} from './store-samples.ts';
import { ratio } from './statistics.ts';
import type { Column, Table } from './table.ts';

/** The tables of the store bench. Pure. */

const MEBIBYTE = 1024 * 1024;

/** A terminal's height. */
const MOST_ROWS = 32;

/** One run of load with the samples taken during it. */
export interface StoreRun {
  readonly ratePerSecond: number;
  readonly result: LoadResult;
  readonly samples: readonly StoreSample[];
  readonly service: ServiceTimes;
  /** What the agent says went wrong since it started; requests without an answer are in the result. */
  readonly errors: AgentErrors;
}

export function errorCount({ result, errors }: Pick<StoreRun, 'result' | 'errors'>): number {
  return result.unanswered + errors.lostRecords + errors.journalFailures + errors.lostInStore + errors.storeRestarts;
}

/** How a store process that was held up took over what had gathered. */
export interface DrainRun {
  readonly heldMillis: number;
  readonly backlogRecords: number;
  readonly backlogBytes: number;
  readonly seconds: number;
}

function mebibytes(bytes: number | null): number | null {
  return bytes === null ? null : bytes / MEBIBYTE;
}

const MEASURE: readonly Column[] = [
  { key: 'what', label: 'measure' },
  { key: 'value', label: 'value', digits: 1 },
];

function number(value: number | null, digits: number, suffix: string): string | null {
  return value === null ? null : `${value.toFixed(digits)}${suffix}`;
}

function runRows({ ratePerSecond, result, samples, service, errors }: StoreRun): Table['rows'] {
  const written = journalRate(samples);
  const lag = medianOf(samples.map(({ lagBytes }) => lagBytes));
  return [
    { what: 'offered, decisions/s', value: ratePerSecond },
    { what: 'answered, decisions/s', value: result.ratePerSecond },
    { what: 'into the store, entries/s, median of the seconds', value: medianOf(storeRates(samples)) },
    { what: 'into the store, entries/s, whole run', value: meanStoreRate(samples) },
    { what: 'journal, MiB/s', value: mebibytes(written) },
    { what: 'lag, MiB, median', value: mebibytes(lag) },
    { what: 'lag, seconds of journal', value: number(ratio(lag, written), 2, ' s') },
    { what: 'lag growth / journal', value: number(lagGrowth(samples), 4, 'x') },
    { what: 'service time p50, us', value: service.p50Micros },
    { what: 'service time p99, us', value: service.p99Micros },
    { what: 'memory growth, second half / first half', value: number(memoryGrowth(samples), 3, 'x') },
    { what: 'agent and store cpu, % of a core', value: result.serverShare === null ? null : result.serverShare * 100 },
    { what: 'load generator cpu, % of a core', value: result.loadShare * 100 },
    { what: 'sent late p99, us', value: result.sendLagMicros?.p99 ?? null },
    { what: 'requests unanswered', value: result.unanswered },
    { what: 'records that never reached the journal', value: errors.lostRecords },
    { what: 'journal writes failed', value: errors.journalFailures },
    { what: 'numbers stated as lost by the store', value: errors.lostInStore },
    { what: 'restarts of the store process', value: errors.storeRestarts },
  ];
}

export function sustainedTable(run: StoreRun): Table {
  return {
    title: 'store: decisions into LMDB while serving',
    columns: MEASURE,
    rows: runRows(run),
    notes: [
      'lag growth below 0.02 of what the journal grows: the store keeps up; the lag itself is what gathers between two commits and reports',
      "memory is what the processes have of their own (RssAnon); mapped pages of the LMDB file are the operating system's cache",
      'the load generator sleeps 1 ms between looks at the clock: requests come in small bunches, and leave late by about that',
      "cpu of agent and store is all of their threads and children; service time is the agent's own measure",
    ],
  };
}

export function soakTable(run: StoreRun, capBytes: number, telemetrySeconds: number): Table {
  const last = run.samples.at(-1);
  return {
    title: 'store: soak at the cap',
    columns: MEASURE,
    rows: [
      ...runRows(run),
      { what: 'cap on pages in use, MiB', value: mebibytes(capBytes) },
      { what: 'pages in use at the end, MiB', value: mebibytes(last?.usedBytes ?? null) },
      { what: 'file at the end, MiB', value: mebibytes(last?.fileBytes ?? null) },
      { what: 'file, last quarter / second quarter', value: number(soakFileGrowth(run.samples), 3, 'x') },
      { what: 'telemetry dropped, records', value: last?.dropped.telemetry ?? null },
      { what: 'records dropped', value: last?.dropped.records ?? null },
    ],
    notes: [
      `telemetry is kept for ${telemetrySeconds} s and the cap forces records out, oldest first (onFull: drop_oldest): every second writes and drops`,
      'the budget on errors counts unanswered requests, lost records, failed journal writes, numbers stated as lost, and restarts',
    ],
  };
}

export function drainTable(drain: DrainRun): Table {
  return {
    title: 'store: what it drains at most',
    columns: MEASURE,
    rows: [
      { what: 'store process held up, s', value: drain.heldMillis / 1000 },
      { what: 'records that gathered', value: drain.backlogRecords },
      { what: 'journal that gathered, MiB', value: mebibytes(drain.backlogBytes) },
      { what: 'until the lag was 0, s', value: number(drain.seconds, 3, ' s') },
      { what: 'records/s', value: ratio(drain.backlogRecords, drain.seconds) },
    ],
    notes: ['SIGSTOP, load at a constant rate, SIGCONT once the load has ended: a pure drain, with the agent idle'],
  };
}

export function samplesTable(title: string, samples: readonly StoreSample[]): Table {
  const [answers, entries] = [answerRates(samples), storeRates(samples)];
  const rows = samples.map((sample, index) => ({
    seconds: sample.seconds,
    answers: answers[index] ?? null,
    entries: entries[index] ?? null,
    lag: mebibytes(sample.lagBytes),
    agent: mebibytes(sample.agentBytes),
    store: mebibytes(sample.storeBytes),
    mapped: mebibytes(sample.storeMappedBytes),
    file: mebibytes(sample.fileBytes),
    used: mebibytes(sample.usedBytes),
    telemetry: sample.dropped.telemetry,
    records: sample.dropped.records,
  }));
  return {
    title,
    columns: [
      { key: 'seconds', label: 'second', digits: 1 },
      { key: 'answers', label: 'answers/s' },
      { key: 'entries', label: 'entries/s' },
      { key: 'lag', label: 'lag MiB', digits: 2 },
      { key: 'agent', label: 'agent MiB', digits: 1 },
      { key: 'store', label: 'store MiB', digits: 1 },
      { key: 'mapped', label: 'store mapped MiB', digits: 1 },
      { key: 'file', label: 'file MiB', digits: 1 },
      { key: 'used', label: 'in use MiB', digits: 1 },
      { key: 'telemetry', label: 'telemetry dropped' },
      { key: 'records', label: 'records dropped' },
    ],
    rows: thinned(rows, MOST_ROWS),
    notes: rows.length > MOST_ROWS ? [`${MOST_ROWS} of ${rows.length} seconds are shown`] : [],
  };
}
