import {
  closeSync,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  statSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { assert, messageOf, SetpointError } from '../../protocol/errors.ts';
import { scanJournal } from './reader.ts';
import {
  encodeFileHeader,
  encodeRecord,
  FILE_HEADER_BYTES,
  MAX_RECORD_BYTES,
  RECORD_HEADER_BYTES,
  RecordBuffer,
  recordStride,
  type RecordKind,
} from './record.ts';

/** Room for one turn: 1,024 requests of 600 bytes with their decisions fit without a second write. */
const TURN_BUFFER_BYTES = 1024 * 1024;

/** Loss window of a power cut, milliseconds. `kill -9` loses nothing whatever this is. */
const SYNC_INTERVAL_MILLIS = 10;

export interface JournalOptions {
  readonly directory: string;
  readonly stream: number;
  /** Random 64 bits that name a new journal. */
  readonly newEpoch: () => bigint;
  /** Told when a background fdatasync fails; the next commit() fails too. */
  readonly onSyncFailure: (error: SetpointError) => void;
}

/** The file of a stream, by its number. */
export function journalPath(directory: string, stream: number): string {
  return join(directory, `stream-${stream}.journal`);
}

/**
 * The append-only journal of one serving thread. Records of one turn are collected with append() and handed to the
 * operating system by commit() in one write; only then may the replies of the turn be sent.
 */
export class Journal {
  readonly stream: number;
  readonly #options: JournalOptions;
  readonly #descriptor: number;
  #buffer = new RecordBuffer(TURN_BUFFER_BYTES);
  #used = 0;
  #offset: number;
  #nextSequence: number;
  #unsynced = false;
  #syncTimer: NodeJS.Timeout | null = null;
  #syncFailure: SetpointError | null = null;
  #writeFailure: SetpointError | null = null;
  #isClosed = false;

  /**
   * Opens the stream's file, cutting a torn tail (a write that a crash interrupted was never answered) and setting a
   * damaged file aside under a new name, never overwriting it.
   */
  constructor(options: JournalOptions) {
    this.#options = options;
    this.stream = options.stream;
    mkdirSync(options.directory, { recursive: true });
    const path = journalPath(options.directory, options.stream);
    let hiddenRecords = 0;
    const scan = existsSync(path) ? scanJournal(path, 0, () => {}) : null;
    if (existsSync(path) && (scan === null || scan.tail === 'damaged' || scan.stream !== options.stream)) {
      // What follows the damage may hold this many records: counting goes on above them, so that no number is given twice.
      hiddenRecords = Math.ceil((statSync(path).size - (scan?.endOffset ?? 0)) / RECORD_HEADER_BYTES);
      renameSync(path, `${path}.damaged-${options.newEpoch().toString(16)}`);
    }
    const isNew = scan === null || scan.tail === 'damaged' || scan.stream !== options.stream;
    this.#nextSequence = (scan?.lastSequence ?? 0) + 1 + hiddenRecords;
    this.#descriptor = openSync(path, isNew ? 'w' : 'r+', 0o640);
    this.#offset = isNew ? FILE_HEADER_BYTES : scan.endOffset;
    if (isNew) writeSync(this.#descriptor, encodeFileHeader(options.stream, options.newEpoch()), 0, FILE_HEADER_BYTES, 0);
    ftruncateSync(this.#descriptor, this.#offset);
    fsyncSync(this.#descriptor);
  }

  /** The number that the next appended record gets. */
  get nextSequence(): number {
    return this.#nextSequence;
  }

  /** Where the next record will be written; with nextSequence the high-water mark of everything committed. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * Adds a record to this turn, writing what is already collected when there is no room for it. Never throws: a write
   * that fails here is thrown by commit().
   */
  append(kind: RecordKind, timeMicros: number, request: Uint8Array, reply: Uint8Array): void {
    const needed = recordStride(request, reply);
    assert(needed <= MAX_RECORD_BYTES, `a record of ${needed} bytes is over the limit`);
    const sequence = this.#nextSequence++;
    if (this.#used + needed > this.#buffer.bytes.byteLength) {
      this.#write();
      if (needed > this.#buffer.bytes.byteLength) this.#buffer = new RecordBuffer(needed);
    }
    this.#used = encodeRecord(this.#buffer, this.#used, sequence, kind, timeMicros, request, reply);
  }

  /**
   * Hands the records of this turn to the operating system; from here on a crash of this process loses none of them.
   * @throws SetpointError journal_failed; the file then ends with a whole record, and records of the turn are missing in it
   */
  commit(): void {
    this.#write();
    const failure = this.#writeFailure ?? this.#syncFailure;
    this.#writeFailure = null;
    if (failure !== null) throw failure;
    if (this.#unsynced) this.#syncTimer ??= setTimeout(this.#sync, SYNC_INTERVAL_MILLIS).unref();
  }

  #write(): void {
    const length = this.#used;
    this.#used = 0;
    if (length === 0 || this.#writeFailure !== null) return;
    try {
      let written = 0;
      while (written < length) {
        written += writeSync(this.#descriptor, this.#buffer.bytes, written, length - written, this.#offset + written);
      }
      this.#offset += length;
      this.#unsynced = true;
    } catch (cause) {
      this.#writeFailure = new SetpointError('journal_failed', `Cannot write the journal of stream ${this.stream}: ${messageOf(cause)}`, {
        cause,
      });
      ftruncateSync(this.#descriptor, this.#offset);
    }
  }

  readonly #sync = (): void => {
    this.#unsynced = false;
    fdatasync(this.#descriptor, (error) => {
      this.#syncTimer = null;
      if (this.#isClosed) return;
      if (error !== null) {
        // After a failed fdatasync the kernel may have dropped the pages: nothing later on this file may be trusted.
        this.#syncFailure = new SetpointError('journal_failed', `Cannot sync the journal of stream ${this.stream}: ${error.message}`, {
          cause: error,
        });
        this.#options.onSyncFailure(this.#syncFailure);
      } else if (this.#unsynced) {
        this.#syncTimer = setTimeout(this.#sync, SYNC_INTERVAL_MILLIS).unref();
      }
    });
  };

  /** Writes and syncs everything, then closes the file. */
  close(): void {
    this.commit();
    this.#isClosed = true;
    if (this.#syncTimer !== null) clearTimeout(this.#syncTimer);
    fdatasyncSync(this.#descriptor);
    closeSync(this.#descriptor);
  }
}
