import { describe, expect, test } from 'vitest';
import { type AgentStatus, durabilityDefect, errorsOf, metricOf, parseStatus } from '../../bench/agent-status.ts';

const STORE = {
  state: 'draining',
  processId: 7,
  restarts: 0,
  headIndex: 100,
  lagBytes: 0,
  fileBytes: 4096,
  usedBytes: 4096,
  lastCommitMillis: null,
  dropped: { telemetry: 0, records: 0, lost: 0 },
};
const JOURNAL = { isFailing: false, failures: 0, ringRecords: 0, lostRecords: 0 };

describe('parseStatus()', () => {
  test('reads the journal and the store of a readiness answer, whatever else it says', () => {
    const body = { live: true, ready: true, detail: { journal: JOURNAL, store: { ...STORE, freeBytes: 1 }, slots: [] } };
    expect(parseStatus(body)).toEqual({ journal: JOURNAL, store: STORE });
  });

  test('an agent without a store has null for it', () => {
    expect(parseStatus({ detail: { journal: JOURNAL, store: null } }).store).toBeNull();
  });

  test.each([
    ['an answer of another shape', {}, 'detail'],
    ['a store without its lag', { detail: { journal: JOURNAL, store: { ...STORE, lagBytes: undefined } } }, 'detail.store.lagBytes'],
    ['a text', 'ready', '(top level)'],
  ])('refuses %s and names the key', (_, body, key) => {
    expect(() => parseStatus(body)).toThrow(`Cannot read the agent's readiness: ${key}: `);
  });
});

describe('metricOf()', () => {
  const text = ['# HELP a_total help', 'a_total{thread="0"} 5', 'a_total{thread="1"} 7', 'a_total_more 100', 'b 2.5', ''].join('\n');

  test('adds a metric up over its labels and takes none whose name only begins alike', () => {
    expect(metricOf(text, 'a_total')).toBe(12);
    expect(metricOf(text, 'b')).toBe(2.5);
  });

  test('is null for a metric that is not there, never 0', () => {
    expect(metricOf(text, 'c')).toBeNull();
  });
});

describe('durabilityDefect()', () => {
  const statusWith = (journal: Partial<AgentStatus['journal']>): AgentStatus => ({ journal: { ...JOURNAL, ...journal }, store: STORE });

  test('an agent that wrote everything has none', () => {
    expect(durabilityDefect(statusWith({}))).toBeNull();
  });

  test.each([
    [{ lostRecords: 3 }, '3 records never reached the journal'],
    [{ isFailing: true }, 'the journal cannot be written'],
    [{ failures: 2 }, '2 journal writes failed'],
  ])('%j spoils a measurement', (journal, defect) => {
    expect(durabilityDefect(statusWith(journal))).toBe(defect);
  });

  test('a store process that had to be started again spoils it, too; having none does not', () => {
    expect(durabilityDefect({ journal: JOURNAL, store: { ...STORE, restarts: 2 } })).toContain('2 times');
    expect(durabilityDefect({ journal: JOURNAL, store: null })).toBeNull();
  });
});

test('errorsOf() counts what went wrong, also without a store', () => {
  const journal = { ...JOURNAL, lostRecords: 3, failures: 2 };
  const store = { ...STORE, restarts: 4, dropped: { telemetry: 100, records: 100, lost: 5 } };
  expect(errorsOf({ journal, store })).toEqual({ lostRecords: 3, journalFailures: 2, lostInStore: 5, storeRestarts: 4 });
  expect(errorsOf({ journal, store: null })).toEqual({ lostRecords: 3, journalFailures: 2, lostInStore: 0, storeRestarts: 0 });
});
