import { workerData } from 'node:worker_threads';

/**
 * A thread of the store process that ends it when its agent is gone and it does not end by itself: a main thread that hangs
 * in native code (LMDB on a device that does not answer) fires no timer of its own.
 */
export interface OrphanWatch {
  /** The agent. */
  readonly parentId: number;
  /** What a process that works needs to finish its commit. */
  readonly graceMillis: number;
}

const LOOK_MILLIS = 500;

const { parentId, graceMillis } = workerData as OrphanWatch;
let orphanedMillis = 0;
setInterval(() => {
  // The parent of a process whose parent has ended is another one.
  orphanedMillis = process.ppid === parentId ? 0 : orphanedMillis + LOOK_MILLIS;
  if (orphanedMillis > graceMillis) process.kill(process.pid, 'SIGKILL');
}, LOOK_MILLIS);
