import { join } from 'node:path';
import { SYSTEM_FILES } from '../journal/files.ts';
import type { Mark } from '../journal/mark.ts';
import { MarkFile, markPath } from '../journal/mark-file.ts';
import { FILE_HEADER_BYTES, type JournalRecord } from '../journal/record.ts';
import { type Hole, holeBefore, placeOf } from '../store/drain-plan.ts';
import { storeDirectory } from '../store/quarantine.ts';
import { type StoredRecord, StoreReader } from '../store/reader.ts';
import type { DrainPosition, StoreHead } from '../store/writer.ts';
import type { LogRecord } from './row.ts';
import { closeSegments, openSegments, type OpenSegment, recordsOf, type SegmentEnd } from './segments.ts';

/** What stands in the way of a whole answer in the part of a stream that is not stored yet. */
export type TailTrouble =
  | { readonly type: 'hole'; readonly stream: number; readonly hole: Hole }
  | { readonly type: 'unreadable'; readonly stream: number; readonly path: string; readonly offset: number; readonly bytes: number }
  | { readonly type: 'failing'; readonly stream: number; readonly mark: Mark };

interface Tail {
  readonly stream: number;
  readonly position: DrainPosition | null;
  /** From the one that the store has not read whole. */
  readonly segments: readonly OpenSegment[];
}

/**
 * The log at one moment: the entries of the store up to an index, and the records of the journal behind what is stored.
 * Every record that was answered before open() was called is in exactly one of the two, whatever the agent and its store
 * process do meanwhile, because of the order: the journal's files are opened first and stay readable when they are deleted;
 * then the store says, in one transaction, how far it has read them (positions) and with which entry (head). A record that
 * was moved before that is at or below the head; one that was not is behind its position in a file that is open here.
 * Entries above the head are left out: they are in those files.
 */
export class LogView {
  readonly store: StoreReader | null;
  /** Null when there is no store, or nothing in it. */
  readonly head: StoreHead | null;
  readonly positions: readonly DrainPosition[];
  readonly #segments: ReadonlyMap<number, OpenSegment[]>;
  readonly #tails: readonly Tail[];
  readonly #failing: readonly TailTrouble[];

  private constructor(
    segments: ReadonlyMap<number, OpenSegment[]>,
    store: StoreReader | null,
    { head, positions }: { head: StoreHead | null; positions: readonly DrainPosition[] },
    failing: readonly TailTrouble[],
  ) {
    this.store = store;
    this.head = head;
    this.positions = positions;
    this.#segments = segments;
    this.#tails = [...segments].flatMap(([stream, files]) => tailOf(stream, files, positions) ?? []);
    this.#failing = failing;
  }

  static open(dataDirectory: string): LogView {
    const journalDirectory = join(dataDirectory, 'journal');
    const segments = openSegments(journalDirectory);
    // Before the store, too: a mark that fails then holds numbers that neither has.
    const failing = [...segments.keys()].flatMap((stream) => failingMark(journalDirectory, stream) ?? []);
    const store = StoreReader.open(storeDirectory(dataDirectory));
    return new LogView(segments, store, store === null ? { head: null, positions: [] } : stateOf(store), failing);
  }

  /** Whether an entry of the store belongs to this moment. */
  covers({ index }: Pick<StoredRecord, 'index'>): boolean {
    return this.head !== null && index <= this.head.index;
  }

  /**
   * The records that are in the journal only, of all streams in the order of time (within a stream, of number). Views of
   * buffers that are used again: a record is valid until the next one is asked for.
   */
  *journalRecords(onTrouble: (trouble: TailTrouble) => void): Generator<LogRecord> {
    for (const failing of this.#failing) onTrouble(failing);
    const streams = this.#tails.map((tail) => tailRecords(tail, onTrouble));
    const waiting = streams.map((records) => records.next());
    for (;;) {
      let first: { readonly at: number; readonly record: LogRecord } | null = null;
      for (const [at, { done, value }] of waiting.entries()) {
        if (done !== true && (first === null || value.timeMicros < first.record.timeMicros)) first = { at, record: value };
      }
      if (first === null) return;
      yield first.record;
      waiting[first.at] = streams[first.at]?.next() ?? { done: true, value: undefined };
    }
  }

  async close(): Promise<void> {
    closeSegments(this.#segments);
    await this.store?.close();
  }
}

/** Positions and head of one moment: the head is the same before and after, and both change in the same transaction. */
function stateOf(store: StoreReader): { head: StoreHead | null; positions: readonly DrainPosition[] } {
  for (;;) {
    const head = store.head();
    const positions = store.positions();
    if (store.head()?.index === head?.index) return { head, positions };
  }
}

function failingMark(journalDirectory: string, stream: number): TailTrouble | null {
  const mark = MarkFile.read(SYSTEM_FILES, markPath(journalDirectory, stream))?.mark;
  return mark?.state === 'failing' ? { type: 'failing', stream, mark } : null;
}

function tailOf(stream: number, segments: readonly OpenSegment[], positions: readonly DrainPosition[]): Tail | null {
  const position = positions.find((one) => one.stream === stream) ?? null;
  const place = placeOf(segments, position, (segment) => (segment as OpenSegment).header?.epoch ?? null);
  return place === null ? null : { stream, position, segments: segments.slice(segments.indexOf(place.segment as OpenSegment)) };
}

function* tailRecords({ stream, position, segments }: Tail, onTrouble: (trouble: TailTrouble) => void): Generator<LogRecord> {
  const [first] = segments;
  // Numbers go on where the store's end, unless the stream was begun anew from an empty folder.
  const isSame = position !== null && (first?.header?.epoch === position.epoch || (first?.first ?? 0) > position.lastSequence);
  let last = position === null ? 0 : isSame ? position.lastSequence : (first?.first ?? 1) - 1;
  for (const [at, segment] of segments.entries()) {
    const isCurrent = at === segments.length - 1;
    const isStored = at === 0 && segment.first === position?.segment && isSame;
    const end = yield* segmentRecords(segment, isStored ? position : null, last, (record) => {
      const hole = holeBefore(record, last);
      if (hole !== null) onTrouble({ type: 'hole', stream, hole });
      last = record.sequence;
    });
    const left = segment.bytes - end.endOffset;
    // A torn end of the file that is written is a record on its way, which nobody was told of yet.
    if (end.tail === 'damaged' || (end.tail === 'torn' && !isCurrent)) {
      onTrouble({ type: 'unreadable', stream, path: segment.path, offset: end.endOffset, bytes: left });
    }
  }
}

/**
 * The records of a file above `last`. A file that is stored in part is read from its start all the same, and told by number:
 * after a power cut its records may stand elsewhere than the store remembers. Only damage in the stored part is jumped over.
 */
function* segmentRecords(
  segment: OpenSegment,
  position: DrainPosition | null,
  last: number,
  onRecord: (record: JournalRecord) => void,
): Generator<LogRecord, SegmentEnd> {
  if (segment.header === null) return { endOffset: 0, tail: 'damaged' };
  let end: SegmentEnd = { endOffset: FILE_HEADER_BYTES, tail: 'clean' };
  for (let from = FILE_HEADER_BYTES; ; from = position?.offset ?? from) {
    const records = recordsOf(segment, from);
    for (let next = records.next(); ; next = records.next()) {
      if (next.done === true) {
        end = next.value;
        break;
      }
      const record = next.value;
      if (record.sequence <= last) continue;
      onRecord(record);
      const { kind, sequence, timeMicros, request, reply } = record;
      yield { index: null, kind, stream: segment.stream, sequence, timeMicros, request, reply, telemetry: telemetryOf(kind) };
    }
    if (end.tail !== 'damaged' || position === null || end.endOffset >= position.offset) return end;
  }
}

const DECISION = 1;

function telemetryOf(kind: number): LogRecord['telemetry'] {
  return kind === DECISION ? 'kept' : 'none';
}
