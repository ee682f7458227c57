import { type Files, SYSTEM_FILES } from './files.ts';
import { decodeFileHeader, decodeRecord, FILE_HEADER_BYTES, type FileHeader, type JournalRecord, MAX_RECORD_BYTES } from './record.ts';

const CHUNK_BYTES = 256 * 1024;

export interface RecordScan {
  /** Where the last whole record ends; bytes beyond it are a torn or damaged tail. */
  readonly endOffset: number;
  /** Number of the last record that was read, 0 when there was none. */
  readonly lastSequence: number;
  /** What follows endOffset: nothing, the start of a record, or bytes that are no record. */
  readonly tail: 'clean' | 'torn' | 'damaged';
}

export type JournalScan = FileHeader & RecordScan;

/** Takes a record and its offset; false ends the scan behind it (the scan then says 'torn' whatever follows). */
export type Visit = (record: JournalRecord, offset: number) => unknown;

/**
 * Reads a journal file from `fromOffset` (0 for the start) to its last whole record, calling `visit` for each.
 * Records are views of a reused buffer: copy what outlives the call. Returns null when the file does not start a journal.
 */
export function scanJournal(path: string, fromOffset: number, visit: Visit, files: Files = SYSTEM_FILES): JournalScan | null {
  const descriptor = files.open(path, 'r');
  try {
    const headerBytes = new Uint8Array(FILE_HEADER_BYTES);
    files.read(descriptor, headerBytes, 0, FILE_HEADER_BYTES, 0);
    const header = decodeFileHeader(headerBytes);
    if (header === null) return null;
    return { ...header, ...scanRecords(files, descriptor, Math.max(fromOffset, FILE_HEADER_BYTES), visit) };
  } finally {
    files.close(descriptor);
  }
}

/** The records of a file whose header cannot be read: what it says about the numbers that were given. */
export function scanWithoutHeader(path: string, files: Files = SYSTEM_FILES): RecordScan {
  const descriptor = files.open(path, 'r');
  try {
    return scanRecords(files, descriptor, FILE_HEADER_BYTES, () => {});
  } finally {
    files.close(descriptor);
  }
}

function scanRecords(files: Files, descriptor: number, fromOffset: number, visit: Visit): RecordScan {
  let buffer = new Uint8Array(CHUNK_BYTES);
  let filled = 0;
  let at = 0;
  let bufferOffset = fromOffset;
  let lastSequence = 0;
  for (;;) {
    const record = decodeRecord(buffer.subarray(0, filled), at);
    if (record === 'damaged') return { endOffset: bufferOffset + at, lastSequence, tail: 'damaged' };
    if (record !== 'incomplete') {
      const isEnough = visit(record, bufferOffset + at) === false;
      lastSequence = record.sequence;
      at += record.stride;
      if (isEnough) return { endOffset: bufferOffset + at, lastSequence, tail: 'torn' };
      continue;
    }
    buffer.copyWithin(0, at, filled);
    filled -= at;
    bufferOffset += at;
    at = 0;
    if (filled === buffer.byteLength) buffer = grown(buffer);
    const got = files.read(descriptor, buffer, filled, buffer.byteLength - filled, bufferOffset + filled);
    if (got === 0) return { endOffset: bufferOffset, lastSequence, tail: filled === 0 ? 'clean' : 'torn' };
    filled += got;
  }
}

function grown(buffer: Uint8Array): Uint8Array<ArrayBuffer> {
  const larger = new Uint8Array(Math.min(buffer.byteLength * 4, MAX_RECORD_BYTES + CHUNK_BYTES));
  larger.set(buffer);
  return larger;
}
