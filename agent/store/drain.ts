import { join } from 'node:path';
import { messageOf } from '../../protocol/errors.ts';
import { FILE_HEADER_BYTES } from '../journal/record.ts';
import {
  type Batch,
  type BatchLimits,
  findStoredPart,
  headerOf,
  lastObservationOf,
  listStreams,
  nameOf,
  readBatch,
  removeSegment,
  setSegmentAside,
  sizeOf,
} from './drain-files.ts';
import { type Hole, placeOf, type StreamSegment } from './drain-plan.ts';
import { StoreConflictError } from './errors.ts';
import type { StoreAlert, StreamSequence } from './messages.ts';
import type { DrainPosition, StoreWriter } from './writer.ts';

export interface DrainOptions {
  readonly dataDirectory: string;
  readonly writer: Pick<StoreWriter, 'append' | 'appendEvent' | 'position'>;
  readonly limits: BatchLimits;
  readonly nowMillis: () => number;
  /** Puts what was written to a file on the medium, whoever wrote it. */
  readonly sync: (path: string) => Promise<void>;
  /** Asked before a batch of this size is written: false leaves it in the journal for now. */
  readonly hasRoomFor: (bytes: number) => boolean;
  readonly onAlert: (alert: StoreAlert, message: string) => void;
  /** Names of stores that were set aside, for the statement that their records are not in this one. */
  readonly storesSetAside: () => readonly string[];
}

/** 'more': come back at once; 'idle': all there was is stored. */
export type DrainResult = 'more' | 'idle';

/** Moves the records of every stream from the journal into the store, in order, and deletes what is not needed any more. */
export class Drain {
  readonly #options: DrainOptions;
  readonly #journalDirectory: string;
  readonly #streams = new Map<number, StreamDrain>();
  readonly #covered = new Map<number, number>();
  /** Numbers stated as lost since the start. */
  lost = 0;

  constructor(options: DrainOptions) {
    this.#options = options;
    this.#journalDirectory = join(options.dataDirectory, 'journal');
  }

  /** Observations up to these numbers are not needed from the journal any more. */
  cover(positions: readonly StreamSequence[]): void {
    for (const { stream, sequence } of positions) this.#covered.set(stream, sequence);
  }

  /** One batch of every stream; at the end nothing waits for more. Rejects when a commit fails: the process must then exit. */
  async round(isLast: boolean): Promise<DrainResult> {
    let result: DrainResult = 'idle';
    for (const [stream, segments] of listStreams(this.#journalDirectory)) {
      const drain = this.#drainOf(stream);
      if ((await drain.step(segments, isLast)) === 'more') result = 'more';
      drain.deleteStored(segments, this.#covered.get(stream) ?? 0);
    }
    return result;
  }

  /** Journal bytes that are not in the store. */
  lagBytes(): number {
    let bytes = 0;
    for (const [stream, segments] of listStreams(this.#journalDirectory)) bytes += this.#drainOf(stream).lagBytes(segments);
    return bytes;
  }

  #drainOf(stream: number): StreamDrain {
    let drain = this.#streams.get(stream);
    if (drain === undefined) {
      drain = new StreamDrain(stream, this.#options, (count) => {
        this.lost += count;
      });
      this.#streams.set(stream, drain);
    }
    return drain;
  }
}

class StreamDrain {
  readonly #options: DrainOptions;
  readonly #stream: number;
  readonly #onLost: (count: number) => void;
  #position: DrainPosition | null;
  /** The segment whose stored part was compared with what the store remembers, or that was read from its start. */
  #verified: number | null = null;
  #storedMillis = Number.NEGATIVE_INFINITY;
  /** Where damage was found, and the offset compared again before it is believed. */
  #rechecked = '';
  /** By segment: the highest number of an observation in it, as far as it is stored. */
  readonly #observations = new Map<number, number>();
  /** What was told once and need not be told every round. */
  readonly #told = new Set<string>();

  constructor(stream: number, options: DrainOptions, onLost: (count: number) => void) {
    this.#stream = stream;
    this.#options = options;
    this.#onLost = onLost;
    this.#position = options.writer.position(stream);
  }

  async step(segments: readonly StreamSegment[], isLast: boolean): Promise<DrainResult> {
    const found = await this.#find(segments);
    if (found === null) return 'idle';
    const { segment, position } = found;
    const { limits } = this.#options;
    const next = segments[segments.indexOf(segment) + 1];
    const size = sizeOf(segment.path);
    // The agent cuts back a write that failed half-way; records of it may have been read before.
    if (size < position.offset) this.#verified = null;
    // Most looks find nothing: one call, and no read buffer.
    if (next === undefined && size <= position.offset) return 'idle';
    const isFew = next === undefined && !isLast && size - position.offset < limits.fewBytes;
    if (isFew && this.#options.nowMillis() - this.#storedMillis < limits.waitMillis) return 'idle';
    const header = headerOf(segment);
    const batch = header === null ? null : readBatch(segment.path, position.offset, position.lastSequence, limits);
    if (batch !== null && batch.records.length > 0) return await this.#store(segment, position, batch, next);
    if (batch !== null && batch.hole !== null) {
      await this.#lose(
        batch.hole,
        { ...position, lastSequence: batch.hole.to },
        'journal_damaged',
        `${nameOf(segment.path)} has no record of them`,
      );
      return 'more';
    }
    return await this.#atEnd(segment, position, batch?.end ?? 'damaged', next);
  }

  /** The segment to read and the position in it. */
  async #find(segments: readonly StreamSegment[]): Promise<{ segment: StreamSegment; position: DrainPosition } | null> {
    const known = this.#position;
    const place = placeOf(segments, known, (segment) => headerOf(segment)?.epoch ?? null);
    if (place === null) return null;
    const { segment } = place;
    if (place.offset === null || known === null) return await this.#enter(segment);
    if (this.#verified === segment.first) return { segment, position: known };
    this.#verified = segment.first;
    const { offset, lastObservation } = findStoredPart(segment.path, known.offset, known.lastSequence);
    this.#observations.set(segment.first, lastObservation);
    this.#position = { ...known, offset };
    return { segment, position: this.#position };
  }

  /** Goes to the start of a segment. Numbers before a store's first segment of a stream are not in this store. */
  async #enter(segment: StreamSegment): Promise<{ segment: StreamSegment; position: DrainPosition }> {
    const known = this.#position;
    const epoch = headerOf(segment)?.epoch ?? known?.epoch ?? 0n;
    // Below what was stored: the stream was begun anew from an empty folder.
    const isAnew = known !== null && segment.first <= known.lastSequence && epoch !== known.epoch;
    const lastSequence = known === null ? 0 : isAnew ? segment.first - 1 : known.lastSequence;
    const position = { stream: this.#stream, epoch, segment: segment.first, offset: FILE_HEADER_BYTES, lastSequence };
    this.#verified = segment.first;
    this.#observations.set(segment.first, 0);
    this.#position = position;
    if (known !== null || segment.first === 1) return { segment, position };
    const aside = this.#options.storesSetAside();
    const where = aside.length === 0 ? 'this store is new' : `they may be in ${aside.join(', ')}`;
    const last = segment.first - 1;
    await this.#lose({ from: 1, to: last }, { ...position, lastSequence: last }, 'store_damaged', where);
    return { segment, position: this.#position };
  }

  async #store(segment: StreamSegment, from: DrainPosition, batch: Batch, next: StreamSegment | undefined): Promise<DrainResult> {
    if (!this.#options.hasRoomFor(batch.bytes)) return 'idle';
    // First here, then in the store: it must never know a record that a power cut then takes from the journal.
    await this.#options.sync(segment.path);
    const position = { ...from, offset: batch.endOffset, lastSequence: batch.lastSequence };
    try {
      await this.#options.writer.append(batch.records, position);
    } catch (error) {
      if (!(error instanceof StoreConflictError)) throw error;
      return await this.#giveUp(segment, from, next, error.message);
    }
    this.#position = position;
    this.#storedMillis = this.#options.nowMillis();
    this.#observations.set(segment.first, Math.max(this.#observations.get(segment.first) ?? 0, batch.lastObservation));
    return batch.end === 'more' || next !== undefined ? 'more' : 'idle';
  }

  async #atEnd(segment: StreamSegment, position: DrainPosition, end: Batch['end'], next: StreamSegment | undefined): Promise<DrainResult> {
    if (end === 'damaged') {
      const place = `${segment.first} ${position.offset}`;
      if (this.#rechecked === place) return await this.#giveUp(segment, position, next, 'its bytes are no record');
      // Perhaps the file was cut back and written on since, and it is the offset that is wrong.
      this.#rechecked = place;
      this.#verified = null;
      return 'more';
    }
    // A torn end of the file that is written is a record on its way.
    if (next === undefined) return 'idle';
    this.#position = { ...position, segment: next.first, offset: FILE_HEADER_BYTES, epoch: headerOf(next)?.epoch ?? position.epoch };
    this.#verified = next.first;
    this.#observations.set(next.first, 0);
    if (end === 'torn') this.#setAside(segment, position, 'its last record is cut short');
    return 'more';
  }

  /** Nothing behind the position can be read. The file that is written is left to the agent; it may be repaired or replaced. */
  async #giveUp(segment: StreamSegment, position: DrainPosition, next: StreamSegment | undefined, why: string): Promise<DrainResult> {
    const { path } = segment;
    if (next === undefined) {
      this.#tellOnce(`Cannot read ${path} at byte ${position.offset}: ${why}; records behind it wait until the agent begins another file`);
      return 'idle';
    }
    const lastSequence = Math.max(position.lastSequence, next.first - 1);
    const after = {
      ...position,
      segment: next.first,
      offset: FILE_HEADER_BYTES,
      lastSequence,
      epoch: headerOf(next)?.epoch ?? position.epoch,
    };
    const hole = { from: position.lastSequence + 1, to: lastSequence };
    const detail = `${nameOf(path)} at byte ${position.offset}: ${why}; it is kept beside the journal`;
    if (hole.from <= hole.to) await this.#lose(hole, after, 'journal_damaged', detail);
    this.#position = after;
    this.#verified = next.first;
    this.#observations.set(next.first, 0);
    this.#setAside(segment, position, why);
    return 'more';
  }

  #setAside(segment: StreamSegment, { epoch, offset }: DrainPosition, why: string): void {
    const aside = setSegmentAside(segment.path, epoch);
    this.#options.onAlert('store_segment_damaged', `Cannot read ${segment.path} at byte ${offset}: ${why}; it is kept as ${aside}`);
  }

  /** States that numbers have no record in this store. A crash between the two commits states the same numbers twice. */
  async #lose({ from, to }: Hole, position: DrainPosition, reason: string, detail: string): Promise<void> {
    const { writer, onAlert } = this.#options;
    await writer.appendEvent({ event: 'lost', stream: this.#stream, from, to, reason, detail });
    await writer.append([], position);
    this.#position = position;
    this.#onLost(to - from + 1);
    onAlert('store_lost', `Records ${from} to ${to} of stream ${this.#stream} are not in the store (${reason}): ${detail}`);
  }

  #tellOnce(message: string): void {
    if (this.#told.has(message)) return;
    this.#told.add(message);
    this.#options.onAlert('store_segment_damaged', message);
  }

  /**
   * Deletes finished segments before the current position, oldest first, up to the first that holds an observation which the
   * estimators' snapshot does not have.
   */
  deleteStored(segments: readonly StreamSegment[], coveredSequence: number): void {
    const position = this.#position;
    if (position === null) return;
    for (const [at, segment] of segments.entries()) {
      const next = segments[at + 1];
      if (next === undefined || segment.first >= position.segment) return;
      let last = this.#observations.get(segment.first);
      if (last === undefined) {
        // What damage hides may be an observation.
        last = lastObservationOf(segment.path) ?? next.first - 1;
        this.#observations.set(segment.first, last);
      }
      if (last > coveredSequence) return;
      try {
        removeSegment(segment.path);
        this.#observations.delete(segment.first);
      } catch (error) {
        this.#tellOnce(`Cannot delete ${segment.path}, whose records are stored: ${messageOf(error)}`);
        return;
      }
    }
  }

  lagBytes(segments: readonly StreamSegment[]): number {
    const position = this.#position;
    let bytes = 0;
    for (const { first, path } of segments) {
      const drained = position === null || first > position.segment ? 0 : first === position.segment ? position.offset : Infinity;
      bytes += Math.max(0, sizeOf(path) - Math.max(drained, FILE_HEADER_BYTES));
    }
    return bytes;
  }
}
