import { closeSync, fdatasync, fdatasyncSync, ftruncateSync, writeSync } from 'node:fs';
import { assert, messageOf, SetpointError } from '../../protocol/errors.ts';
import { openJournal, type StreamFile } from './open.ts';
import { encodeRecord, MAX_RECORD_BYTES, RecordBuffer, recordStride, type RecordKind } from './record.ts';

/** Room for one turn: 1,024 requests of 600 bytes with their decisions fit without a second write. */
const TURN_BUFFER_BYTES = 1024 * 1024;

/** Loss window of a power cut, milliseconds. `kill -9` loses nothing whatever this is. */
const SYNC_INTERVAL_MILLIS = 10;

export interface JournalOptions extends StreamFile {
  /** Told when a background fdatasync fails; every commit() from then on fails, too. */
  readonly onSyncFailure: (error: SetpointError) => void;
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
  /** A write failed and what it left behind the last whole record could not be cut off yet. */
  #hasTornTail = false;
  #unsynced = false;
  #syncTimer: NodeJS.Timeout | null = null;
  #syncFailure: SetpointError | null = null;
  #writeFailure: SetpointError | null = null;
  #isClosed = false;

  /** Opens the stream's file, as openJournal says. */
  constructor(options: JournalOptions) {
    this.#options = options;
    this.stream = options.stream;
    const { descriptor, offset, nextSequence } = openJournal(options);
    this.#descriptor = descriptor;
    this.#offset = offset;
    this.#nextSequence = nextSequence;
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
      this.#cutTornTail();
      let written = 0;
      while (written < length) {
        written += writeSync(this.#descriptor, this.#buffer.bytes, written, length - written, this.#offset + written);
      }
      this.#offset += length;
      this.#unsynced = true;
    } catch (cause) {
      this.#writeFailure = this.#failure('write', cause);
      this.#hasTornTail = true;
      try {
        this.#cutTornTail();
      } catch {
        // The tail stays marked: the next write cuts it first, or fails for the same reason.
      }
    }
  }

  /** Cuts off what a failed write left behind the last whole record. */
  #cutTornTail(): void {
    if (!this.#hasTornTail) return;
    ftruncateSync(this.#descriptor, this.#offset);
    this.#hasTornTail = false;
  }

  #failure(action: string, cause: unknown): SetpointError {
    return new SetpointError('journal_failed', `Cannot ${action} the journal of stream ${this.stream}: ${messageOf(cause)}`, { cause });
  }

  readonly #sync = (): void => {
    this.#unsynced = false;
    fdatasync(this.#descriptor, (error) => {
      this.#syncTimer = null;
      if (this.#isClosed) return;
      if (error !== null) {
        // After a failed fdatasync the kernel may have dropped the pages: nothing later on this file may be trusted.
        this.#syncFailure = this.#failure('sync', error);
        this.#options.onSyncFailure(this.#syncFailure);
      } else if (this.#unsynced) {
        this.#syncTimer = setTimeout(this.#sync, SYNC_INTERVAL_MILLIS).unref();
      }
    });
  };

  /**
   * Writes and syncs everything, then closes the file, whatever fails before.
   * @throws SetpointError journal_failed
   */
  close(): void {
    try {
      this.commit();
      fdatasyncSync(this.#descriptor);
    } catch (cause) {
      throw cause instanceof SetpointError ? cause : this.#failure('sync', cause);
    } finally {
      this.#isClosed = true;
      if (this.#syncTimer !== null) clearTimeout(this.#syncTimer);
      closeSync(this.#descriptor);
    }
  }
}
