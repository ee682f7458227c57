import { assert } from '../../protocol/errors.ts';
import type { Files } from './files.ts';
import { type Gap, type GapReason, gapRecord } from './gap.ts';
import type { OpenJournal } from './open.ts';
import { SegmentFile } from './segment-file.ts';
import { listSegments } from './segments.ts';

export interface StreamWriterOptions {
  readonly files: Files;
  readonly directory: string;
  readonly stream: number;
  readonly segmentBytes: number;
  readonly maxBytes: number;
  readonly nowMicros: () => number;
  /** A sync failed; suspectFrom and needsSegment are set. */
  readonly onSyncFailure: (cause: unknown) => void;
}

/**
 * The segments of a stream as its writer sees them: the current one, the bound over all of them, and what is not known of
 * one whose sync failed.
 */
export class StreamWriter {
  readonly #options: StreamWriterOptions;
  readonly #epoch: bigint;
  #segment: SegmentFile | null;
  /** Gaps that the opening found. They become the head of a new segment, so that none can be forgotten half-way. */
  #gaps: readonly Gap[];
  /** The highest number of the opening, stated or not yet. */
  readonly #openedAt: number;
  #finishedBytes: number;
  #writtenBytes = 0;
  #rotateAt: number;
  #suspectFrom: number | null = null;
  #isSuspectStated = false;
  /** The current segment must not be written any more. */
  needsSegment = false;

  constructor(options: StreamWriterOptions, { segment, epoch, gaps, last, finishedBytes }: OpenJournal) {
    this.#options = options;
    this.#epoch = epoch;
    this.#segment = segment;
    this.#gaps = gaps;
    this.#openedAt = last;
    this.#finishedBytes = finishedBytes;
    this.#rotateAt = options.segmentBytes;
    const suspect = gaps.find(({ reason }) => reason === 'sync_failed');
    this.#suspectFrom = suspect?.from ?? null;
    this.#isSuspectStated = suspect !== undefined;
  }

  /** The highest number that is in a file, or is stated or about to be stated to be lost. */
  get accounted(): number {
    return Math.max(this.#segment?.lastSequence ?? 0, this.#openedAt);
  }

  /** Everything up to this number is on the disk. */
  get syncedSequence(): number {
    return this.#segment?.syncedSequence ?? 0;
  }

  get isSynced(): boolean {
    return this.#segment === null || this.#segment.syncedSequence >= this.#segment.lastSequence;
  }

  /** Bytes of records written since the opening. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  /** From this number on, records of a segment whose sync failed may be lost; null when there are none. */
  get suspectFrom(): number | null {
    return this.#suspectFrom;
  }

  /** The same, as long as no gap record says so. */
  get unstatedFrom(): number | null {
    return this.#isSuspectStated ? null : this.#suspectFrom;
  }

  /** Why numbers of the opening that are not stated yet may have no record; null when there are none. */
  get pendingReason(): GapReason | null {
    return (this.#gaps.find(({ isExact }) => !isExact) ?? this.#gaps[0])?.reason ?? null;
  }

  /**
   * Whether the segments have reached their bound. The folder is looked at only when they seem to have: the store may have
   * deleted some. A turn is written whole, so that a record larger than what is left can be written some day.
   */
  isFull(): boolean {
    const offset = this.#segment?.offset ?? 0;
    if (this.#finishedBytes + offset < this.#options.maxBytes) return false;
    const { directory, files, stream } = this.#options;
    this.#finishedBytes = 0;
    for (const segment of listSegments(directory, files)) {
      if (segment.stream === stream && segment.path !== this.#segment?.path) this.#finishedBytes += segment.bytes;
    }
    return this.#finishedBytes + offset >= this.#options.maxBytes;
  }

  /** As SegmentFile.write; what stays of a write that fails counts in writtenBytes. */
  write(bytes: Uint8Array, length: number, lastSequence: number): void {
    const segment = this.#segment;
    assert(segment !== null, 'a segment was begun');
    const before = segment.offset;
    try {
      segment.write(bytes, length, lastSequence);
    } finally {
      this.#writtenBytes += segment.offset - before;
    }
  }

  /** Writes a gap record; it says what is to be said of a failed sync, too. */
  state(gap: Gap): void {
    const bytes = gapRecord(gap, this.#options.nowMicros());
    this.write(bytes, bytes.byteLength, gap.to);
    this.#isSuspectStated = this.#suspectFrom !== null;
  }

  /** Makes sure of a segment that takes records. */
  prepare(): void {
    const segment = this.#segment;
    const mustBegin = segment === null || this.needsSegment || this.#gaps.length > 0 || segment.offset >= this.#options.segmentBytes;
    if (mustBegin) this.#begin();
    else segment.cut();
  }

  /**
   * Goes on in a new segment when the current one is large enough. One that cannot be made is tried again a little later:
   * the current one takes records until then.
   */
  rotate(): void {
    const segment = this.#segment;
    if (segment === null || segment.offset < this.#rotateAt) return;
    try {
      this.#begin();
    } catch (cause) {
      if (this.needsSegment) throw cause;
      this.#rotateAt = segment.offset + this.#options.segmentBytes / 16;
    }
  }

  /**
   * The one before is synced first: a stream whose newest segment is whole has lost nothing in the others. Then the new one
   * is whole on the disk before its name is, and its name is before anything is written to it.
   */
  #begin(): void {
    const { files, directory, stream, nowMicros } = this.#options;
    const old = this.#segment;
    if (old !== null && !old.hasFailedSync) {
      cutTail(old);
      this.sync();
    }
    const last = this.accounted;
    const firstSequence = this.#gaps[0]?.to ?? last + 1;
    const head = Buffer.concat(this.#gaps.map((gap) => gapRecord(gap, nowMicros())));
    const next = SegmentFile.create(files, directory, { stream, epoch: this.#epoch, firstSequence }, head, last);
    this.#segment = next;
    this.#finishedBytes += old?.offset ?? 0;
    this.#rotateAt = this.#options.segmentBytes;
    old?.close();
    // Until its name is safe nothing may be written to it, and it is made again.
    this.needsSegment = true;
    files.syncFolder(directory);
    this.needsSegment = false;
    if (this.#isSuspectStated && this.#gaps.length > 0) this.#suspectFrom = null;
    this.#gaps = [];
  }

  /** Waits until everything that is written is on the disk. False when that failed: onSyncFailure was told. */
  sync(): boolean {
    const segment = this.#segment;
    if (segment === null || this.isSynced) return true;
    try {
      segment.sync();
      return true;
    } catch (cause) {
      this.#suspect(segment, cause);
      return false;
    }
  }

  /** The same in the background; `done` gets what it failed with. Called at once when there is nothing to sync. */
  syncLater(done: (cause: Error | null) => void): void {
    const segment = this.#segment;
    if (segment === null || segment.hasFailedSync || this.isSynced) {
      done(null);
      return;
    }
    segment.syncLater((cause) => {
      // A segment that was finished meanwhile was synced for that, and what failed then is known.
      if (cause !== null && segment === this.#segment && !segment.isClosed) this.#suspect(segment, cause);
      done(cause);
    });
  }

  /** What was stated of a failed sync is safe: nothing is suspect any more. False when that cannot be made sure of. */
  settleSuspect(): boolean {
    if (this.#suspectFrom === null) return true;
    if (!this.sync()) return false;
    this.#suspectFrom = null;
    this.#isSuspectStated = false;
    return true;
  }

  #suspect(segment: SegmentFile, cause: unknown): void {
    const from = segment.syncedSequence + 1;
    this.#suspectFrom = Math.min(this.#suspectFrom ?? from, from);
    this.#isSuspectStated = false;
    this.needsSegment = true;
    this.#options.onSyncFailure(cause);
  }

  close(): void {
    this.#segment?.close();
  }
}

/** A crash in the middle of a write may have left half a record, which would stand in a finished segment for ever. */
function cutTail(segment: SegmentFile): void {
  try {
    segment.cut();
  } catch {
    // Readers know a torn end of a finished segment: its record was not answered. This file may be why another is begun.
  }
}
