import { digestOf } from './chain.ts';
import { checked, readAnchor, type ReadEntry, readEntry, readHead, readPositions, readState, readTelemetryFirst } from './contents.ts';
import { type KeyAndValue, StoreDatabase, type Table, type Tables } from './database.ts';
import { bundleOf, type Entry, framesWithoutTelemetry, substrateOf, wholeFrames } from './entry.ts';
import { StoreDamagedError } from './errors.ts';
import { decodeRun, isSame, numberKey, numberOfKey, prefixEnd, type Run, unseal } from './keys.ts';
import { entriesBetween, findSequence } from './lookup.ts';
import { epochsOf } from './runs.ts';
import type { DrainPosition, StoreHead } from './writer.ts';

/** Read in one go, and then released: the writer cannot use pages again that a reader still sees. */
const CHUNK_RECORDS = 1000;
const CHUNK_BYTES = 4 * 1024 * 1024;

export interface StoredRecord {
  readonly index: number;
  /** 1 decision, 2 observation, 3 alert, 4 gap, 5 the store's own event. */
  readonly kind: number;
  /** Null for the store's own events. */
  readonly stream: number | null;
  readonly epoch: bigint;
  readonly sequence: number;
  readonly timeMicros: number;
  /** As they were, unless telemetry was dropped: then one feature that is no number, and no outputs (entry.ts). */
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
  readonly telemetry: 'kept' | 'dropped' | 'none';
}

/** An entry as it is stored, for verification. Nothing of it has been checked. */
export interface StoredEntry {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly telemetry: Uint8Array | null;
}

export interface StoredCheckpoint {
  readonly index: number;
  readonly bytes: Uint8Array;
}

/**
 * Reads a store while another process writes it. Iterables are lazy: they give what was there when the first record was asked
 * for, without what is dropped meanwhile, and perhaps some of what is added. Everything but entries() is checked.
 * @throws StoreDamagedError from any method; on a damaged file the process may be killed instead
 */
export class StoreReader {
  readonly #database: StoreDatabase;
  readonly #tables: Tables;

  private constructor(database: StoreDatabase) {
    this.#database = database;
    this.#tables = database.tables;
  }

  /** Null when there is no store in the folder, or nothing was ever committed to it. */
  static open(directory: string): StoreReader | null {
    const database = StoreDatabase.openForReading(directory);
    if (database === null) return null;
    if (readHead(database.tables) === null && database.tables.records.first() === null) {
      void database.close();
      return null;
    }
    return new StoreReader(database);
  }

  /** Records about a substrate, in the order of the log. */
  *bySubstrate(substrateId: string): Generator<StoredRecord> {
    const text = new TextEncoder().encode(substrateId);
    const prefix = new Uint8Array(text.length + 1);
    prefix.set(text);
    for (const keys of this.#chunks(this.#tables.substrates, prefix)) {
      const found = keys.filter(({ key }) => key.length === prefix.length + 8).map(({ key }) => numberOfKey(key, prefix.length));
      yield* this.#records(found, (entry) => isSame(substrateOf(entry.kind, entry.request) ?? NO_BYTES, text));
    }
  }

  /** Decisions of a bundle with a time in from..to, in the order of the log. */
  *byBundle(bundleId: Uint8Array, fromMicros: number, toMicros: number): Generator<StoredRecord> {
    yield* this.#ofRuns(this.#tables.bundles, bundleId, fromMicros, toMicros, (entry) =>
      isSame(bundleOf(entry.kind, entry.reply) ?? NO_BYTES, bundleId),
    );
  }

  /** The record of a stream; the newest, should the stream have been begun anew and given the number again. */
  bySequence(stream: number, sequence: number): StoredRecord | null {
    const tables = this.#tables;
    return this.#atOnce(() => {
      let newest: ReadEntry | null = null;
      for (const epoch of epochsOf(tables, stream)) {
        const found = findSequence(tables, { stream, epoch, sequence });
        if (found !== null && found.entry.index > (newest?.entry.index ?? 0)) newest = found;
      }
      return newest === null ? null : this.#recordOf(newest.entry);
    });
  }

  /** Everything with a time in from..to, in the order of the log. */
  *between(fromMicros: number, toMicros: number): Generator<StoredRecord> {
    yield* this.#ofRuns(this.#tables.blocks, NO_BYTES, fromMicros, toMicros, () => true);
  }

  /** Entries from an index on, as stored; the first one given has a higher index when older ones were dropped. */
  *entries(fromIndex: number): Generator<StoredEntry> {
    for (let next = fromIndex; ;) {
      const chunk = this.#atOnce(() => this.#entriesFrom(next));
      yield* chunk;
      const last = chunk.at(-1);
      if (last === undefined) return;
      next = last.index + 1;
    }
  }

  /** The last entry that was dropped; null when all are there. */
  anchor(): StoreHead | null {
    return this.#atOnce(() => readAnchor(this.#tables));
  }

  *checkpoints(): Generator<StoredCheckpoint> {
    for (const pairs of this.#chunks(this.#tables.checkpoints, NO_BYTES)) {
      for (const { key, value } of pairs) yield { index: numberOfKey(key), bytes: checked(unseal(key, value), 'a checkpoint') };
    }
  }

  positions(): DrainPosition[] {
    return this.#atOnce(() => readPositions(this.#tables));
  }

  head(): StoreHead | null {
    return this.#atOnce(() => readHead(this.#tables));
  }

  /** Null when there is none. */
  state(name: string): unknown {
    return this.#atOnce(() => readState(this.#tables, name));
  }

  async close(): Promise<void> {
    await this.#database.close();
  }

  #atOnce<Result>(read: () => Result): Result {
    try {
      return read();
    } catch (error) {
      // Beside a writer, lmdb has been seen to read entries in an older state than the keys that led to them. What is damaged
      // stays so in a fresh one; a read that goes on where it was is repeated.
      if (!(error instanceof StoreDamagedError)) throw error;
      this.#database.releaseSnapshot();
      return read();
    } finally {
      this.#database.releaseSnapshot();
    }
  }

  /** The pairs whose keys start with a prefix, chunk after chunk. */
  *#chunks(table: Table, prefix: Uint8Array): Generator<KeyAndValue[]> {
    const bounds = prefix.length === 0 ? {} : { end: prefixEnd(prefix) };
    for (let start = prefix; ;) {
      const range = start.length === 0 ? bounds : { start, ...bounds };
      const pairs = this.#atOnce(() => [...table.range({ ...range, limit: CHUNK_RECORDS })]);
      yield pairs;
      const last = pairs.at(-1);
      if (last === undefined || pairs.length < CHUNK_RECORDS) return;
      start = new Uint8Array(last.key.length + 1);
      start.set(last.key);
    }
  }

  /** Entries of the runs under a prefix whose times touch from..to. */
  *#ofRuns(table: Table, prefix: Uint8Array, from: number, to: number, isWanted: (entry: Entry) => boolean): Generator<StoredRecord> {
    for (const pairs of this.#chunks(table, prefix)) {
      for (const { key, value } of pairs) {
        const run = checked(decodeRun(key, value), 'an index');
        if (run.low > to || run.high < from) continue;
        yield* this.#ofRun(run, (entry) => entry.timeMicros >= from && entry.timeMicros <= to && isWanted(entry));
      }
    }
  }

  *#ofRun(run: Run, isWanted: (entry: Entry) => boolean): Generator<StoredRecord> {
    for (let next = run.firstIndex; next <= run.lastIndex;) {
      const records: StoredRecord[] = [];
      let bytes = 0;
      this.#atOnce(() => {
        for (const { entry } of entriesBetween(this.#tables, next, run.lastIndex)) {
          next = entry.index + 1;
          if (isWanted(entry)) bytes += push(records, this.#recordOf(entry));
          if (bytes > CHUNK_BYTES || records.length === CHUNK_RECORDS) return;
        }
        next = run.lastIndex + 1;
      });
      yield* records;
    }
  }

  /** The records at these indices; each must be what its index key says. */
  *#records(indices: readonly number[], isRight: (entry: Entry) => boolean): Generator<StoredRecord> {
    for (let at = 0; at < indices.length;) {
      const records: StoredRecord[] = [];
      this.#atOnce(() => {
        for (let bytes = 0; at < indices.length && bytes <= CHUNK_BYTES; at += 1) {
          const index = indices[at] as number;
          if (index <= (readAnchor(this.#tables)?.index ?? 0)) continue;
          const { entry } = readEntry(this.#tables, index);
          if (!isRight(entry))
            throw new StoreDamagedError(`Cannot read entry ${index} of the store: it is not what its index says`, { index });
          bytes += push(records, this.#recordOf(entry));
        }
      });
      yield* records;
    }
  }

  #entriesFrom(from: number): StoredEntry[] {
    const entries: StoredEntry[] = [];
    let bytes = 0;
    for (const { key, value } of this.#tables.records.range({ start: numberKey(from), limit: CHUNK_RECORDS })) {
      const telemetry = this.#tables.telemetry.get(key);
      entries.push({ index: numberOfKey(key), bytes: value, telemetry });
      bytes += value.length + (telemetry?.length ?? 0);
      if (bytes > CHUNK_BYTES) break;
    }
    return entries;
  }

  #recordOf(entry: Entry): StoredRecord {
    const { index, kind, stream, epoch, sequence, timeMicros, telemetryDigest } = entry;
    const told = { index, kind, stream, epoch, sequence, timeMicros };
    if (telemetryDigest === null) return { ...told, request: entry.request, reply: entry.reply, telemetry: 'none' };
    const telemetry = this.#tables.telemetry.get(numberKey(index));
    if (telemetry === null && index < readTelemetryFirst(this.#tables)) {
      return { ...told, ...framesWithoutTelemetry(entry), telemetry: 'dropped' };
    }
    if (telemetry === null || !isSame(digestOf(telemetry), telemetryDigest)) throw damagedTelemetry(entry, telemetry);
    return { ...told, ...wholeFrames(entry, telemetry), telemetry: 'kept' };
  }
}

const NO_BYTES = new Uint8Array(0);

function push(records: StoredRecord[], record: StoredRecord): number {
  records.push(record);
  return record.request.length + record.reply.length;
}

function damagedTelemetry({ index, stream, sequence }: Entry, telemetry: Uint8Array | null): StoreDamagedError {
  const why = telemetry === null ? 'are missing' : 'are damaged';
  return new StoreDamagedError(`Cannot read record ${sequence} of stream ${stream} (entry ${index}): its features and outputs ${why}`, {
    index,
    sequence,
    ...(stream === null ? {} : { stream }),
  });
}
