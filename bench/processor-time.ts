import { readdirSync, readFileSync } from 'node:fs';

/** Processor time and memory of other processes, from Linux's /proc. Elsewhere there is none and the tables say so. */

/** Ticks of /proc/<pid>/stat are USER_HZ, which is 100 on every Linux architecture Node runs on. */
const MICROS_PER_TICK = 10_000;

/** User and system time of all threads of the processes so far, microseconds; null without /proc. A gone process is 0. */
export function processorMicros(pids: readonly number[]): number | null {
  if (process.platform !== 'linux') return null;
  return pids.reduce((sum, pid) => sum + (ticksOf(pid) ?? 0) * MICROS_PER_TICK, 0);
}

function ticksOf(pid: number): number | null {
  const fields = statOf(pid);
  return fields === null ? null : Number(fields[11]) + Number(fields[12]);
}

/** The command name may hold blanks and brackets; the numbers start after its last ')': utime is field 14, stime 15. */
function statOf(pid: number): string[] | null {
  const stat = readText(`/proc/${pid}/stat`);
  return stat === null ? null : stat.slice(stat.lastIndexOf(')') + 2).split(' ');
}

/** A number is given again once its process is gone; with the time it started (field 22) it names one process for ever. */
export interface ProcessIdentity {
  readonly pid: number;
  readonly startTicks: string;
}

/** Null when there is no such process, or no /proc. A process that ended and was not collected (state Z) is gone. */
export function identityOf(pid: number): ProcessIdentity | null {
  const fields = statOf(pid);
  const startTicks = fields?.[19];
  return startTicks === undefined || fields?.[0] === 'Z' ? null : { pid, startTicks };
}

export function isAlive({ pid, startTicks }: ProcessIdentity): boolean {
  return identityOf(pid)?.startTicks === startTicks;
}

/** Resident memory of a process, bytes. */
export interface ProcessMemory {
  /** Heap, stacks, buffers. */
  readonly ownBytes: number;
  /** Pages of mapped files, LMDB's among them: they are the operating system's cache, and it takes them back at need. */
  readonly mappedBytes: number;
}

/** Null without /proc or without the process. */
export function memoryOf(pid: number): ProcessMemory | null {
  const text = readText(`/proc/${pid}/status`);
  return text === null ? null : parseMemory(text);
}

/** The text of /proc/<pid>/status, which has kibibytes. */
export function parseMemory(text: string): ProcessMemory | null {
  const kibibytes = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1] ?? Number.NaN);
  const ownBytes = kibibytes('RssAnon') * 1024;
  const mappedBytes = (kibibytes('RssFile') + kibibytes('RssShmem')) * 1024;
  return Number.isNaN(ownBytes + mappedBytes) ? null : { ownBytes, mappedBytes };
}

/** The process and all that it started, and they in turn. */
export function familyOf(pid: number): number[] {
  const tasks = readNames(`/proc/${pid}/task`);
  const children = tasks.flatMap((task) => (readText(`/proc/${pid}/task/${task}/children`) ?? '').split(' ').filter((one) => one !== ''));
  return [pid, ...children.flatMap((child) => familyOf(Number(child)))];
}

/** Null when the process went away in between, or the platform has no such file. */
function readText(file: string): string | null {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return null;
  }
}

function readNames(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
