import { decodeGap } from '../journal/gap.ts';
import { type JournalRecord, RECORD_KINDS } from '../journal/record.ts';
import type { DrainPosition } from './writer.ts';

/** Which file is drained next, and which numbers are missing: decisions without files, so that every case can be tested. */

/** A file of a stream's journal that has not been set aside. The one with the highest `first` is still written. */
export interface StreamSegment {
  readonly stream: number;
  /** First sequence, which names it. */
  readonly first: number;
  readonly path: string;
}

export interface Place {
  readonly segment: StreamSegment;
  /** Where the stored part ends; null: nothing of this segment is stored. */
  readonly offset: number | null;
}

/**
 * Where to go on, given the files of one stream from the oldest on.
 * @param epochOf null for a file whose header cannot be read
 */
export function placeOf(
  segments: readonly StreamSegment[],
  position: DrainPosition | null,
  epochOf: (segment: StreamSegment) => bigint | null,
): Place | null {
  const [oldest] = segments;
  if (oldest === undefined) return null;
  if (position === null) return { segment: oldest, offset: null };
  const same = segments.find(({ first }) => first === position.segment);
  if (same !== undefined) {
    const epoch = epochOf(same);
    if (epoch === null || epoch === position.epoch) return { segment: same, offset: position.offset };
  }
  // The file is gone: it was finished and deleted, or the agent set it aside and began the stream anew, above its numbers...
  const ahead =
    segments.find((segment) => segment.first > position.segment && epochOf(segment) === position.epoch) ??
    segments.find((segment) => segment.first > position.lastSequence);
  if (ahead !== undefined) return { segment: ahead, offset: null };
  // ...or below them, after the journal folder was emptied.
  const anew = segments.find((segment) => epochOf(segment) !== position.epoch);
  return anew === undefined ? null : { segment: anew, offset: null };
}

/** Numbers that no record of the stream holds and no gap record explains. */
export interface Hole {
  readonly from: number;
  readonly to: number;
}

/** The numbers that are missing between the last record and this one; null when it follows. */
export function holeBefore(record: JournalRecord, lastSequence: number): Hole | null {
  const first = record.kind === RECORD_KINDS.gap ? gapStart(record) : record.sequence;
  return first > lastSequence + 1 ? { from: lastSequence + 1, to: first - 1 } : null;
}

/** A gap record stands for the numbers from `from` to its own; one that does not say so stands for its own alone. */
function gapStart({ request, sequence }: JournalRecord): number {
  return Math.min(decodeGap(request)?.from ?? sequence, sequence);
}
