import { chmodSync, existsSync, fsyncSync, ftruncateSync, linkSync, mkdirSync, openSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '../bundles/disk.ts';
import { type JournalScan, type RecordScan, scanJournal, scanWithoutHeader } from './reader.ts';
import { encodeFileHeader, FILE_HEADER_BYTES, RECORD_HEADER_BYTES } from './record.ts';

export interface StreamFile {
  readonly directory: string;
  readonly stream: number;
  /** Random 64 bits that name a new journal. */
  readonly newEpoch: () => bigint;
}

export interface OpenJournal {
  readonly descriptor: number;
  /** Where the next record goes. */
  readonly offset: number;
  readonly nextSequence: number;
}

/** The file of a stream, by its number. */
export function journalPath(directory: string, stream: number): string {
  return join(directory, `stream-${stream}.journal`);
}

/**
 * Opens a stream's file behind its last whole record, cutting a torn tail (a write that a crash interrupted was never
 * answered). A damaged file keeps its bytes under a new name, and counting goes on above what may be in it.
 */
export function openJournal(file: StreamFile): OpenJournal {
  mkdirSync(file.directory, { recursive: true });
  const path = journalPath(file.directory, file.stream);
  const scan = existsSync(path) ? scanJournal(path, 0, () => {}) : null;
  const isUsable = scan !== null && scan.tail !== 'damaged' && scan.stream === file.stream;
  const nextSequence = isUsable ? firstAfter(scan) : beginAnew(file, path, scan);
  const descriptor = openSync(path, 'r+');
  const offset = isUsable ? scan.endOffset : FILE_HEADER_BYTES;
  ftruncateSync(descriptor, offset);
  fsyncSync(descriptor);
  return { descriptor, offset, nextSequence };
}

function firstAfter(scan: JournalScan): number {
  return Math.max(scan.firstSequence, scan.lastSequence + 1);
}

/** Puts an empty journal in the place of a missing or damaged one and returns its first number. */
function beginAnew(file: StreamFile, path: string, scan: JournalScan | null): number {
  const epoch = file.newEpoch();
  let firstSequence = 1;
  if (existsSync(path)) {
    const found: RecordScan = scan ?? scanWithoutHeader(path);
    // The bytes behind the damage may hold this many records.
    const hiddenRecords = Math.ceil((statSync(path).size - found.endOffset) / RECORD_HEADER_BYTES);
    firstSequence = (scan === null ? found.lastSequence + 1 : firstAfter(scan)) + Math.max(hiddenRecords, 0);
    // A second name first, then one atomic step: at no time is there no journal to take the numbers from.
    linkSync(path, `${path}.damaged-${epoch.toString(16)}`);
  }
  replaceFile(path, encodeFileHeader({ stream: file.stream, epoch, firstSequence }));
  // Decisions are for the agent and its group, not for everyone on the machine.
  chmodSync(path, 0o640);
  return firstSequence;
}
