import {
  closeSync,
  existsSync,
  fdatasync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { systemCode } from '../bundles/disk.ts';

/**
 * What the journal asks of a disk, so that a test can stand in for one: fail any call, or cut the power between two of
 * them. Paths are given whole; failures are thrown with a system code.
 */
export interface Files {
  open(path: string, flags: 'r' | 'r+' | 'wx'): number;
  close(descriptor: number): void;
  read(descriptor: number, bytes: Uint8Array, at: number, length: number, position: number): number;
  /** May write less than it was asked to. */
  write(descriptor: number, bytes: Uint8Array, at: number, length: number, position: number): number;
  truncate(descriptor: number, length: number): void;
  /** Waits until the content and the length of the file are on the disk. */
  sync(descriptor: number): void;
  syncLater(descriptor: number, done: (error: Error | null) => void): void;
  rename(from: string, to: string): void;
  remove(path: string): void;
  /** Names in a folder; none when there is no folder. */
  list(folder: string): string[];
  /** Length of a file, null when there is none (any more). */
  bytes(path: string): number | null;
  makeFolder(folder: string): void;
  /** Waits until the names in the folder are on the disk. */
  syncFolder(folder: string): void;
}

/** Records are for the agent and its group, not for everyone on the machine. */
const FILE_MODE = 0o640;

export const SYSTEM_FILES: Files = {
  open: (path, flags) => openSync(path, flags, FILE_MODE),
  close: closeSync,
  read: readSync,
  write: writeSync,
  truncate: ftruncateSync,
  sync: fdatasyncSync,
  syncLater: fdatasync,
  rename: renameSync,
  remove: (path) => rmSync(path, { force: true }),
  list: (folder) => (existsSync(folder) ? readdirSync(folder) : []),
  bytes: (path) => statSync(path, { throwIfNoEntry: false })?.size ?? null,
  makeFolder: (folder) => void mkdirSync(folder, { recursive: true }),
  syncFolder: syncFolderOf,
};

/** Windows cannot open folders, and needs no such call. */
function syncFolderOf(folder: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(folder, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** The disk has no room, for this file or for this user; anything else is a file or a device that does not work. */
export function isDiskFull(thrown: unknown): boolean {
  const code = systemCode(thrown);
  return code === 'ENOSPC' || code === 'EDQUOT';
}

/** Timers, for a test to stand in. */
export interface Timers {
  set(callback: () => void, millis: number): unknown;
  clear(timer: unknown): void;
}

/** They keep no process alive: what they wait for is done by close(). */
export const SYSTEM_TIMERS: Timers = {
  set: (callback, millis) => setTimeout(callback, millis).unref(),
  clear: (timer) => clearTimeout(timer as NodeJS.Timeout),
};
