import { closeSync, fdatasync, openSync, readSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import { promisify } from 'node:util';
import { scanJournal } from '../journal/reader.ts';
import { decodeFileHeader, FILE_HEADER_BYTES, type FileHeader, RECORD_KINDS } from '../journal/record.ts';
import { listSegments } from '../journal/segments.ts';
import { syncDirectory } from './disk-space.ts';
import { type Hole, holeBefore, type StreamSegment } from './drain-plan.ts';
import type { RecordToStore } from './writer.ts';

const fdatasyncOf = promisify(fdatasync);

/** Every stream's files, from the oldest on. A folder that is not there holds none. */
export function listStreams(journalDirectory: string): Map<number, StreamSegment[]> {
  const streams = new Map<number, StreamSegment[]>();
  for (const { stream, firstSequence, path } of listSegments(journalDirectory)) {
    const segments = streams.get(stream) ?? [];
    segments.push({ stream, first: firstSequence, path });
    streams.set(stream, segments);
  }
  return streams;
}

/** Null when the file does not start a journal of this stream. */
export function headerOf({ path, stream }: StreamSegment): FileHeader | null {
  const descriptor = openSync(path, 'r');
  try {
    const bytes = new Uint8Array(FILE_HEADER_BYTES);
    readSync(descriptor, bytes, 0, FILE_HEADER_BYTES, 0);
    const header = decodeFileHeader(bytes);
    return header?.stream === stream ? header : null;
  } finally {
    closeSync(descriptor);
  }
}

export interface BatchLimits {
  readonly maxBytes: number;
  readonly maxRecords: number;
  /** Fewer bytes than this wait for more, */
  readonly fewBytes: number;
  /** for as long as the last commit of the stream is not older than this. */
  readonly waitMillis: number;
}

export interface Batch {
  readonly records: readonly RecordToStore[];
  readonly bytes: number;
  readonly endOffset: number;
  readonly lastSequence: number;
  /** Highest number of an observation among the records, 0 for none. */
  readonly lastObservation: number;
  /** What follows the records: more of them, nothing, a hole in the numbers, or bytes that are no record. */
  readonly end: 'more' | 'clean' | 'torn' | 'damaged';
  /** Set when a record comes next that does not follow. */
  readonly hole: Hole | null;
}

/** Reads whole records from `offset` on, up to a hole or a limit. One record is read whatever its size. */
export function readBatch(
  path: string,
  offset: number,
  lastSequence: number,
  limits: Pick<BatchLimits, 'maxBytes' | 'maxRecords'>,
): Batch | null {
  const records: RecordToStore[] = [];
  let bytes = 0;
  let last = lastSequence;
  let lastObservation = 0;
  let hole: Hole | null = null;
  let endOffset = offset;
  let isFull = false;
  const scan = scanJournal(path, offset, (record, at) => {
    hole = holeBefore(record, last);
    if (hole !== null) return false;
    // The bytes are views of the reader's buffer.
    records.push({ ...record, request: record.request.slice(), reply: record.reply.slice() });
    bytes += record.stride;
    endOffset = at + record.stride;
    last = record.sequence;
    if (record.kind === RECORD_KINDS.observation) lastObservation = record.sequence;
    isFull = bytes >= limits.maxBytes || records.length >= limits.maxRecords;
    return !isFull;
  });
  if (scan === null) return null;
  return { records, bytes, endOffset, lastSequence: last, lastObservation, end: isFull || hole !== null ? 'more' : scan.tail, hole };
}

export interface StoredPart {
  /** Where the record behind the last stored one starts. */
  readonly offset: number;
  readonly lastObservation: number;
}

/**
 * Where the stored part of a segment ends, by its own records: after a power cut on a disk that lies about syncs, the file
 * may be shorter than it was, and its records stand elsewhere than the store remembers.
 */
export function findStoredPart(path: string, offset: number, lastSequence: number): StoredPart {
  let end = FILE_HEADER_BYTES;
  let lastObservation = 0;
  const scan = scanJournal(path, 0, (record, at) => {
    if (record.sequence > lastSequence) return false;
    end = at + record.stride;
    if (record.kind === RECORD_KINDS.observation) lastObservation = record.sequence;
    return true;
  });
  // Damage in the part that is stored already hides nothing that is not.
  const isHidden = scan === null || (scan.tail === 'damaged' && end < offset);
  return { offset: isHidden ? offset : end, lastObservation: isHidden ? lastSequence : lastObservation };
}

/** Highest number of an observation in a whole segment; null when damage hides part of it. */
export function lastObservationOf(path: string): number | null {
  let last = 0;
  const scan = scanJournal(path, 0, (record) => {
    if (record.kind === RECORD_KINDS.observation) last = record.sequence;
  });
  return scan === null || scan.tail === 'damaged' ? null : last;
}

/** Puts what was written to the file on the medium, whoever wrote it. Windows syncs only through a descriptor that may write. */
export async function syncFile(path: string): Promise<void> {
  const descriptor = openSync(path, process.platform === 'win32' ? 'r+' : 'r');
  try {
    await fdatasyncOf(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Keeps a damaged segment under a name that nothing reads: `<name>.damaged-<epoch>`. Returns the new path. */
export function setSegmentAside(path: string, epoch: bigint): string {
  const aside = `${path}.damaged-${epoch.toString(16)}`;
  renameSync(path, aside);
  syncDirectory(dirname(path));
  return aside;
}

export function removeSegment(path: string): void {
  rmSync(path, { force: true });
}

export function sizeOf(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.size ?? 0;
}

export function nameOf(path: string): string {
  return basename(path);
}
