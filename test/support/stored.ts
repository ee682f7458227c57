import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { decodeGap, type Gap } from '../../agent/journal/gap.ts';
import { scanJournal } from '../../agent/journal/reader.ts';
import { type JournalRecord, RECORD_KINDS } from '../../agent/journal/record.ts';
import { listStreams } from '../../agent/store/drain-files.ts';
import { storeDirectory } from '../../agent/store/quarantine.ts';
import { StoreReader } from '../../agent/store/reader.ts';
import { decodeClientFrame, decodeServerFrame } from '../../protocol/codec.ts';
import type { DecisionFrame } from '../../protocol/frames.ts';
import { onTestFinished } from 'vitest';
import { type RunningAgent, temporaryDirectory, waitFor } from './agent.ts';
import { asDecision } from './raw-socket.ts';

/** What a data directory says of an agent's decisions: the store, and the journals that are not drained yet. */

interface KeptRecord {
  readonly kind: number;
  readonly stream: number;
  readonly sequence: number;
  readonly timeMicros: number;
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
}

/** Numbers of a stream of which the record itself says that they are lost. */
export interface LostNumbers extends Omit<Gap, 'reason'> {
  readonly stream: number;
  readonly reason: string;
}

interface StoreEvent {
  readonly event: string;
  readonly [field: string]: unknown;
}

/** What became of the decisions that controllers were given. */
interface Account {
  readonly answered: number;
  /** The record has them, as they were answered. */
  readonly kept: number;
  /** The record says that they are lost. */
  readonly lost: number;
  /** Nothing says what became of them, or something else stands under their number. */
  readonly problems: readonly string[];
}

const MAX_PROBLEMS = 20;

export class WholeRecord {
  readonly #inStore: ReadonlyMap<string, KeptRecord>;
  readonly #inJournals: ReadonlyMap<string, KeptRecord>;
  readonly events: readonly StoreEvent[];
  readonly lost: readonly LostNumbers[];
  /** Numbers that stand twice, and records that say different things under one number. */
  readonly contradictions: readonly string[];

  private constructor(journals: Reading, store: Reading) {
    this.#inStore = store.records;
    this.#inJournals = journals.records;
    this.events = store.events;
    const contradictions = [...journals.twice, ...store.twice];
    for (const [key, record] of journals.records) {
      const stored = store.records.get(key);
      if (stored !== undefined && !isSame(stored, record)) contradictions.push(`${key} is another record in the store`);
    }
    this.contradictions = contradictions.slice(0, MAX_PROBLEMS);
    this.lost = lostNumbers(new Map([...journals.records, ...store.records]).values(), store.events);
  }

  /** Reads everything; the agent may be running. */
  static async read(dataDir: string): Promise<WholeRecord> {
    // The journals first: what is drained and deleted meanwhile is in the store then.
    const journals = readJournals(dataDir);
    return new WholeRecord(journals, await readStore(dataDir));
  }

  get(stream: number, sequence: number): KeptRecord | undefined {
    const key = `${stream}/${sequence}`;
    return this.#inStore.get(key) ?? this.#inJournals.get(key);
  }

  /** The decisions of all streams, each once. */
  get decisions(): DecisionFrame[] {
    return this.#records()
      .filter(({ kind }) => kind === RECORD_KINDS.decision)
      .map(({ reply }) => asDecision(decodeServerFrame(reply.slice())));
  }

  /** Compares every answer with what is kept of it. */
  account(answers: readonly DecisionFrame[]): Account {
    const problems = [...this.contradictions];
    const numbers = new Set<string>();
    let kept = 0;
    let lost = 0;
    for (const answer of answers) {
      const key = `${answer.stream}/${answer.sequence}`;
      if (numbers.has(key)) problems.push(`${key} was given twice`);
      numbers.add(key);
      const problem = this.#problemOf(answer);
      const lostAs = this.#lostWith(answer);
      if (problem === null) {
        kept += 1;
        if (lostAs?.isExact === true) problems.push(`${key} is kept and said to be lost`);
      } else if (lostAs !== undefined && this.#decisionUnder(answer) === undefined) lost += 1;
      else problems.push(problem);
    }
    return { answered: answers.length, kept, lost, problems: problems.slice(0, MAX_PROBLEMS) };
  }

  /** Numbers of a stream, from 1 on, of which nothing says what became of them, or more than one thing does. */
  holes(stream: number): string[] {
    const ranges = this.#records()
      .filter((record) => record.stream === stream && record.kind !== RECORD_KINDS.gap)
      .map(({ sequence }) => ({ from: sequence, to: sequence, isExact: true }));
    for (const lost of this.lost) if (lost.stream === stream) ranges.push(lost);
    const holes: string[] = [];
    let next = 1;
    for (const { from, to, isExact } of ranges.toSorted((one, other) => one.from - other.from)) {
      if (from > next) holes.push(`${stream}: nothing says what became of ${next}..${from - 1}`);
      if (from < next && isExact) holes.push(`${stream}: ${from}..${Math.min(to, next - 1)} is there twice`);
      next = Math.max(next, to + 1);
    }
    return holes.slice(0, MAX_PROBLEMS);
  }

  #records(): KeptRecord[] {
    return [...new Map([...this.#inJournals, ...this.#inStore]).values()];
  }

  /** A gap record stands under its last number. */
  #decisionUnder({ stream, sequence }: DecisionFrame): KeptRecord | undefined {
    const record = this.get(stream, sequence);
    return record?.kind === RECORD_KINDS.gap ? undefined : record;
  }

  #problemOf(answer: DecisionFrame): string | null {
    const { stream, sequence, requestId } = answer;
    const record = this.get(stream, sequence);
    if (record === undefined) return `nothing says what became of ${stream}/${sequence}`;
    if (record.kind !== RECORD_KINDS.decision) return `${stream}/${sequence} is of kind ${record.kind}`;
    const request = decodeClientFrame(record.request.slice());
    if (!('requestId' in request) || request.requestId !== requestId) return `${stream}/${sequence} holds another request`;
    const reply = asDecision(decodeServerFrame(record.reply.slice()));
    return isDeepStrictEqual(reply, answer) ? null : `${stream}/${sequence} was answered otherwise`;
  }

  #lostWith({ stream, sequence }: DecisionFrame): LostNumbers | undefined {
    return this.lost.find((lost) => lost.stream === stream && lost.from <= sequence && sequence <= lost.to);
  }
}

/** One place that was read. */
class Reading {
  readonly records = new Map<string, KeptRecord>();
  readonly events: StoreEvent[] = [];
  readonly twice: string[] = [];
  readonly #where: string;

  constructor(where: string) {
    this.#where = where;
  }

  add(stream: number, record: Omit<KeptRecord, 'stream'>): void {
    const { kind, sequence, timeMicros } = record;
    const key = `${stream}/${sequence}`;
    if (this.records.has(key)) this.twice.push(`${key} is twice in ${this.#where}`);
    this.records.set(key, { kind, stream, sequence, timeMicros, request: record.request.slice(), reply: record.reply.slice() });
  }
}

function readJournals(dataDir: string): Reading {
  const reading = new Reading('the journals');
  for (const { path, stream } of [...listStreams(join(dataDir, 'journal')).values()].flat()) {
    try {
      const scan = scanJournal(path, 0, (record: JournalRecord) => reading.add(stream, record));
      if (scan === null || scan.tail === 'damaged') reading.twice.push(`${path} is damaged`);
    } catch (error) {
      // Deleted since it was listed, so it is in the store.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return reading;
}

async function readStore(dataDir: string): Promise<Reading> {
  const reading = new Reading('the store');
  const reader = StoreReader.open(storeDirectory(dataDir));
  if (reader === null) return reading;
  try {
    for (const record of reader.between(0, Number.MAX_SAFE_INTEGER)) {
      if (record.stream === null) reading.events.push(jsonOf(record.request) as StoreEvent);
      else reading.add(record.stream, record);
    }
  } finally {
    await reader.close();
  }
  return reading;
}

function lostNumbers(records: Iterable<KeptRecord>, events: readonly StoreEvent[]): LostNumbers[] {
  const lost: LostNumbers[] = [];
  for (const { kind, stream, request } of records) {
    const gap = kind === RECORD_KINDS.gap ? decodeGap(request) : null;
    if (gap !== null) lost.push({ ...gap, stream });
  }
  for (const { event, stream, from, to, reason, detail } of events) {
    if (event !== 'lost' || typeof stream !== 'number' || typeof from !== 'number' || typeof to !== 'number') continue;
    lost.push({ stream, from, to, count: to - from + 1, isExact: false, reason: String(reason), detail: String(detail) });
  }
  return lost;
}

function isSame(one: KeptRecord, other: KeptRecord): boolean {
  return (
    one.kind === other.kind &&
    one.timeMicros === other.timeMicros &&
    Buffer.from(one.request).equals(other.request) &&
    Buffer.from(one.reply).equals(other.reply)
  );
}

function jsonOf(bytes: Uint8Array): unknown {
  return JSON.parse(Buffer.from(bytes).toString('utf8'));
}

/**
 * A folder for an agent, removed when the test ends and every process of the agent with it: the store process of a killed
 * agent finishes what it is writing.
 */
export function agentDirectory(): string {
  const directory = temporaryDirectory();
  onTestFinished(async () => {
    await waitFor(
      () => processesOf(directory).length === 0,
      10_000,
      () => `processes ${processesOf(directory).join(', ')} outlive their agent`,
    );
  });
  return directory;
}

/** Processes that were started with this directory in their arguments. */
function processesOf(directory: string): string[] {
  return readdirSync('/proc').filter((name) => {
    try {
      return /^\d+$/.test(name) && readFileSync(`/proc/${name}/cmdline`, 'latin1').includes(directory);
    } catch {
      // It has ended.
      return false;
    }
  });
}

/** Waits until the store has taken over everything up to these answers. */
export async function waitUntilStored(agent: RunningAgent, answers: readonly DecisionFrame[]): Promise<void> {
  await waitFor(
    async () => await isStored(agent.dataDir, answers),
    20_000,
    () => `not everything is stored:\n${agent.log()}`,
  );
}

/** Whether the store has taken over everything up to these answers. */
export async function isStored(dataDir: string, answers: readonly DecisionFrame[]): Promise<boolean> {
  const highest = new Map<number, number>();
  for (const { stream, sequence } of answers) highest.set(stream, Math.max(sequence, highest.get(stream) ?? 0));
  const reader = StoreReader.open(storeDirectory(dataDir));
  if (reader === null) return false;
  try {
    const stored = new Map(reader.positions().map(({ stream, lastSequence }) => [stream, lastSequence]));
    return [...highest].every(([stream, sequence]) => (stored.get(stream) ?? 0) >= sequence);
  } finally {
    await reader.close();
  }
}
