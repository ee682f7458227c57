import { dirname } from 'node:path';
import type { Files, Timers } from '../../../agent/journal/files.ts';

/** A disk in memory that remembers every operation, so that the power can be cut after any of them. */

interface Inode {
  readonly id: number;
  bytes: Uint8Array;
  length: number;
}

type Operation =
  | { readonly type: 'write'; readonly inode: number; readonly position: number; readonly bytes: Uint8Array; isLost: boolean }
  | { readonly type: 'truncate'; readonly inode: number; readonly length: number; isLost: boolean }
  | { readonly type: 'synced'; readonly inode: number; readonly upTo: number }
  | { readonly type: 'name'; readonly folder: string; readonly path: string; readonly inode: number | null }
  | { readonly type: 'rename'; readonly folder: string; readonly from: string; readonly path: string; readonly inode: number }
  | { readonly type: 'folder synced'; readonly folder: string };

export type Fault = (action: keyof Files, path: string) => Error | null;

/** What becomes of what was not synced. */
export const CUTS = ['none', 'all', 'some', 'torn', 'prefix', 'last'] as const;
export type Cut = (typeof CUTS)[number];

/** Content of a disk, by path. */
export type Content = ReadonlyMap<string, Uint8Array>;

export interface DiskOptions {
  /** Left out on purpose, to see that the tests notice. */
  readonly ignoresSync?: (path: string) => boolean;
  readonly ignoresFolderSync?: boolean;
}

export function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: simulated`), { code });
}

const SECTOR_BYTES = 512;

export class SimulatedDisk implements Files {
  readonly #options: DiskOptions;
  readonly #initial: Content;
  readonly #names = new Map<string, Inode>();
  readonly #inodes = new Map<number, Inode>();
  readonly #open = new Map<number, { readonly inode: Inode; readonly path: string }>();
  readonly #operations: Operation[] = [];
  readonly #syncs: {
    readonly begun: number;
    readonly inode: Inode;
    readonly path: string;
    readonly done: (error: Error | null) => void;
  }[] = [];
  #nextInode = 1;
  #nextDescriptor = 100;
  /** Asked before every operation. */
  fault: Fault = () => null;
  /** Bytes that may still be written beyond the end of files. */
  freeBytes = Infinity;
  /** Told of every write, with the number of its operation. */
  onWrite: (path: string, bytes: Uint8Array, position: number, operation: number) => void = () => {};

  constructor(initial: Content = new Map(), options: DiskOptions = {}) {
    this.#initial = initial;
    this.#options = options;
    for (const [path, bytes] of initial) {
      const inode = this.#inode();
      inode.bytes = bytes.slice();
      inode.length = bytes.byteLength;
      this.#names.set(path, inode);
    }
  }

  /** How many operations there were. */
  get operations(): number {
    return this.#operations.length;
  }

  get syncsInFlight(): number {
    return this.#syncs.length;
  }

  /** Paths that are open, once for each descriptor. */
  get openPaths(): string[] {
    return [...this.#open.values()].map(({ path }) => path);
  }

  open(path: string, flags: 'r' | 'r+' | 'wx'): number {
    this.#check('open', path);
    let inode = this.#names.get(path);
    if (flags === 'wx') {
      if (inode !== undefined) throw systemError('EEXIST');
      inode = this.#inode();
      this.#names.set(path, inode);
      this.#operations.push({ type: 'name', folder: dirname(path), path, inode: inode.id });
    }
    if (inode === undefined) throw systemError('ENOENT');
    this.#open.set(++this.#nextDescriptor, { inode, path });
    return this.#nextDescriptor;
  }

  close(descriptor: number): void {
    this.#of(descriptor);
    this.#open.delete(descriptor);
  }

  read(descriptor: number, bytes: Uint8Array, at: number, length: number, position: number): number {
    const { inode, path } = this.#of(descriptor);
    this.#check('read', path);
    const part = inode.bytes.subarray(Math.min(position, inode.length), Math.min(position + length, inode.length));
    bytes.set(part, at);
    return part.byteLength;
  }

  write(descriptor: number, bytes: Uint8Array, at: number, length: number, position: number): number {
    const { inode, path } = this.#of(descriptor);
    this.#check('write', path);
    const growth = Math.max(position + length - inode.length, 0);
    const count = growth <= this.freeBytes ? length : length - (growth - this.freeBytes);
    if (count <= 0) throw systemError('ENOSPC');
    this.freeBytes -= Math.min(growth, this.freeBytes);
    const copy = bytes.slice(at, at + count);
    apply(inode, position, copy);
    this.onWrite(path, copy, position, this.#operations.length);
    this.#operations.push({ type: 'write', inode: inode.id, position, bytes: copy, isLost: false });
    return count;
  }

  truncate(descriptor: number, length: number): void {
    const { inode, path } = this.#of(descriptor);
    this.#check('truncate', path);
    this.freeBytes += Math.max(inode.length - length, 0);
    truncateTo(inode, length);
    this.#operations.push({ type: 'truncate', inode: inode.id, length, isLost: false });
  }

  sync(descriptor: number): void {
    const { inode, path } = this.#of(descriptor);
    this.#finishSync(this.#operations.length, inode, path, 'sync');
  }

  syncLater(descriptor: number, done: (error: Error | null) => void): void {
    const { inode, path } = this.#of(descriptor);
    this.#syncs.push({ begun: this.#operations.length, inode, path, done });
  }

  /** Lets the oldest background sync end. */
  completeSync(): void {
    const sync = this.#syncs.shift();
    if (sync === undefined) return;
    let failure: Error | null = null;
    try {
      this.#finishSync(sync.begun, sync.inode, sync.path, 'syncLater');
    } catch (error) {
      failure = error as Error;
    }
    sync.done(failure);
  }

  /** A sync that fails has dropped what was not on the disk: no later one puts it there. */
  #finishSync(upTo: number, inode: Inode, path: string, action: 'sync' | 'syncLater'): void {
    try {
      this.#check(action, path);
    } catch (error) {
      const safe = Math.max(0, ...this.#operations.map((one) => (one.type === 'synced' && one.inode === inode.id ? one.upTo : 0)));
      for (const operation of this.#operations.slice(safe, upTo)) {
        if ((operation.type === 'write' || operation.type === 'truncate') && operation.inode === inode.id) operation.isLost = true;
      }
      throw error;
    }
    if (this.#options.ignoresSync?.(path) !== true) this.#operations.push({ type: 'synced', inode: inode.id, upTo });
  }

  rename(from: string, to: string): void {
    this.#check('rename', from);
    const inode = this.#names.get(from);
    if (inode === undefined) throw systemError('ENOENT');
    this.#names.delete(from);
    this.#names.set(to, inode);
    this.#operations.push({ type: 'rename', folder: dirname(to), from, path: to, inode: inode.id });
  }

  remove(path: string): void {
    this.#check('remove', path);
    const inode = this.#names.get(path);
    if (inode === undefined) return;
    this.freeBytes += inode.length;
    this.#names.delete(path);
    this.#operations.push({ type: 'name', folder: dirname(path), path, inode: null });
  }

  list(folder: string): string[] {
    return [...this.#names.keys()].filter((path) => dirname(path) === folder).map((path) => path.slice(folder.length + 1));
  }

  bytes(path: string): number | null {
    return this.#names.get(path)?.length ?? null;
  }

  makeFolder(): void {
    // Every folder is there.
  }

  syncFolder(folder: string): void {
    this.#check('syncFolder', folder);
    if (this.#options.ignoresFolderSync !== true) this.#operations.push({ type: 'folder synced', folder });
  }

  /** What a process that is killed here leaves behind. */
  content(): Content {
    return new Map([...this.#names].map(([path, { bytes, length }]) => [path, bytes.slice(0, length)]));
  }

  /**
   * Whether the write of this number is on the disk for sure, when the power is cut before operation `end`, and nothing before
   * it in its file was dropped by a sync that failed: behind such a hole a file cannot be read.
   */
  isDurable(write: number, end: number): boolean {
    const { inode } = this.#operations[write] as Extract<Operation, { readonly type: 'write' }>;
    const isHole = this.#operations.slice(0, write + 1).some((one) => one.type === 'write' && one.inode === inode && one.isLost);
    return !isHole && this.#operations.slice(0, end).some((one) => one.type === 'synced' && one.inode === inode && one.upTo > write);
  }

  /** What is on the disk after the power was cut before operation `end`. `random` gives numbers in [0, 1). */
  cut(end: number, mode: Cut, random: () => number): Content {
    const operations = this.#operations.slice(0, end);
    const syncedTo = new Map<number, number>();
    const folderSyncedAt = new Map<string, number>();
    operations.forEach((operation, at) => {
      if (operation.type === 'synced') syncedTo.set(operation.inode, Math.max(syncedTo.get(operation.inode) ?? 0, operation.upTo));
      if (operation.type === 'folder synced') folderSyncedAt.set(operation.folder, at);
    });
    const isSafe = (operation: Operation, at: number): boolean => {
      if (operation.type === 'write' || operation.type === 'truncate')
        return !operation.isLost && at < (syncedTo.get(operation.inode) ?? 0);
      return 'folder' in operation && at < (folderSyncedAt.get(operation.folder) ?? 0);
    };
    const open = operations.flatMap((operation, at) =>
      operation.type === 'synced' || operation.type === 'folder synced' || isSafe(operation, at) ? [] : [at],
    );
    const chosen = new Set(choose(open, mode, random));
    const disk = new SimulatedDisk(this.#initial);
    operations.forEach((operation, at) => {
      if (chosen.has(at)) disk.#redo(operation, mode === 'torn', random);
      else if (isSafe(operation, at)) disk.#redo(operation, false, random);
    });
    return disk.content();
  }

  #redo(operation: Operation, isTorn: boolean, random: () => number): void {
    if (operation.type === 'write') {
      const inode = this.#inodeOf(operation.inode);
      if (!isTorn) apply(inode, operation.position, operation.bytes);
      else for (const [position, part] of sectors(operation)) if (random() < 0.5) apply(inode, position, part);
    } else if (operation.type === 'truncate') {
      truncateTo(this.#inodeOf(operation.inode), operation.length);
    } else if (operation.type === 'rename') {
      this.#names.delete(operation.from);
      this.#names.set(operation.path, this.#inodeOf(operation.inode));
    } else if (operation.type === 'name') {
      if (operation.inode === null) this.#names.delete(operation.path);
      else this.#names.set(operation.path, this.#inodeOf(operation.inode));
    }
  }

  #inodeOf(id: number): Inode {
    while (this.#nextInode <= id) this.#inode();
    return this.#inodes.get(id)!;
  }

  #inode(): Inode {
    const inode = { id: this.#nextInode++, bytes: new Uint8Array(0), length: 0 };
    this.#inodes.set(inode.id, inode);
    return inode;
  }

  #of(descriptor: number): { readonly inode: Inode; readonly path: string } {
    const found = this.#open.get(descriptor);
    if (found === undefined) throw systemError('EBADF');
    return found;
  }

  #check(action: keyof Files, path: string): void {
    const error = this.fault(action, path);
    if (error !== null) throw error;
  }
}

function choose(open: readonly number[], mode: Cut, random: () => number): readonly number[] {
  if (mode === 'none') return [];
  if (mode === 'all') return open;
  if (mode === 'last') return open.slice(-1);
  if (mode === 'prefix') return open.slice(0, Math.floor(random() * (open.length + 1)));
  return open.filter(() => random() < 0.5);
}

/** A write in pieces that end where a sector of the disk ends. */
function* sectors({ position, bytes }: { readonly position: number; readonly bytes: Uint8Array }): Generator<[number, Uint8Array]> {
  for (let at = 0; at < bytes.byteLength;) {
    const end = Math.min(at + SECTOR_BYTES - ((position + at) % SECTOR_BYTES), bytes.byteLength);
    yield [position + at, bytes.subarray(at, end)];
    at = end;
  }
}

function apply(inode: Inode, position: number, bytes: Uint8Array): void {
  const end = position + bytes.byteLength;
  if (end > inode.bytes.byteLength) {
    const larger = new Uint8Array(Math.max(end, inode.bytes.byteLength * 2));
    larger.set(inode.bytes.subarray(0, inode.length));
    inode.bytes = larger;
  }
  inode.bytes.set(bytes, position);
  inode.length = Math.max(inode.length, end);
}

function truncateTo(inode: Inode, length: number): void {
  inode.bytes.fill(0, Math.min(length, inode.length));
  inode.length = Math.min(length, inode.length);
}

/** Timers that run when they are told to. */
export class SimulatedTimers implements Timers {
  readonly #timers = new Map<number, { readonly callback: () => void; readonly millis: number }>();
  #next = 1;

  set(callback: () => void, millis: number): number {
    this.#timers.set(this.#next, { callback, millis });
    return this.#next++;
  }

  clear(timer: unknown): void {
    this.#timers.delete(timer as number);
  }

  get waiting(): number[] {
    return [...this.#timers.values()].map(({ millis }) => millis);
  }

  /** Runs every timer of at most this long that waits now. Returns whether there was one. */
  run(maxMillis = Infinity): boolean {
    const due = [...this.#timers].filter(([, { millis }]) => millis <= maxMillis);
    for (const [timer, { callback }] of due) if (this.#timers.delete(timer)) callback();
    return due.length > 0;
  }
}
