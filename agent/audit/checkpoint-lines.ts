import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { systemCode } from '../bundles/disk.ts';

const CHUNK_BYTES = 64 * 1024;
const LINE_FEED = 0x0a;
/** A longer line is no checkpoint: its start says as much as the whole. */
const MAX_LINE_BYTES = 64 * 1024;

export interface CheckpointLine {
  /** Counted from 1. */
  readonly number: number;
  readonly bytes: Uint8Array;
  /** False at the end of the file: the line may still be on its way. */
  readonly isWhole: boolean;
}

/** The lines of a file as long as it is now, without their line feeds; none when there is no file. Empty lines are left out. */
export function* linesOf(path: string): Generator<CheckpointLine> {
  const descriptor = openOrNull(path);
  if (descriptor === null) return;
  try {
    const { size } = fstatSync(descriptor);
    const chunk = new Uint8Array(CHUNK_BYTES);
    let rest: Uint8Array = new Uint8Array(0);
    let number = 0;
    for (let offset = 0; offset < size;) {
      const got = readSync(descriptor, chunk, 0, Math.min(CHUNK_BYTES, size - offset), offset);
      if (got === 0) break;
      offset += got;
      const bytes = joined(rest, chunk.subarray(0, got));
      let start = 0;
      for (let end = bytes.indexOf(LINE_FEED); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
        number += 1;
        if (end > start) yield { number, bytes: bytes.slice(start, end), isWhole: true };
        start = end + 1;
      }
      rest = bytes.slice(start, start + MAX_LINE_BYTES);
    }
    if (rest.byteLength > 0) yield { number: number + 1, bytes: rest, isWhole: false };
  } finally {
    closeSync(descriptor);
  }
}

function openOrNull(path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null;
    throw new SetpointError('journal_failed', `Cannot read the checkpoints in ${path}: ${messageOf(cause)}`, {
      remedy: 'check the permissions of the file',
      cause,
    });
  }
}

function joined(first: Uint8Array, second: Uint8Array): Uint8Array {
  const whole = new Uint8Array(first.byteLength + second.byteLength);
  whole.set(first);
  whole.set(second, first.byteLength);
  return whole;
}
