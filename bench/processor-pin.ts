import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { familyOf } from './processor-time.ts';

/**
 * One core for the server, another for the client. Left to itself, the scheduler now puts both on one core (a reply costs
 * a switch) and now on two (it costs waking a core, several times as much in a virtual machine). It is not the default,
 * because it makes the floor slower and so every ratio to it smaller; README.md has both series.
 */
export const CORES = { server: 0, client: 1 } as const;

/** Whether this machine can pin: two cores or more, and taskset of util-linux. */
export function canPin(): boolean {
  return process.platform === 'linux' && availableParallelism() > 1 && spawnSync('taskset', ['--version']).status === 0;
}

/** Puts all threads of the process and of all it started on one core; what they start later inherits it. */
export function pin(pid: number, core: number): void {
  for (const one of familyOf(pid)) spawnSync('taskset', ['-a', '-p', '-c', String(core), String(one)]);
}
