import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { systemCode } from '../bundles/disk.ts';
import { decodeFileHeader, decodeRecord, FILE_HEADER_BYTES, type FileHeader, type JournalRecord } from '../journal/record.ts';
import { listStreams } from '../store/drain-files.ts';
import type { StreamSegment } from '../store/drain-plan.ts';

/**
 * The journal's files as they stand at one moment, held open: the store process may delete one meanwhile, and its records
 * stay readable here (Windows does not delete an open file; the store process tries again later).
 */
export interface OpenSegment extends StreamSegment {
  readonly descriptor: number;
  /** Length at that moment; what is written later is not part of the answer. */
  readonly bytes: number;
  /** Null when it does not start a journal of this stream. */
  readonly header: FileHeader | null;
}

const CHUNK_BYTES = 256 * 1024;

/** Every stream's files, from the oldest on; a file that is deleted before it is open has been stored whole. */
export function openSegments(journalDirectory: string): Map<number, OpenSegment[]> {
  const streams = new Map<number, OpenSegment[]>();
  for (const [stream, segments] of listStreams(journalDirectory)) {
    streams.set(
      stream,
      segments.flatMap((segment) => openOne(segment) ?? []),
    );
  }
  return streams;
}

export function closeSegments(streams: ReadonlyMap<number, readonly OpenSegment[]>): void {
  for (const { descriptor } of [...streams.values()].flat()) closeSync(descriptor);
}

function openOne(segment: StreamSegment): OpenSegment | null {
  let descriptor: number;
  try {
    descriptor = openSync(segment.path, 'r');
  } catch (error) {
    if (systemCode(error) === 'ENOENT') return null;
    throw error;
  }
  const { size } = fstatSync(descriptor);
  const bytes = new Uint8Array(FILE_HEADER_BYTES);
  const got = readSync(descriptor, bytes, 0, FILE_HEADER_BYTES, 0);
  const header = decodeFileHeader(bytes.subarray(0, got));
  return { ...segment, descriptor, bytes: size, header: header?.stream === segment.stream ? header : null };
}

export interface SegmentEnd {
  readonly endOffset: number;
  readonly tail: 'clean' | 'torn' | 'damaged';
}

/**
 * The whole records of an open file from an offset on; returns how it ended. As scanJournal(), but one record at a time, so
 * that several files can be read side by side. A record is a view of a buffer that the next one overwrites.
 */
export function* recordsOf({ descriptor, bytes: limit }: OpenSegment, fromOffset: number): Generator<JournalRecord, SegmentEnd> {
  let buffer = new Uint8Array(CHUNK_BYTES);
  let filled = 0;
  let at = 0;
  let bufferOffset = Math.max(fromOffset, FILE_HEADER_BYTES);
  for (;;) {
    const record = decodeRecord(buffer.subarray(0, filled), at);
    if (record === 'damaged') return { endOffset: bufferOffset + at, tail: 'damaged' };
    if (record !== 'incomplete') {
      yield record;
      at += record.stride;
      continue;
    }
    buffer.copyWithin(0, at, filled);
    filled -= at;
    bufferOffset += at;
    at = 0;
    if (filled === buffer.byteLength) {
      const larger = new Uint8Array(buffer.byteLength * 4);
      larger.set(buffer);
      buffer = larger;
    }
    const wanted = Math.min(buffer.byteLength - filled, limit - bufferOffset - filled);
    const got = wanted <= 0 ? 0 : readSync(descriptor, buffer, filled, wanted, bufferOffset + filled);
    if (got === 0) return { endOffset: bufferOffset, tail: filled === 0 ? 'clean' : 'torn' };
    filled += got;
  }
}
