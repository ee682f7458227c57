import { randomBytes } from 'node:crypto';
import { closeSync, fsyncSync, openSync, rmSync, statfsSync, statSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';

/** Free bytes of the file system that holds `path`, as an unprivileged process may use them. */
export function freeBytesOf(path: string): number {
  const { bavail, bsize } = statfsSync(path);
  return bavail * bsize;
}

/** A name is durable once its folder is. Windows cannot open folders, and needs no such call. */
export function syncDirectory(path: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

export interface SpaceLimits {
  readonly minFreeBytes: number;
  readonly ballastBytes: number;
}

/**
 * Decides whether the store may write, and what becomes of the ballast. Pure. When space runs out, the ballast goes to the
 * journals: the store goes on only when there is room for it beside the ballast again.
 */
export class SpaceWatch {
  readonly #limits: SpaceLimits;
  #isLow: boolean;
  /** A large record waits for more than the watermark. */
  #neededBytes = 0;

  constructor(limits: SpaceLimits, isLow: boolean) {
    this.#limits = limits;
    this.#isLow = isLow;
  }

  get isLow(): boolean {
    return this.#isLow;
  }

  /** Takes a look. 'make' needs twice the watermark beside the ballast, so that making it does not bring the shortage on. */
  look(freeBytes: number, hasBallast: boolean): 'keep' | 'make' | 'remove' {
    const { minFreeBytes, ballastBytes } = this.#limits;
    const enough = this.#isLow && !hasBallast ? minFreeBytes + ballastBytes : minFreeBytes;
    this.#isLow = freeBytes < Math.max(enough, this.#neededBytes);
    if (!this.#isLow) this.#neededBytes = 0;
    if (this.#isLow) return hasBallast ? 'remove' : 'keep';
    return !hasBallast && ballastBytes > 0 && freeBytes >= 2 * minFreeBytes + ballastBytes ? 'make' : 'keep';
  }

  /** LMDB copies pages on write: a batch takes up to twice its bytes before the commit frees the old ones. False: it waits. */
  hasRoomFor(freeBytes: number, batchBytes: number): boolean {
    this.#neededBytes = Math.max(this.#limits.minFreeBytes, 2 * batchBytes);
    return freeBytes >= this.#neededBytes;
  }
}

const BALLAST_FILE = 'ballast';
const BLOCK_BYTES = 1024 * 1024;

/** A file that takes up room until somebody needs it more. */
export class Ballast {
  readonly #path: string;
  readonly #bytes: number;

  constructor(storeDirectory: string, bytes: number) {
    this.#path = join(storeDirectory, BALLAST_FILE);
    this.#bytes = bytes;
  }

  get exists(): boolean {
    return statSync(this.#path, { throwIfNoEntry: false }) !== undefined;
  }

  /** Random bytes: a file system that compresses would give zeros no room. A part of it is as good as none, and removed. */
  async make(): Promise<void> {
    const block = randomBytes(BLOCK_BYTES);
    try {
      const file = await open(this.#path, 'w', 0o640);
      try {
        for (let left = this.#bytes; left > 0; left -= BLOCK_BYTES) await file.write(block, 0, Math.min(left, BLOCK_BYTES));
        await file.sync();
      } finally {
        await file.close();
      }
    } catch (error) {
      this.remove();
      throw error;
    }
  }

  remove(): void {
    rmSync(this.#path, { force: true });
  }
}
