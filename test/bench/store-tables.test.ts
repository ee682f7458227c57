import { describe, expect, test } from 'vitest';
import type { LoadResult } from '../../bench/load-jobs.ts';
import type { StoreSample } from '../../bench/store-samples.ts';
import { drainTable, errorCount, samplesTable, soakTable, type StoreRun, sustainedTable } from '../../bench/store-tables.ts';
import { renderTable, type Table } from '../../bench/table.ts';

const MEBIBYTE = 1024 * 1024;

const RESULT: LoadResult = {
  replies: 60_000,
  seconds: 3,
  ratePerSecond: 20_000,
  unanswered: 0,
  latencyMicros: null,
  sendLagMicros: { p50: 1, p90: 2, p99: 1300, p999: 4, max: 5 },
  loadShare: 0.42,
  serverShare: 0.75,
  reply: null,
};

function sampleAt(seconds: number): StoreSample {
  return {
    seconds,
    answered: seconds * 20_000,
    journalBytes: seconds * 10 * MEBIBYTE,
    headIndex: seconds * 19_000,
    commitMillis: seconds * 1000,
    lagBytes: 5 * MEBIBYTE,
    fileBytes: 64 * MEBIBYTE,
    usedBytes: 32 * MEBIBYTE,
    agentBytes: 100 * MEBIBYTE,
    storeBytes: 50 * MEBIBYTE,
    storeMappedBytes: 8 * MEBIBYTE,
    dropped: { telemetry: seconds * 10, records: seconds, lost: 0 },
  };
}

function runOf(seconds: number, changes: Partial<StoreRun> = {}): StoreRun {
  return {
    ratePerSecond: 21_000,
    result: RESULT,
    samples: Array.from({ length: seconds }, (_, second) => sampleAt(second)),
    service: { count: 1, p50Micros: 30, p90Micros: 40, p99Micros: 250, p999Micros: 300, maxMicros: 900 },
    errors: { lostRecords: 1, journalFailures: 20, lostInStore: 300, storeRestarts: 4000 },
    ...changes,
  };
}

function valuesOf(table: Table): Record<string, unknown> {
  return Object.fromEntries(table.rows.map(({ what, value }) => [what, value]));
}

describe('sustainedTable()', () => {
  test('tells what was offered, answered and stored, and the share of a core that the load took', () => {
    expect(valuesOf(sustainedTable(runOf(10)))).toMatchObject({
      'offered, decisions/s': 21_000,
      'answered, decisions/s': 20_000,
      'into the store, entries/s, median of the seconds': 19_000,
      'journal, MiB/s': 10,
      'lag, MiB, median': 5,
      'lag, seconds of journal': '0.50 s',
      'service time p99, us': 250,
      'load generator cpu, % of a core': 42,
      'agent and store cpu, % of a core': 75,
      'requests unanswered': 0,
      'records that never reached the journal': 1,
      'journal writes failed': 20,
      'numbers stated as lost by the store': 300,
      'restarts of the store process': 4000,
    });
  });

  test('shows a dash for what could not be measured', () => {
    const text = renderTable(sustainedTable(runOf(0, { result: { ...RESULT, serverShare: null } })));
    expect(text).toMatch(/agent and store cpu, % of a core +-$/m);
    expect(text).toMatch(/median of the seconds +-$/m);
  });
});

test('soakTable() tells the cap, what is in use at the end, and what was dropped', () => {
  expect(valuesOf(soakTable(runOf(12), 32 * MEBIBYTE, 2))).toMatchObject({
    'cap on pages in use, MiB': 32,
    'pages in use at the end, MiB': 32,
    'file at the end, MiB': 64,
    'file, last quarter / second quarter': '1.000x',
    'telemetry dropped, records': 110,
    'records dropped': 11,
  });
});

test('errorCount() leaves nothing out', () => {
  expect(errorCount(runOf(1, { result: { ...RESULT, unanswered: 50_000 } }))).toBe(54_321);
});

test('drainTable() divides the backlog by the time it took', () => {
  const table = drainTable({ heldMillis: 10_000, backlogRecords: 50_000, backlogBytes: 35 * MEBIBYTE, seconds: 0.5 });
  expect(valuesOf(table)).toMatchObject({ 'records/s': 100_000, 'store process held up, s': 10, 'journal that gathered, MiB': 35 });
});

describe('samplesTable()', () => {
  test('shows every second of a short run', () => {
    const { rows } = samplesTable('title', runOf(3).samples);
    expect(rows).toHaveLength(3);
    expect(rows[1]).toMatchObject({ seconds: 1, answers: 20_000, entries: 19_000, lag: 5, agent: 100, store: 50, file: 64, used: 32 });
  });

  test('shows some of a long one, with the rates of single seconds, and says so', () => {
    const { rows, notes } = samplesTable('title', runOf(100).samples);
    expect(rows).toHaveLength(32);
    expect(rows.slice(1).every(({ entries }) => entries === 19_000)).toBe(true);
    expect(notes).toEqual(['32 of 100 seconds are shown']);
  });
});
