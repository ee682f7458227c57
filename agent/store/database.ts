import { existsSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Database, open, type RootDatabase } from 'lmdb';
import { messageOf } from '../../protocol/errors.ts';
import { StoreDamagedError, StoreFailedError } from './errors.ts';

/**
 * The one door to lmdb. Its options, and what each failure does to the process, were found by experiment:
 *
 * - A damaged file kills the process that touches it (SIGBUS, SIGABRT, SIGSEGV) or gives wrong bytes: every value carries
 *   its own check, and only processes that may die open a store.
 * - After a failed commit the environment may hang or crash later: the process must end at the first one.
 * - `overlappingSync` would resolve commits that a lost device cache takes back, and report a failing meta page as success.
 *   `eventTurnBatching` would turn a failed commit into an unhandled rejection even where it is caught.
 * - `mapSize` is no limit: the map grows until the disk is full. Limits are the owner's business.
 */
const OPTIONS = {
  // A folder with a dot in its name would otherwise be taken for a file.
  noSubdir: false,
  overlappingSync: false,
  eventTurnBatching: false,
  safeRestore: true,
  noSync: false,
  noMetaSync: false,
  useWritemap: false,
  mapAsync: false,
  noMemInit: false,
  cache: false,
  compression: false,
  encoding: 'binary',
  keyEncoding: 'binary',
  maxDbs: 8,
  maxReaders: 32,
} as const;

const TABLE_OPTIONS = { encoding: 'binary', keyEncoding: 'binary', cache: false } as const;
const APPEND = { append: true } as const;

const TABLE_NAMES = ['records', 'telemetry', 'sequences', 'bundles', 'substrates', 'blocks', 'checkpoints', 'meta'] as const;
type TableName = (typeof TABLE_NAMES)[number];

interface Pages {
  readonly pageSize: number;
  readonly treeBranchPageCount: number;
  readonly treeLeafPageCount: number;
  readonly overflowPages: number;
  readonly entryCount: number;
}

export interface KeyRange {
  readonly start?: Uint8Array;
  readonly end?: Uint8Array;
  /** From `start` downwards; `start` itself is in. */
  readonly reverse?: boolean;
  readonly limit?: number;
}

export interface KeyAndValue {
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

/** A sub-database. What is written must be written inside a transaction of its store. What is read is a copy. */
export class Table {
  readonly #database: Database<Uint8Array, Uint8Array>;

  constructor(database: Database<Uint8Array, Uint8Array>) {
    this.#database = database;
  }

  get(key: Uint8Array): Uint8Array | null {
    try {
      const value = this.#database.getBinary(key);
      return value === undefined ? null : plain(value);
    } catch (cause) {
      throw unreadable(cause);
    }
  }

  put(key: Uint8Array, value: Uint8Array): void {
    void this.#database.put(key, value);
  }

  /** As put, for a key above all others: fills the pages, and refuses any other key. */
  append(key: Uint8Array, value: Uint8Array): void {
    const result: { result?: boolean } = this.#database.put(key, value, APPEND as never) as never;
    if (result.result !== true) throw new StoreDamagedError('Cannot append to the store: it holds a later key than its head says');
  }

  remove(key: Uint8Array): void {
    void this.#database.remove(key);
  }

  /** One pair after the other, of one snapshot: the caller finishes before it waits for anything. */
  *range(range: KeyRange = {}): Generator<KeyAndValue> {
    try {
      for (const { key, value } of this.#database.getRange(range)) yield { key: plain(key), value: plain(value) };
    } catch (cause) {
      throw unreadable(cause);
    }
  }

  /** As range(), without reading the values. */
  *keys(range: KeyRange = {}): Generator<Uint8Array> {
    try {
      for (const key of this.#database.getKeys(range)) yield plain(key);
    } catch (cause) {
      throw unreadable(cause);
    }
  }

  first(range: KeyRange = {}): KeyAndValue | null {
    for (const pair of this.range({ ...range, limit: 1 })) return pair;
    return null;
  }

  stats(): Pages {
    return this.#database.getStats() as Pages;
  }
}

/** Without lmdb's own `length` property and Buffer's methods, some of which share memory. */
function plain(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** lmdb's codes for want of something that others have: MDB_READERS_FULL, MDB_TLS_FULL, MDB_TXN_FULL, MDB_MAP_RESIZED. */
const WANTS: readonly unknown[] = [-30_790, -30_789, -30_788, -30_785];

/** A reading that failed for want of a reader slot says nothing about the pages: a sound store must not be set aside for it. */
function unreadable(cause: unknown): StoreDamagedError | StoreFailedError {
  if (cause instanceof StoreDamagedError) return cause;
  const code = typeof cause === 'object' && cause !== null && 'code' in cause ? cause.code : null;
  if (WANTS.includes(code)) return new StoreFailedError(`Cannot read the store: ${messageOf(cause)}`, cause);
  return new StoreDamagedError(`Cannot read the store: its pages are damaged: ${messageOf(cause)}`, { cause });
}

export type Tables = Readonly<Record<TableName, Table>>;

export class StoreDatabase {
  readonly tables: Tables;
  readonly #root: RootDatabase<Uint8Array, Uint8Array>;
  readonly #file: string;
  #failure: StoreFailedError | null = null;

  private constructor(directory: string, root: RootDatabase<Uint8Array, Uint8Array>, tables: Tables) {
    this.#file = dataFile(directory);
    this.#root = root;
    this.tables = tables;
  }

  /** Opens or creates. On a full disk creating kills the process: the caller has looked at the free space. */
  static openForWriting(directory: string): StoreDatabase {
    const root = opened(directory, false);
    const found = TABLE_NAMES.map((name): [string, Table] => [name, new Table(openedTable(root, name))]);
    return new StoreDatabase(directory, root, Object.fromEntries(found) as Tables);
  }

  /** Null when there is no store, or one whose creation was cut short. */
  static openForReading(directory: string): StoreDatabase | null {
    if (!existsSync(dataFile(directory)) || statSync(dataFile(directory)).size === 0) return null;
    const root = opened(directory, true);
    const tables: [string, Table][] = [];
    for (const name of TABLE_NAMES) {
      const database = openedTable(root, name) as Database<Uint8Array, Uint8Array> | undefined;
      if (database === undefined) {
        void root.close();
        return null;
      }
      tables.push([name, new Table(database)]);
    }
    return new StoreDatabase(directory, root, Object.fromEntries(tables) as Tables);
  }

  /**
   * Everything that `work` writes, or nothing. Resolves when it is on the disk. Kills the process when `work` throws.
   * @throws StoreFailedError when it is not; this process must then end without touching the store again
   */
  async transaction(work: () => void): Promise<void> {
    if (this.#failure !== null) throw this.#failure;
    try {
      await this.#root.transaction(() => wholly(work));
    } catch (cause) {
      this.#failure = new StoreFailedError(`Cannot write to the store: ${await commitReason(cause)}`, cause);
      throw this.#failure;
    }
  }

  /** As transaction(), now. For the first entry of a store. */
  transactionSync(work: () => void): void {
    this.#root.transactionSync(work);
  }

  /** Ends the snapshot that reads share, so that pages freed since then can be used again. */
  releaseSnapshot(): void {
    this.#root.resetReadTxn();
  }

  /** Bytes of the pages in use, and of the file, which never shrinks. */
  usage(): { usedBytes: number; fileBytes: number } {
    let pages = 0;
    for (const name of TABLE_NAMES) {
      const stats = this.tables[name].stats();
      pages += stats.treeBranchPageCount + stats.treeLeafPageCount + stats.overflowPages;
    }
    const { pageSize } = this.tables.meta.stats();
    return { usedBytes: pages * pageSize, fileBytes: statSync(this.#file).size };
  }

  /** Nothing is left to close after a failed commit: closing would wait for ever. */
  async close(): Promise<void> {
    if (this.#failure === null) await this.#root.close();
  }
}

/**
 * lmdb commits what was written before an exception; its way to undo it, a child transaction, ends in an unhandled rejection
 * when the undoing fails. A writer must end after a failure anyway, and so it does before the commit.
 */
function wholly(work: () => void): void {
  try {
    work();
  } catch (error) {
    try {
      writeSync(2, `Cannot write to the store: ${messageOf(error)}; ending this process before half of it is committed\n`);
    } finally {
      // Also when nobody is left to read that.
      process.kill(process.pid, 'SIGKILL');
    }
  }
}

function dataFile(directory: string): string {
  return join(directory, 'data.mdb');
}

function opened(path: string, readOnly: boolean): RootDatabase<Uint8Array, Uint8Array> {
  try {
    return open<Uint8Array, Uint8Array>({ path, readOnly, ...OPTIONS });
  } catch (cause) {
    throw new StoreDamagedError(`Cannot open the store in ${path}: ${messageOf(cause)}`, { cause });
  }
}

/** Opening one reads the root's pages, and creating one writes them: a failure that is not of the pages is none of the store's. */
function openedTable(root: RootDatabase<Uint8Array, Uint8Array>, name: TableName): Database<Uint8Array, Uint8Array> {
  try {
    return root.openDB({ name, ...TABLE_OPTIONS });
  } catch (cause) {
    if (messageOf(cause).startsWith('MDB_')) throw unreadable(cause);
    throw new StoreFailedError(`Cannot open the store: ${messageOf(cause)}`, cause);
  }
}

/** Why a commit failed. lmdb tells it by a second promise, which must have a handler and may never settle. */
async function commitReason(cause: unknown): Promise<string> {
  const { commitError } = cause as { commitError?: Promise<never> };
  const told = messageOf(cause);
  if (commitError === undefined) return told;
  return await Promise.race([commitError.then(() => told, messageOf), nextTurn(told)]);
}
