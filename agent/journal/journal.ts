import { assert, messageOf, SetpointError } from '../../protocol/errors.ts';
import { BackgroundSync, type SyncWaiter } from './background-sync.ts';
import { isDiskFull } from './files.ts';
import type { GapReason } from './gap.ts';
import type { MarkFile } from './mark-file.ts';
import { openJournal } from './open.ts';
import { encodeRecord, MAX_RECORD_BYTES, RecordBuffer, recordStride, type RecordKind } from './record.ts';
import { MARK_STRIDE, MAX_UNSYNCED_RECORDS } from './resume.ts';
import { Ring } from './ring.ts';
import { type JournalOptions, type JournalSettings, withDefaults } from './settings.ts';
import { StreamWriter } from './stream-writer.ts';

/** Room for one turn: 1,024 requests of 600 bytes with their decisions fit without a second write. */
const TURN_BUFFER_BYTES = 1024 * 1024;

/** Records that waited in memory are written in steps of this much: 1 ms each, so that predictions go on in between. */
const RECOVERY_STEP_BYTES = 1024 * 1024;

/** How soon a journal that fails tries again. */
const RETRY_INTERVAL_MILLIS = 100;

/** Lasts from the first write that failed to the one that wrote everything that had waited. */
interface Failure {
  readonly reason: GapReason;
  /** One object for the whole time: a trace for each of 10,000 turns a second would be the larger cost. */
  readonly error: SetpointError;
  readonly sinceMicros: number;
  lost: number;
  recovered: number;
  /** The mark says so. */
  isMarked: boolean;
}

/**
 * The append-only journal of one serving thread. Records of one turn are collected with append() and handed to the
 * operating system by commit() in one write; only then may the replies of the turn be sent. While that fails, records wait
 * in bounded memory, and a timer tries to write them.
 */
export class Journal {
  readonly stream: number;
  readonly #settings: JournalSettings;
  readonly #sync: BackgroundSync;
  readonly #writer: StreamWriter;
  readonly #mark: MarkFile;
  readonly #ring: Ring;
  #buffer = new RecordBuffer(TURN_BUFFER_BYTES);
  #used = 0;
  #nextSequence: number;
  /** What nextSequence was after the last commit(). */
  #committed: number;
  /** The highest number that has left the buffer, to the file or to the ring. */
  #handed: number;
  #failure: Failure | null = null;
  #lostRecords: number;
  #retryTimer: unknown = null;
  /** While it opens nobody is told: the caller has no journal yet. */
  #isOpening = true;
  #isClosed = false;

  /**
   * Opens the stream's newest segment, as openJournal says. A full disk does not keep it from opening: it is failing then.
   * @throws SetpointError journal_failed when the folder or the mark cannot be read or made
   */
  constructor(options: JournalOptions) {
    this.stream = options.stream;
    this.#settings = withDefaults(options);
    const { bootId, maxBytes, segmentBytes, ringBytes } = this.#settings;
    assert(maxBytes >= segmentBytes, 'a segment is finished before the journal is full');
    this.#ring = new Ring(ringBytes);
    this.#sync = new BackgroundSync({
      timers: this.#settings.timers,
      sync: (done) => this.#syncLater(done),
      isNeeded: () => !this.#writer.isSynced || this.#mark.isDirty,
    });
    try {
      const opened = openJournal({ ...this.#settings, bootId: bootId ?? '' });
      this.#mark = opened.mark;
      this.#writer = new StreamWriter({ ...this.#settings, onSyncFailure: (cause) => this.#syncFailed(cause) }, opened);
      this.#handed = opened.last;
      this.#nextSequence = opened.last + 1;
      this.#committed = opened.last + 1;
      this.#lostRecords = opened.gaps.reduce((sum, { isExact, count }) => sum + (isExact ? count : 0), 0);
      // The way back from a failure is also the way to begin.
      this.#recover();
      if (this.#failure === null && !this.#writer.sync()) this.#recover();
      this.#writeMark();
      this.#mark.sync();
    } catch (cause) {
      throw this.#error('open', cause);
    }
    this.#isOpening = false;
  }

  /** The number that the next appended record gets. */
  get nextSequence(): number {
    return this.#nextSequence;
  }

  /** Bytes of records written since it was opened. */
  get writtenBytes(): number {
    return this.#writer.writtenBytes;
  }

  /** Records cannot be written at the moment: they wait in memory. */
  get isFailing(): boolean {
    return this.#failure !== null;
  }

  /** Records that wait in memory. */
  get ringRecords(): number {
    return this.#ring.count;
  }

  /** Records known to be lost since it was opened, or found to be lost then. */
  get lostRecords(): number {
    return this.#lostRecords + this.#droppedThrough() - this.#writer.accounted;
  }

  /**
   * Adds a record to this turn, writing what is already collected when there is no room for it. Never throws: a write
   * that fails here is thrown by commit().
   */
  append(kind: RecordKind, timeMicros: number, request: Uint8Array, reply: Uint8Array): void {
    const needed = recordStride(request, reply);
    assert(needed <= MAX_RECORD_BYTES, `a record of ${needed} bytes is over the limit`);
    if (this.#used + needed > this.#buffer.bytes.byteLength) {
      this.#handOver();
      if (needed > this.#buffer.bytes.byteLength) this.#buffer = new RecordBuffer(needed);
    }
    this.#used = encodeRecord(this.#buffer, this.#used, this.#nextSequence++, kind, timeMicros, request, reply);
  }

  /**
   * Hands the records of this turn to the operating system; from here on a crash of this process loses none of them. When the
   * disk is 65,536 records behind, it waits for the disk. Without records it does nothing.
   * @throws SetpointError journal_failed; records of the turn wait in memory
   */
  commit(): void {
    this.#handOver();
    if (this.#nextSequence === this.#committed) return;
    this.#committed = this.#nextSequence;
    const isBehind = this.#nextSequence - 1 - Math.max(this.#writer.syncedSequence, this.#mark.syncedGiven) > MAX_UNSYNCED_RECORDS;
    if (isBehind && this.#failure === null && !this.#writer.sync()) this.#recover();
    if (this.#failure !== null) {
      this.#markFailure(isBehind);
      throw this.#failure.error;
    }
    this.#sync.arm();
  }

  /**
   * Takes back the records from `sequence` on, whose answers will not leave, and gives their numbers anew; in the turn whose
   * commit() has thrown. Those that are in the file stay.
   * @returns the first number that was taken back, which is the next one to be given
   */
  withdrawFrom(sequence: number): number {
    assert(this.#used === 0, 'records are withdrawn after commit()');
    const first = Math.max(sequence, this.#writer.accounted + 1);
    if (first < this.#nextSequence) {
      this.#ring.withdrawFrom(first);
      this.#nextSequence = first;
      this.#committed = first;
      this.#handed = first - 1;
      this.#markFailure(false);
    }
    return this.#nextSequence;
  }

  /**
   * Calls back when everything committed so far is on the disk, or with the error when that is not known; at once when it is
   * known already. One sync serves all who wait when it begins.
   */
  whenSynced(callback: SyncWaiter): void {
    if (this.#failure !== null) callback(this.#failure.error);
    else if (this.#writer.isSynced) callback(null);
    else this.#sync.wait(callback);
  }

  /**
   * Writes and syncs everything, as far as that works, and closes the files whatever fails.
   * @throws SetpointError journal_failed; the next start states what is missing then
   */
  close(): void {
    this.#settle();
    // Whoever is told of a failure, or of its end, may append an alert, which is synced, too.
    for (let tries = 0; tries < 3 && this.#failure === null && !this.#writer.isSynced; tries++) {
      if (!this.#writer.sync()) this.#settle();
    }
    this.#isClosed = true;
    this.#sync.close();
    this.#settings.timers.clear(this.#retryTimer);
    this.#sync.release(this.#failure?.error ?? null);
    try {
      this.#writeMark();
      this.#mark.sync();
    } catch (cause) {
      throw this.#error('close', cause);
    } finally {
      this.#writer.close();
      this.#mark.close();
    }
    if (this.#failure !== null) throw this.#failure.error;
  }

  /** Writes what waits while that makes headway. */
  #settle(): void {
    this.#handOver();
    for (let before = Infinity; this.#failure !== null && this.#ring.count < before;) {
      before = this.#ring.count;
      this.#recover();
    }
    this.#handOver();
  }

  /** What is collected goes to the file, or to the ring. */
  #handOver(): void {
    const length = this.#used;
    if (length === 0) return;
    this.#used = 0;
    const { bytes } = this.#buffer;
    const last = this.#nextSequence - 1;
    const before = this.#writer.writtenBytes;
    if (this.#failure === null && this.#writer.isFull()) this.#failFull();
    if (this.#failure === null) {
      try {
        this.#writer.write(bytes, length, last);
        this.#handed = last;
        return;
      } catch (cause) {
        this.#failWrite(cause);
      }
    }
    this.#ring.push(bytes.subarray(this.#writer.writtenBytes - before, length));
    this.#handed = last;
  }

  /** The highest number that the ring has let go of. */
  #droppedThrough(): number {
    return Math.max((this.#ring.firstSequence ?? this.#handed + 1) - 1, this.#writer.accounted);
  }

  #failWrite(cause: unknown): void {
    const isFull = isDiskFull(cause);
    // What fails for another reason may be the fault of this one file.
    if (!isFull) this.#writer.needsSegment = true;
    this.#fail(isFull ? 'disk_full' : 'write_failed', this.#error('write', cause));
  }

  #failFull(): void {
    const message = `Cannot write the journal of stream ${this.stream}: its files have reached ${this.#settings.maxBytes} bytes`;
    const remedy = 'look why the store does not take the records over, or raise journal.maxMebibytes';
    this.#fail('journal_full', new SetpointError('journal_failed', message, { remedy }));
  }

  #syncFailed(cause: unknown): void {
    const error = this.#error('sync', cause);
    this.#fail('sync_failed', error);
    // The next segment will say nothing of these numbers by itself, so the mark must, also after a power cut.
    this.#markFailure(true);
    // Nobody who waits now will learn more: the records are in the segment whose sync failed.
    this.#sync.release(error);
    if (!this.#isOpening) this.#settings.onSyncFailure(error);
  }

  #fail(reason: GapReason, error: SetpointError): void {
    const { sinceMicros, lost, recovered, isMarked } = this.#failure ?? {
      sinceMicros: this.#settings.nowMicros(),
      lost: 0,
      recovered: 0,
      isMarked: false,
    };
    this.#failure = { reason, error, sinceMicros, lost, recovered, isMarked };
    if (!this.#isClosed) this.#retryTimer ??= this.#settings.timers.set(this.#retry, RETRY_INTERVAL_MILLIS);
  }

  #error(action: string, cause: unknown): SetpointError {
    return new SetpointError('journal_failed', `Cannot ${action} the journal of stream ${this.stream}: ${messageOf(cause)}`, { cause });
  }

  readonly #retry = (): void => {
    this.#retryTimer = null;
    this.#recover();
  };

  /** One step on the way back: states what is lost, then writes what waits. */
  #recover(): void {
    try {
      this.#handOver();
      this.#writer.prepare();
      if (this.#failure !== null && this.#writer.isFull()) {
        this.#failFull();
        return;
      }
      this.#stateDropped();
      this.#writeRing();
      // Whoever was told of a failed sync meanwhile may have appended an alert.
      this.#handOver();
      if (this.#ring.count === 0) this.#stateSuspect();
    } catch (cause) {
      this.#failWrite(cause);
      return;
    }
    if (this.#failure === null) return;
    if (this.#ring.count > 0) this.#retryTimer ??= this.#settings.timers.set(this.#retry, 0);
    else if (this.#writer.settleSuspect()) this.#endFailure(this.#failure);
  }

  #stateDropped(): void {
    const { accounted, unstatedFrom } = this.#writer;
    const to = this.#droppedThrough();
    if (to === accounted || this.#failure === null) return;
    const { reason, error } = this.#failure;
    const lost = to - accounted;
    if (unstatedFrom === null) {
      this.#writer.state({ from: accounted + 1, to, count: lost, isExact: true, reason, detail: error.message });
    } else {
      const detail = `records above ${accounted} are lost, those up to it may be in the segment before: ${error.message}`;
      this.#writer.state({ from: unstatedFrom, to, count: to - unstatedFrom + 1, isExact: false, reason: 'sync_failed', detail });
    }
    this.#failure.lost += lost;
    this.#lostRecords += lost;
  }

  /** Every number that was given has a record that may be there, so this gap record takes one of its own. */
  #stateSuspect(): void {
    const { unstatedFrom: from } = this.#writer;
    if (from === null || this.#failure === null) return;
    const to = this.#nextSequence;
    const detail = `records up to ${to - 1} may be in the segment before, or after it: ${this.#failure.error.message}`;
    this.#writer.state({ from, to, count: to - from, isExact: false, reason: 'sync_failed', detail });
    this.#nextSequence = to + 1;
    this.#committed = to + 1;
    this.#handed = to;
  }

  #writeRing(): void {
    const batch = this.#ring.oldest(RECOVERY_STEP_BYTES);
    if (batch === null) return;
    try {
      this.#writer.write(batch.bytes, batch.bytes.byteLength, batch.lastSequence);
    } finally {
      const written = this.#ring.removeThrough(this.#writer.accounted);
      if (this.#failure !== null) this.#failure.recovered += written;
    }
  }

  #endFailure({ lost, recovered }: Failure): void {
    this.#failure = null;
    this.#settings.timers.clear(this.#retryTimer);
    this.#retryTimer = null;
    this.#markHealth();
    this.#sync.arm();
    if (!this.#isOpening) this.#settings.onRecovered({ lost, recovered });
  }

  /** Tells what must be known if everything ends now. */
  #writeMark(): void {
    const { durability, bootId } = this.#settings;
    const { accounted, suspectFrom, pendingReason } = this.#writer;
    const failure = this.#failure;
    this.#mark.write({
      stream: this.stream,
      state: failure !== null ? 'failing' : this.#isClosed && this.#writer.isSynced ? 'clean' : 'open',
      given: this.#nextSequence - 1,
      from: suspectFrom ?? accounted + 1,
      durability,
      reason: failure === null ? null : suspectFrom === null ? (pendingReason ?? failure.reason) : 'sync_failed',
      sinceMicros: failure?.sinceMicros ?? 0,
      bootId: bootId ?? '',
      detail: failure?.error.message ?? '',
    });
  }

  /** @param isUrgent it must be on the disk before any answer leaves */
  #markFailure(isUrgent: boolean): void {
    const failure = this.#failure;
    if (failure === null) return;
    try {
      this.#writeMark();
      if (isUrgent || (!failure.isMarked && this.#settings.durability === 'power')) this.#mark.sync();
      failure.isMarked = true;
      this.#sync.arm();
    } catch (cause) {
      // Nothing is left to write to: the numbers of this failure are given again if it ends in a restart. The error says so.
      this.#failure = { ...failure, error: this.#error('write the mark of', cause) };
    }
  }

  /** An old mark of a journal that works is safe: it names fewer numbers than the segments do. */
  #markHealth(): void {
    try {
      this.#writeMark();
    } catch (cause) {
      if (!this.#isOpening) this.#settings.onSyncFailure(this.#error('write the mark of', cause));
    }
  }

  /** In the background; also where a segment that is large enough is finished, between two turns. */
  #syncLater(done: SyncWaiter): void {
    if (this.#failure === null) this.#rotate();
    if (this.#nextSequence > this.#mark.given + MARK_STRIDE) this.#markHealth();
    this.#writer.syncLater((cause) => {
      if (this.#isClosed) return;
      if (cause === null) {
        this.#mark.syncLater(() => done(null));
      } else {
        const error = this.#failure?.error ?? this.#error('sync', cause);
        this.#recover();
        done(error);
      }
    });
  }

  #rotate(): void {
    try {
      this.#writer.rotate();
    } catch (cause) {
      this.#failWrite(cause);
    }
    if (this.#failure !== null) this.#recover();
  }
}
