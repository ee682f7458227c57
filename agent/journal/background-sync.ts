import type { SetpointError } from '../../protocol/errors.ts';
import type { Timers } from './files.ts';

/** Loss window of a power cut, milliseconds. `kill -9` loses nothing whatever this is. */
const SYNC_INTERVAL_MILLIS = 10;

export type SyncWaiter = (error: SetpointError | null) => void;

export interface BackgroundSyncOptions {
  readonly timers: Timers;
  /** Syncs everything written before it is called. */
  readonly sync: (done: SyncWaiter) => void;
  /** Whether there is something to sync. */
  readonly isNeeded: () => boolean;
}

/** When syncs run: one at a time, soon after a write, and at once when somebody waits. One serves all who waited before it. */
export class BackgroundSync {
  readonly #options: BackgroundSyncOptions;
  #timer: unknown = null;
  #isRunning = false;
  #isClosed = false;
  #waiting: SyncWaiter[] = [];
  /** Who waits for the sync that runs. */
  #served: SyncWaiter[] = [];

  constructor(options: BackgroundSyncOptions) {
    this.#options = options;
  }

  /** Something was written. */
  arm(): void {
    if (!this.#isRunning && !this.#isClosed) this.#timer ??= this.#options.timers.set(this.#start, SYNC_INTERVAL_MILLIS);
  }

  wait(waiter: SyncWaiter): void {
    this.#waiting.push(waiter);
    this.#start();
  }

  /** Tells everybody who waits now, also for the sync that runs. */
  release(error: SetpointError | null): void {
    for (const waiter of [...this.#served.splice(0), ...this.#waiting.splice(0)]) waiter(error);
  }

  /** No sync starts any more, and the one that runs tells nobody. */
  close(): void {
    this.#isClosed = true;
    this.#clearTimer();
  }

  readonly #start = (): void => {
    this.#clearTimer();
    if (this.#isRunning || this.#isClosed) return;
    this.#isRunning = true;
    this.#served = this.#waiting;
    this.#waiting = [];
    this.#options.sync(this.#end);
  };

  readonly #end = (error: SetpointError | null): void => {
    if (this.#isClosed) return;
    this.#isRunning = false;
    const served = this.#served;
    this.#served = [];
    for (const waiter of served) waiter(error);
    if (this.#waiting.length > 0) this.#start();
    else if (this.#options.isNeeded()) this.arm();
  };

  #clearTimer(): void {
    if (this.#timer !== null) this.#options.timers.clear(this.#timer);
    this.#timer = null;
  }
}
