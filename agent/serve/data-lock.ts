import { linkSync, lstatSync, mkdirSync, readFileSync, readlinkSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SetpointError } from '../../protocol/errors.ts';

/**
 * One agent per data directory. The lock is a file that names its holder by process id and start time, so that a holder
 * that was killed, or whose id now belongs to another process, is told from one that runs. It is created by link(), which
 * is atomic: of two agents that start at once, one gets it.
 */
const LOCK_FILE = 'agent.lock';

interface Holder {
  readonly processId: number;
  /** Kernel ticks since boot at which the process started, null where the system does not say. */
  readonly started: string | null;
  readonly bootId: string | null;
}

export interface DataLock {
  release(): void;
}

/** @throws SetpointError not_ready when a running agent holds the directory */
export function lockDataDirectory(directory: string): DataLock {
  return lockDirectory(directory, LOCK_FILE);
}

/**
 * As lockDataDirectory, for what `file` in that directory stands for.
 * @throws SetpointError not_ready when a running process holds it
 */
export function lockDirectory(directory: string, file: string): DataLock {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, file);
  const own = describe(process.pid);
  const draft = `${path}.${process.pid}`;
  try {
    writeDraft(draft, own);
    // Twice: the second time after a dead holder's file was moved away.
    for (let attempt = 0; attempt < 2; attempt++) {
      if (tryLink(draft, path)) return { release: () => releaseLock(path, own) };
      const holder = readHolder(path);
      if (holder !== null && isRunning(holder)) throw held(directory, holder);
      takeAway(path, `${path}.stale.${process.pid}`, directory, holder);
    }
    throw held(directory, readHolder(path));
  } finally {
    rmSync(draft, { force: true });
    rmSync(`${path}.stale.${process.pid}`, { force: true });
  }
}

/**
 * An agent must start on a full disk, too: there the text becomes the target of a symbolic link, which takes no block as long
 * as it is short (59 bytes on ext4).
 */
function writeDraft(draft: string, own: Holder): void {
  try {
    writeFileSync(draft, JSON.stringify(own));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
    rmSync(draft, { force: true });
    symlinkSync([own.processId, own.started ?? '', own.bootId ?? ''].join(' '), draft);
  }
}

function tryLink(draft: string, path: string): boolean {
  try {
    linkSync(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/**
 * Moves a dead holder's file away. rename() moves it for one of several contenders only; one that comes later may move the
 * lock that another has just taken, and puts it back.
 */
function takeAway(path: string, aside: string, directory: string, stale: Holder | null): void {
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return;
  }
  const moved = readHolder(aside);
  if (moved === null || (moved.processId === stale?.processId && moved.started === stale.started)) return;
  tryLink(aside, path);
  throw held(directory, moved);
}

function releaseLock(path: string, own: Holder): void {
  const holder = readHolder(path);
  if (holder?.processId === own.processId && holder.started === own.started) rmSync(path, { force: true });
}

function readHolder(path: string): Holder | null {
  try {
    if (!lstatSync(path).isSymbolicLink()) return JSON.parse(readFileSync(path, 'utf8')) as Holder;
    const [processId, started, bootId] = readlinkSync(path).split(' ');
    return { processId: Number(processId), started: started || null, bootId: bootId || null };
  } catch {
    // Gone, or not written by an agent: nobody that could be running holds it.
    return null;
  }
}

function isRunning(holder: Holder): boolean {
  try {
    process.kill(holder.processId, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
  }
  const now = describe(holder.processId);
  return now.started === holder.started && now.bootId === holder.bootId;
}

function describe(processId: number): Holder {
  return { processId, started: startTicks(processId), bootId: readSystem('/proc/sys/kernel/random/boot_id')?.trim() ?? null };
}

/** Field 22 of /proc/<pid>/stat, counted after the command name, which may hold spaces and parentheses. */
function startTicks(processId: number): string | null {
  const stat = readSystem(`/proc/${processId}/stat`);
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
}

function readSystem(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    // Systems without /proc tell no start time; the process id alone decides there.
    return null;
  }
}

function held(directory: string, holder: Holder | null): SetpointError {
  const who = holder === null ? 'another agent' : `process ${holder.processId}`;
  return new SetpointError('not_ready', `Cannot use data directory ${directory}: ${who} is using it`, {
    remedy: 'stop that agent, or give this one a dataDir of its own',
  });
}
