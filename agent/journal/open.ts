import type { Files } from './files.ts';
import type { Gap } from './gap.ts';
import type { Mark } from './mark.ts';
import { MarkFile, markPath } from './mark-file.ts';
import { scanJournal, scanWithoutHeader } from './reader.ts';
import { RECORD_HEADER_BYTES } from './record.ts';
import { type FoundSegment, resume } from './resume.ts';
import { SegmentFile } from './segment-file.ts';
import { listSegments, type Segment } from './segments.ts';

export interface StreamFiles {
  readonly files: Files;
  readonly directory: string;
  readonly stream: number;
  /** Random 64 bits that name a new stream of numbers. */
  readonly newEpoch: () => bigint;
  /** Empty when the machine does not say. */
  readonly bootId: string;
}

export interface OpenJournal {
  readonly mark: MarkFile;
  /** The segment to go on in; null when a new one must be begun. */
  readonly segment: SegmentFile | null;
  readonly epoch: bigint;
  /** Numbers without a record that must be stated before anything else. */
  readonly gaps: readonly Gap[];
  /** The highest number that was given or is skipped. */
  readonly last: number;
  readonly finishedBytes: number;
}

interface Found extends FoundSegment {
  readonly epoch: bigint | null;
  readonly endOffset: number;
}

/**
 * Finds where a stream goes on: its newest segment and its mark. Changes nothing yet but the mark's existence; damaged
 * segments stay as they are, for the store to take what can be read of them.
 */
export function openJournal(stream: StreamFiles): OpenJournal {
  const { files, directory } = stream;
  files.makeFolder(directory);
  const segments = listSegments(directory, files).filter((segment) => segment.stream === stream.stream);
  const newest = segments.at(-1);
  const found = newest === undefined ? null : inspect(files, newest);
  const known = MarkFile.read(files, markPath(directory, stream.stream))?.mark ?? null;
  const { gaps, last } = resume(found, known?.stream === stream.stream ? known : null, stream.bootId);
  const mark = MarkFile.open(files, directory, initialMark(stream, found));
  const canGoOn = newest !== undefined && found !== null && !found.isDamaged;
  return {
    mark,
    segment: canGoOn ? SegmentFile.open(files, newest.path, newest.firstSequence, found.endOffset, found.lastSequence) : null,
    epoch: found?.epoch ?? stream.newEpoch(),
    gaps,
    last,
    finishedBytes: segments.reduce((sum, { bytes }) => sum + bytes, 0) - (canGoOn ? newest.bytes : 0),
  };
}

/**
 * Only the bytes up to the first damage count. Behind it, records could be looked for by their checks, but a request frame is
 * written by its sender, who could have put whole records with right checks inside it.
 */
function inspect(files: Files, segment: Segment): Found {
  const { firstSequence, path, bytes, stream } = segment;
  const scan = scanJournal(path, 0, () => {}, files);
  if (scan === null || scan.stream !== stream || scan.firstSequence !== firstSequence) {
    const rest = scanWithoutHeader(path, files);
    const hiddenRecords = Math.max(rest.lastSequence - firstSequence + 1, 0) + recordsIn(bytes - rest.endOffset);
    return { firstSequence, lastSequence: firstSequence - 1, isDamaged: true, hiddenRecords, epoch: null, endOffset: 0 };
  }
  const isDamaged = scan.tail === 'damaged';
  return {
    firstSequence,
    lastSequence: Math.max(firstSequence - 1, scan.lastSequence),
    isDamaged,
    hiddenRecords: isDamaged ? recordsIn(bytes - scan.endOffset) : 0,
    epoch: scan.epoch,
    endOffset: scan.endOffset,
  };
}

function recordsIn(bytes: number): number {
  return Math.max(Math.ceil(bytes / RECORD_HEADER_BYTES), 0);
}

/**
 * What a mark says that is made anew. Without segments it begins a stream; beside segments it must not hide that nobody knows
 * what was given, until that has been stated: so it is one of no boot.
 */
function initialMark({ stream }: StreamFiles, found: FoundSegment | null): Mark {
  const state = found === null ? 'clean' : 'open';
  return { stream, state, given: 0, from: 1, durability: 'process', reason: null, sinceMicros: 0, bootId: '', detail: '' };
}
