import { appendFileSync, closeSync, existsSync, fstatSync, fsyncSync, mkdirSync, openSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { messageOf } from '../../protocol/errors.ts';
import { syncDirectory } from './disk-space.ts';
import type { StoreHead, StoreWriter } from './writer.ts';

/** A checkpoint is due after this many entries, however short the time. */
const CHECKPOINT_ENTRIES = 10_000;

const NEW_LINE = 0x0a;

/** Where checkpoints stand a second time, so that they outlive the database. */
export function checkpointFile(dataDirectory: string): string {
  return join(dataDirectory, 'audit', 'checkpoints.jsonl');
}

export interface CheckpointKeeperOptions {
  readonly dataDirectory: string;
  readonly intervalMillis: number;
  readonly writer: Pick<StoreWriter, 'putCheckpoint'>;
  /** One line of JSON that vouches for the head. */
  readonly sign: (head: StoreHead, timeMillis: number) => Uint8Array;
  readonly onFailure: (message: string) => void;
}

/** Has the head signed now and then, and keeps the signed line in two places. */
export class CheckpointKeeper {
  readonly #options: CheckpointKeeperOptions;
  #madeIndex: number;
  #madeMillis: number;
  #hasFailed = false;

  /** @param made index of the last entry that is known to be signed */
  constructor(options: CheckpointKeeperOptions, made: { readonly index: number; readonly timeMillis: number }) {
    this.#options = options;
    this.#madeIndex = made.index;
    this.#madeMillis = made.timeMillis;
  }

  /** Rejects when the commit fails. A key or a file that cannot be used is told of once: the chain itself goes on. */
  async keep(head: StoreHead, nowMillis: number, isStopping: boolean): Promise<void> {
    const entries = head.index - this.#madeIndex;
    // A clock that was set back must not put checkpoints off for as long.
    const hasWaited = Math.abs(nowMillis - this.#madeMillis) >= this.#options.intervalMillis;
    if (entries <= 0 || !(isStopping || hasWaited || entries >= CHECKPOINT_ENTRIES)) return;
    this.#madeIndex = head.index;
    this.#madeMillis = nowMillis;
    let line: Uint8Array;
    try {
      line = this.#options.sign(head, nowMillis);
      appendLine(checkpointFile(this.#options.dataDirectory), line);
      this.#hasFailed = false;
    } catch (error) {
      if (!this.#hasFailed) this.#options.onFailure(`Cannot make a checkpoint at entry ${head.index}: ${messageOf(error)}`);
      this.#hasFailed = true;
      return;
    }
    await this.#options.writer.putCheckpoint(head.index, line);
  }
}

/** A line that a crash cut short stays as it is, on a line of its own. */
function appendLine(path: string, line: Uint8Array): void {
  const isNew = !existsSync(path);
  if (isNew) mkdirSync(dirname(path), { recursive: true });
  const last = isNew ? undefined : readTail(path, 1)[0];
  const start = last === undefined || last === NEW_LINE ? '' : '\n';
  const end = line.at(-1) === NEW_LINE ? '' : '\n';
  const descriptor = openSync(path, 'a', 0o640);
  try {
    appendFileSync(descriptor, Buffer.concat([Buffer.from(start), line, Buffer.from(end)]));
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  if (isNew) syncDirectory(dirname(path));
}

function readTail(path: string, maxBytes: number): Uint8Array {
  const descriptor = openSync(path, 'r');
  try {
    const length = Math.min(fstatSync(descriptor).size, maxBytes);
    const bytes = new Uint8Array(length);
    const got = readSync(descriptor, bytes, 0, length, fstatSync(descriptor).size - length);
    return bytes.subarray(0, got);
  } finally {
    closeSync(descriptor);
  }
}

/** A checkpoint is below a kilobyte; a few at the end of the file may be cut short. */
const TAIL_BYTES = 64 * 1024;

/** The lines at the end of the file, the newest first; the last one given may lack its beginning. */
export function lastCheckpointLines(dataDirectory: string): Uint8Array[] {
  const path = checkpointFile(dataDirectory);
  if (!existsSync(path)) return [];
  const text = Buffer.from(readTail(path, TAIL_BYTES)).toString('latin1');
  const lines = text.split('\n').filter((line) => line !== '');
  return lines.toReversed().map((line) => Buffer.from(line, 'latin1'));
}
