import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished } from 'vitest';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { type StoreReport, StoreSupervisor, type StoreTimings } from '../../../agent/serve/store-supervisor.ts';
import { genesisLink, LINK_BYTES, linkOf } from '../../../agent/store/chain.ts';
import type { StoreEvent } from '../../../agent/store/events.ts';
import { type StoredRecord, StoreReader } from '../../../agent/store/reader.ts';
import { STORE_DEFAULTS, type StoreSettings } from '../../../agent/store/settings.ts';
import { encodeDecision, encodeFrame } from '../../../protocol/codec.ts';
import { FRAME_KINDS } from '../../../protocol/frames.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';
import type { TestRecord } from './journal-files.ts';

const WITHIN = 25_000;
/** 2026-11-18, microseconds. */
const START_MICROS = 1_795_000_000_000_000;

/** A supervisor with a real store process on a data directory of its own. */
export interface RunningStore {
  readonly supervisor: StoreSupervisor;
  readonly directory: string;
  readonly alerts: string[];
  readonly exits: string[];
  readonly states: Readonly<Record<string, unknown>>[];
  report(): StoreReport;
}

export interface StoreSetup {
  readonly directory?: string;
  readonly settings?: Partial<StoreSettings>;
  readonly timings?: Partial<StoreTimings>;
}

export function startStore({ directory = temporaryDirectory(), settings, timings }: StoreSetup = {}): RunningStore {
  mkdirSync(join(directory, 'journal'), { recursive: true });
  const alerts: string[] = [];
  const exits: string[] = [];
  const states: Readonly<Record<string, unknown>>[] = [];
  const supervisor = new StoreSupervisor({
    settings: { ...STORE_DEFAULTS, agentId: 'test', dataDirectory: directory, minFreeBytes: 1, ballastBytes: 0, ...settings },
    onReady: (kept) => states.push(kept),
    onStatus: () => {},
    onAlert: (alert, message) => alerts.push(`${alert}: ${message}`),
    onExit: (description) => exits.push(description),
    timings: { firstRestartMillis: 20, maxRestartMillis: 100, stopMillis: 15_000, ...timings },
  });
  onTestFinished(async () => {
    const { processId } = supervisor.status;
    if (processId !== null) kill(processId, 'SIGCONT');
    await supervisor.stop();
  });
  supervisor.start();
  return { supervisor, directory, alerts, exits, states, report: () => supervisor.status };
}

export function kill(processId: number, signal: NodeJS.Signals): void {
  try {
    process.kill(processId, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export async function until(condition: () => boolean, store: RunningStore): Promise<void> {
  await waitFor(condition, WITHIN, () => JSON.stringify({ ...store, supervisor: store.report() }, null, 1));
}

/** Everything in the store of a data directory, after its chain was followed from the first entry (or the anchor) to the head. */
export async function storedRecords(directory: string): Promise<StoredRecord[]> {
  const reader = StoreReader.open(join(directory, 'store'));
  if (reader === null) throw new Error(`there is no store in ${directory}`);
  try {
    const head = reader.head();
    if (head === null) throw new Error('the store has no head');
    const anchor = reader.anchor();
    let link = anchor?.link ?? genesisLink(head.log);
    let last = anchor?.index ?? 0;
    for (const { index, bytes } of reader.entries(1)) {
      expect(index).toBe(last + 1);
      link = linkOf(bytes, link);
      expect(Buffer.from(bytes.subarray(0, LINK_BYTES))).toEqual(Buffer.from(link));
      last = index;
    }
    expect({ index: last, link: Buffer.from(link) }).toEqual({ index: head.index, link: Buffer.from(head.link) });
    return [...reader.between(0, Number.MAX_SAFE_INTEGER)].sort((a, b) => a.index - b.index);
  } finally {
    await reader.close();
  }
}

/** Numbers of a stream in the order of the store. */
export function sequencesOf(records: readonly StoredRecord[], stream = 0): number[] {
  return records.filter((record) => record.stream === stream).map(({ sequence }) => sequence);
}

export function eventsOf(records: readonly StoredRecord[]): StoreEvent[] {
  return records.filter(({ kind }) => kind === 5).map(({ request }) => JSON.parse(Buffer.from(request).toString()) as StoreEvent);
}

/** A decision with `features` numbers of telemetry. */
export function decisionRecord(sequence: number, features: number, timeMicros = START_MICROS + sequence): TestRecord {
  const values = Float64Array.from({ length: features }, (_, at) => Math.sin(sequence * 1000 + at));
  const request = encodeFrame({
    kind: FRAME_KINDS.predict,
    requestId: sequence,
    slot: 'etch/cd',
    context: null,
    deadlineMicros: 0,
    lastApplied: null,
    features: { encoding: 'float64', bytes: new Uint8Array(values.buffer) },
    outputs: null,
  });
  const reply = encodeDecision({
    kind: FRAME_KINDS.decision,
    requestId: sequence,
    sequence,
    stream: 0,
    action: 'model',
    reasons: 0,
    value: 1,
    rawValue: 1,
    correction: null,
    rawCorrection: null,
    ri: null,
    riThreshold: null,
    gsi: null,
    gsiThreshold: null,
    bundleId: new Uint8Array(32).fill(7),
    version: '1',
    serverTimeMicros: timeMicros,
    outputs: null,
  });
  return { sequence, kind: RECORD_KINDS.decision, request: request.slice(), reply: reply.slice(), timeMicros };
}
