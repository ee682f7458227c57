import { readdirSync, readFileSync } from 'node:fs';

/** Processor time of other processes, from Linux's /proc. Elsewhere there is none and the tables say so. */

/** Ticks of /proc/<pid>/stat are USER_HZ, which is 100 on every Linux architecture Node runs on. */
const MICROS_PER_TICK = 10_000;

/** User and system time of all threads of the processes so far, microseconds; null without /proc. A gone process is 0. */
export function processorMicros(pids: readonly number[]): number | null {
  if (process.platform !== 'linux') return null;
  return pids.reduce((sum, pid) => sum + (ticksOf(pid) ?? 0) * MICROS_PER_TICK, 0);
}

function ticksOf(pid: number): number | null {
  const stat = readText(`/proc/${pid}/stat`);
  if (stat === null) return null;
  // The command name may hold blanks and brackets; the numbers start after its last ')': utime is field 14, stime 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
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
