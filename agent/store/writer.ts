import { Batch } from './batch.ts';
import { genesisLink } from './chain.ts';
import { checkedEntry, readAnchor, readEntry, readHead, readPositions, readState } from './contents.ts';
import { StoreDatabase, type Tables } from './database.ts';
import { type Drop, planRecordDrop, planTelemetryDrop } from './drop.ts';
import { withoutDuplicates } from './duplicates.ts';
import { EVENT_KIND } from './entry.ts';
import { StoreDamagedError } from './errors.ts';
import { encodeEvent, type StoreEvent } from './events.ts';
import { encodePosition, isSame, numberKey, numberOfKey, positionKey, seal, stateKey } from './keys.ts';

/** How far a stream has been drained: everything before `offset` of `segment`, and every sequence up to `lastSequence`. */
export interface DrainPosition {
  readonly stream: number;
  readonly epoch: bigint;
  /** First sequence of the segment, which names it. */
  readonly segment: number;
  readonly offset: number;
  readonly lastSequence: number;
}

export interface RecordToStore {
  readonly kind: number;
  readonly sequence: number;
  readonly timeMicros: number;
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
}

export interface StoreHead {
  /** Random number of the log; another one after the store was begun anew. */
  readonly log: bigint;
  /** Of the last entry; the first entry of a log has index 1. */
  readonly index: number;
  readonly link: Uint8Array;
}

export interface StoreWriterOptions {
  /** A random number for a log that is begun. */
  readonly newLog: () => bigint;
  readonly nowMicros: () => number;
  /** Head of the log that stood here before, as far as it is known from elsewhere; named in the first entry of a new log. */
  readonly previous: StoreHead | null;
}

export interface StoreUsage {
  readonly entries: number;
  readonly firstIndex: number;
  /** Index of the first entry that still has telemetry; one more than the last index when none has. */
  readonly telemetryFirstIndex: number;
  readonly oldestTelemetryMicros: number | null;
  readonly oldestMicros: number | null;
  /** Of the pages in use. */
  readonly usedBytes: number;
  /** Of the file, which never shrinks: freed pages are used again. */
  readonly fileBytes: number;
}

export interface DropLimit {
  /** Stop at the first that is not older. Without it only the number counts. */
  readonly olderThanMicros?: number;
  readonly maxRecords: number;
}

/**
 * Adds to a store, as the only writer. Calls wait for each other; each is one transaction, whole or absent after a crash.
 * After a StoreFailedError every later call is refused: the process must end.
 */
export class StoreWriter {
  readonly #database: StoreDatabase;
  readonly #tables: Tables;
  readonly #nowMicros: () => number;
  readonly #positions: Map<number, DrainPosition>;
  readonly #batch: Batch;
  #head: StoreHead;
  #tail: Promise<unknown> = Promise.resolve();

  private constructor(database: StoreDatabase, head: StoreHead, nowMicros: () => number) {
    this.#database = database;
    this.#tables = database.tables;
    this.#nowMicros = nowMicros;
    this.#head = head;
    this.#batch = new Batch(database.tables, head);
    this.#positions = new Map(readPositions(database.tables).map((position) => [position.stream, position]));
  }

  /**
   * Opens the store of a folder that exists, or begins one.
   * @throws StoreDamagedError when what it says of itself does not fit; on a damaged file the process may be killed instead
   */
  static open(directory: string, options: StoreWriterOptions): StoreWriter {
    const database = StoreDatabase.openForWriting(directory);
    const head = readHead(database.tables) ?? begin(database, options);
    checkHead(database.tables, head);
    return new StoreWriter(database, head, options.nowMicros);
  }

  /** The last entry that is on the disk. */
  get head(): StoreHead {
    return this.#head;
  }

  positions(): DrainPosition[] {
    return [...this.#positions.values()];
  }

  position(stream: number): DrainPosition | null {
    return this.#positions.get(stream) ?? null;
  }

  /**
   * Adds records of a stream in the order of their sequences, and moves the stream's position, in one transaction. A record
   * that is here already, byte for byte, is left out; resolves with the number of those that were new.
   * @throws StoreConflictError for a sequence that does not grow, or that another record has; nothing is written then
   */
  async append(records: readonly RecordToStore[], position: DrainPosition): Promise<number> {
    return await this.#exclusive(async () => {
      const fresh = withoutDuplicates(this.#tables, records, position);
      for (const record of fresh) {
        const { kind, sequence, timeMicros, request, reply } = record;
        this.#batch.add({ kind, stream: position.stream, epoch: position.epoch, sequence, timeMicros }, request, reply);
      }
      const key = positionKey(position.stream);
      const value = encodePosition(key, position);
      await this.#commit(() => this.#tables.meta.put(key, value));
      this.#positions.set(position.stream, position);
      return fresh.length;
    });
  }

  /** Adds an entry of the store's own. */
  async appendEvent(body: StoreEvent): Promise<void> {
    await this.#exclusive(async () => {
      this.#addEvent(body);
      await this.#commit();
    });
  }

  usage(): StoreUsage {
    const firstIndex = (readAnchor(this.#tables)?.index ?? 0) + 1;
    // Taken by destructuring, which ends the generator: one that is left open keeps a reader slot.
    const [telemetryKey] = this.#tables.telemetry.keys({ limit: 1 });
    const telemetryFirstIndex = telemetryKey === undefined ? this.#head.index + 1 : numberOfKey(telemetryKey);
    return {
      entries: this.#head.index - firstIndex + 1,
      firstIndex,
      telemetryFirstIndex,
      oldestTelemetryMicros: telemetryKey === undefined ? null : readEntry(this.#tables, telemetryFirstIndex).entry.timeMicros,
      oldestMicros: firstIndex > this.#head.index ? null : readEntry(this.#tables, firstIndex).entry.timeMicros,
      ...this.#database.usage(),
    };
  }

  /**
   * Drops the telemetry of the oldest entries that have any, at most 500 with an event entry per transaction. Resolves with
   * the number dropped.
   */
  async dropTelemetry(limit: DropLimit, reason: string): Promise<number> {
    return await this.#drop('telemetry', limit, reason, (left) => planTelemetryDrop(this.#tables, left));
  }

  /** As dropTelemetry, for whole entries. The last entry always stays. */
  async dropRecords(limit: DropLimit, reason: string): Promise<number> {
    return await this.#drop('records', limit, reason, (left) => planRecordDrop(this.#tables, left, this.#head));
  }

  /** Keeps a value under a name, in the place of the one before. Not an entry. */
  async putState(name: string, json: unknown): Promise<void> {
    const key = stateKey(name);
    const value = seal(key, new TextEncoder().encode(JSON.stringify(json)));
    await this.#exclusive(async () => await this.#database.transaction(() => this.#tables.meta.put(key, value)));
  }

  /** Null when there is none. */
  getState(name: string): unknown {
    return readState(this.#tables, name);
  }

  /** Keeps a signed statement about the entry `index`. */
  async putCheckpoint(index: number, bytes: Uint8Array): Promise<void> {
    const key = numberKey(index);
    const value = seal(key, bytes);
    await this.#exclusive(async () => await this.#database.transaction(() => this.#tables.checkpoints.put(key, value)));
  }

  /** Waits for what is under way. */
  async close(): Promise<void> {
    await this.#exclusive(async () => await this.#database.close());
  }

  async #exclusive<Result>(action: () => Promise<Result>): Promise<Result> {
    const result = this.#tail.then(action);
    // Whoever asked for it is told; the next in line only waits.
    this.#tail = result.catch(() => {});
    return await result;
  }

  /** Commits the batch with what else belongs to it. */
  async #commit(alsoWrite: () => void = () => {}): Promise<void> {
    const { head } = this.#batch;
    await this.#database.transaction(() => {
      this.#batch.write();
      alsoWrite();
    });
    this.#batch.clear();
    this.#head = head;
  }

  #addEvent(body: StoreEvent): void {
    addEvent(this.#batch, this.#head.log, this.#nowMicros(), body);
  }

  async #drop(what: 'telemetry' | 'records', limit: DropLimit, reason: string, plan: (left: DropLimit) => Drop | null): Promise<number> {
    return await this.#exclusive(async () => {
      let dropped = 0;
      while (dropped < limit.maxRecords) {
        const drop = plan({ ...limit, maxRecords: limit.maxRecords - dropped });
        if (drop === null) break;
        const { fromIndex, toIndex, count, write } = drop;
        this.#addEvent({ event: 'dropped', what, fromIndex, toIndex, count, reason });
        await this.#commit(write);
        dropped += count;
      }
      return dropped;
    });
  }
}

function addEvent(batch: Batch, log: bigint, timeMicros: number, body: StoreEvent): void {
  batch.add({ kind: EVENT_KIND, stream: null, epoch: log, sequence: 0, timeMicros }, encodeEvent(body), new Uint8Array(0));
}

/** Begins a log with an entry that names the one before. */
function begin(database: StoreDatabase, { newLog, nowMicros, previous }: StoreWriterOptions): StoreHead {
  for (const [name, table] of Object.entries(database.tables)) {
    if (table.first() !== null) throw new StoreDamagedError(`Cannot open the store: "head" is missing, but there are ${name}`);
  }
  const log = newLog();
  const batch = new Batch(database.tables, { log, index: 0, link: genesisLink(log) });
  addEvent(batch, log, nowMicros(), { event: 'begun', previous });
  database.transactionSync(() => batch.write());
  return batch.head;
}

/** The entry that the head names must be the last one: after a truncation or a page that went missing it is not. */
function checkHead(tables: Tables, head: StoreHead): void {
  const last = tables.records.first({ reverse: true });
  const lastIndex = last === null ? 0 : numberOfKey(last.key);
  if (last === null || lastIndex !== head.index) {
    throw new StoreDamagedError(`Cannot open the store: entry ${head.index} must be the last, entry ${lastIndex} is`, {
      index: head.index,
    });
  }
  const { bytes } = checkedEntry(last.value, head.index);
  if (!isSame(bytes.subarray(0, head.link.length), head.link)) {
    throw new StoreDamagedError(`Cannot open the store: entry ${head.index} does not have the link of the head`, { index: head.index });
  }
}
