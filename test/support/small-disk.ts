import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished, type TestContext } from 'vitest';
import { waitFor } from './agent.ts';

export const MEBIBYTE = 1024 * 1024;
const BLOCK_BYTES = 4096;

/** Says when the file system is there, then keeps it for as long as its standard input is open. */
const HOLDER_SCRIPT = 'mount -t tmpfs -o "$1" tmpfs "$2" && echo mounted && cat';

/** A file system of its own (tmpfs), so small that it can be filled; a filler file takes what the test wants gone. */
export class SmallDisk {
  readonly directory: string;
  readonly #filler: string;

  private constructor(directory: string) {
    this.directory = directory;
    this.#filler = join(directory, 'filler');
  }

  /**
   * A new file system, gone when the test ends. As root it is mounted; else it lives in a mount namespace of its own and is
   * reached through /proc. Where neither is allowed, the test is skipped and says why.
   */
  static async create(mebibytes: number, skip: TestContext['skip']): Promise<SmallDisk> {
    const mountPoint = mkdtempSync(join(tmpdir(), 'setpoint-disk-'));
    onTestFinished(() => rmSync(mountPoint, { recursive: true, force: true }));
    const options = `size=${mebibytes}m,mode=700`;
    const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', options, 'tmpfs', mountPoint], { encoding: 'utf8' });
    if (mounted.status === 0) {
      onTestFinished(async () => await unmount(mountPoint));
      return new SmallDisk(mountPoint);
    }
    const holder = await holdMount(options, mountPoint);
    if (typeof holder !== 'string') return new SmallDisk(`/proc/${holder.pid}/root${mountPoint}`);
    return skip(`no small disk: mount: ${mounted.stderr?.trim() ?? mounted.error?.message}; unshare: ${holder}`);
  }

  /** Bytes that can still be written. */
  get freeBytes(): number {
    const { bavail, bsize } = statfsSync(this.directory);
    return bavail * bsize;
  }

  /** Lets the filler grow until so much is left. Other writers may take some of that meanwhile. */
  fillTo(leftBytes: number): void {
    const descriptor = openSync(this.#filler, 'a');
    try {
      const block = new Uint8Array(BLOCK_BYTES);
      while (this.freeBytes - leftBytes >= BLOCK_BYTES) writeSync(descriptor, block);
    } catch (error) {
      // Somebody else took the last block: that is as full as it gets.
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    } finally {
      closeSync(descriptor);
    }
  }

  /** Deletes the filler, as somebody who makes room: without the agent's help. */
  free(): void {
    rmSync(this.#filler, { force: true });
  }
}

/** The process that keeps the mount namespace, or why there is none. */
async function holdMount(options: string, mountPoint: string): Promise<ChildProcess | string> {
  const holder = spawn('unshare', ['-rm', 'sh', '-c', HOLDER_SCRIPT, 'sh', options, mountPoint], { stdio: 'pipe' });
  const ended = new Promise<void>((resolve) => {
    holder.once('close', () => resolve());
    holder.once('error', () => resolve());
  });
  let complaint = '';
  holder.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  holder.once('error', (error) => {
    complaint += error.message;
  });
  const mounted = new Promise<boolean>((resolve) => {
    holder.stdout.once('data', () => resolve(true));
    void ended.then(() => resolve(false));
  });
  if (!(await mounted)) return complaint.trim();
  onTestFinished(async () => {
    holder.stdin.end();
    await ended;
  });
  return holder;
}

/** Processes of a killed agent may still be ending. */
async function unmount(mountPoint: string): Promise<void> {
  let complaint = '';
  const attempt = (): boolean => {
    const { status, stderr } = spawnSync('umount', [mountPoint], { encoding: 'utf8' });
    complaint = stderr;
    return status === 0;
  };
  try {
    await waitFor(attempt, 5000, () => complaint);
  } catch (error) {
    // Whatever still holds it must not leave it to the machine.
    spawnSync('umount', ['--lazy', mountPoint]);
    throw error;
  }
}
