import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { scanJournal } from '../../agent/journal/reader.ts';
import { RECORD_KINDS } from '../../agent/journal/record.ts';
import { StoreReader } from '../../agent/store/reader.ts';
import { decodeClientFrame, decodeServerFrame } from '../../protocol/codec.ts';
import { digestOf } from './digest.ts';
import { type Found, Judge, type Place, type Verdict } from './judge.ts';
import type { Answer, Ledger } from './ledger.ts';
import { requestBytes, substrateOf } from './requests.ts';

/** Reads everything that a data directory has, with the product's own readers, while nothing of the agent runs. */

interface LogRecord {
  readonly kind: number;
  readonly sequence: number;
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
}

const STORE_EVENT = 5;
const EVER_MICROS = Number.MAX_SAFE_INTEGER;

export interface Evidence extends Verdict {
  /** What has no place in a run without power cuts and full disks: damaged files, events that tell of losses. */
  readonly oddities: readonly string[];
  /** Records that only a journal has. */
  readonly undrained: number;
}

export async function examine(dataDirectory: string, ledger: Ledger, samples: readonly Answer[] = []): Promise<Evidence> {
  const judge = new Judge();
  const oddities: string[] = [];
  const journal = join(dataDirectory, 'journal');
  const store = StoreReader.open(join(dataDirectory, 'store'));
  const stored = new Map<number, number>();
  if (store !== null) {
    for (const record of store.between(0, EVER_MICROS)) {
      if (record.kind === STORE_EVENT || record.stream === null) {
        const event = Buffer.from(record.request).toString();
        if (!event.includes('"begun"')) oddities.push(`the store has an event: ${event}`);
        continue;
      }
      judge.record(foundOf('store', record.stream, record, record.telemetry === 'dropped'));
      stored.set(record.stream, Math.max(stored.get(record.stream) ?? 0, record.sequence));
    }
    for (const answer of samples) oddities.push(...unfindable(store, answer));
    await store.close();
  }
  const undrained = readJournals(journal, judge, stored, oddities);
  for (const answer of ledger) judge.answer(answer);
  return { ...judge.verdict(), oddities, undrained };
}

function readJournals(folder: string, judge: Judge, stored: ReadonlyMap<number, number>, oddities: string[]): number {
  let undrained = 0;
  for (const name of namesIn(folder)) {
    if (name.includes('.damaged')) oddities.push(`${name} was set aside`);
    if (!name.endsWith('.journal')) continue;
    const stream = Number(/^stream-(\d+)/.exec(name)?.[1]);
    const scan = scanJournal(join(folder, name), 0, (record) => {
      judge.record(foundOf('journal', stream, record, false));
      if (record.sequence > (stored.get(stream) ?? 0)) undrained += 1;
    });
    // A torn end is a write that the kill interrupted, which nobody was told of.
    if (scan === null || scan.tail === 'damaged') oddities.push(`${name} is damaged`);
  }
  return undrained;
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort();
  } catch (error) {
    // Killed before it had made the folder.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function foundOf(place: Place, stream: number, record: LogRecord, isCut: boolean): Found {
  const { sequence } = record;
  if (record.kind === RECORD_KINDS.gap) {
    const { from } = JSON.parse(Buffer.from(record.request).toString()) as { from: number };
    return { place, stream, sequence, kind: 'gap', requestId: null, digest: null, isAltered: false, gapFrom: from };
  }
  if (record.kind === RECORD_KINDS.alert) {
    return { place, stream, sequence, kind: 'alert', requestId: null, digest: digestOf(record.request), isAltered: false, gapFrom: null };
  }
  const isDecision = record.kind === RECORD_KINDS.decision;
  const request = decodeClientFrame(record.request.slice());
  const requestId = 'requestId' in request ? request.requestId : null;
  const isAltered =
    isCut || requestId === null || !isSame(record.request, requestBytes(requestId)) || (isDecision && !isOwn(stream, requestId, record));
  return {
    place,
    stream,
    sequence,
    kind: isDecision ? 'decision' : 'observation',
    requestId,
    digest: isDecision ? digestOf(record.reply) : null,
    isAltered,
    gapFrom: null,
  };
}

/** The reply in a record names that record and its request. */
function isOwn(stream: number, requestId: number, { sequence, reply }: LogRecord): boolean {
  const decision = decodeServerFrame(reply.slice());
  return 'sequence' in decision && decision.stream === stream && decision.sequence === sequence && decision.requestId === requestId;
}

/** The indices of the store lead to what was answered, too. */
function unfindable(store: StoreReader, { stream, sequence, requestId }: Answer): string[] {
  const byNumber = store.bySequence(stream, sequence);
  // Not drained yet, so that the journal has it, or missing, which is counted.
  if (byNumber === null || !isSame(byNumber.request, requestBytes(requestId))) return [];
  const bySubstrate = [...store.bySubstrate(substrateOf(requestId))];
  const isFound = bySubstrate.some((record) => record.stream === stream && record.sequence === sequence);
  return isFound ? [] : [`${stream}/${sequence} is stored and not found by its substrate ${substrateOf(requestId)}`];
}

function isSame(one: Uint8Array, other: Uint8Array): boolean {
  return Buffer.compare(one, other) === 0;
}
