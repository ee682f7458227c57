import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { messageOf } from '../../protocol/errors.ts';
import { freeBytesOf } from '../store/disk-space.ts';
import { EXIT_DAMAGED, EXIT_NO_SPACE, type FromStore, type StoreStatus, type ToStore } from '../store/messages.ts';
import { setStoreAside, storeDirectory } from '../store/quarantine.ts';
import type { StoreSettings } from '../store/settings.ts';
import { endText, outputOf, quoted, startChild, whenEnded } from './store-child.ts';
import { StoreOutbox } from './store-outbox.ts';
import { checkVerdict, StoreRestarts } from './store-restarts.ts';

const PROCESS_FILE = fileURLToPath(new URL('../store/store-process.ts', import.meta.url));
const CHECK_FILE = fileURLToPath(new URL('../store/check-process.ts', import.meta.url));

export interface StoreTimings {
  readonly firstRestartMillis: number;
  readonly maxRestartMillis: number;
  readonly healthyMillis: number;
  /** From the start of a process until it says that the store is open. */
  readonly openMillis: number;
  /** Longest drain at stop(). */
  readonly stopMillis: number;
  /** Longest check of a suspicious store, 1 GB of which takes seconds. */
  readonly checkMillis: number;
}

const TIMINGS: StoreTimings = {
  firstRestartMillis: 200,
  maxRestartMillis: 30_000,
  healthyMillis: 60_000,
  openMillis: 60_000,
  stopMillis: 5000,
  checkMillis: 600_000,
};

/** The checkpoint and the close that follow the drain at stop(). */
const STOP_GRACE_MILLIS = 1000;
/** Silence is counted in looks and not by the clock: when the agent itself was stopped, the store must not pay for it. */
const LOOKS_PER_HANG = 8;
/** Ends in a row without progress, before someone is told that it does not get better by itself. */
const ALERT_AFTER_FAILURES = 3;

export interface StoreReport extends Omit<StoreStatus, 'state'> {
  /** 'down': no process runs, or it has not opened the store yet; 'checking': a suspicious store is being checked. */
  readonly state: StoreStatus['state'] | 'down' | 'checking';
  readonly processId: number | null;
  readonly restarts: number;
}

export interface StoreSupervisorOptions {
  readonly settings: StoreSettings;
  /** The store is open: what was kept in it, by name. Called again after each restart. */
  readonly onReady: (states: Readonly<Record<string, unknown>>) => void;
  readonly onStatus: (status: StoreReport) => void;
  readonly onAlert: (alert: string, message: string) => void;
  readonly onExit: (description: string) => void;
  readonly timings?: Partial<StoreTimings>;
  /** Scripts to run in place of the store process and the check, for tests. */
  readonly processFile?: string;
  readonly checkFile?: string;
}

const NO_STATUS: StoreStatus = {
  state: 'draining',
  entries: 0,
  headIndex: 0,
  lagBytes: 0,
  fileBytes: 0,
  usedBytes: 0,
  freeBytes: 0,
  lastCommitMillis: null,
  commitPendingMillis: 0,
  dropped: { telemetry: 0, records: 0, lost: 0 },
};

interface Running {
  readonly child: ChildProcess;
  readySinceMillis: number | null;
  hasProgressed: boolean;
  /** Looks since it was last heard. */
  silentLooks: number;
  killedFor: string | null;
  readonly output: () => string;
}

/**
 * Keeps one store process running: starts it, kills it when it hangs, starts it again, and puts a damaged store aside so
 * that a new one can go on. Nothing that happens to the store reaches the predict path: this never throws and never waits.
 */
export class StoreSupervisor {
  readonly #options: StoreSupervisorOptions;
  readonly #timings: StoreTimings;
  readonly #restarts: StoreRestarts;
  readonly #outbox = new StoreOutbox();
  #running: Running | null = null;
  #checking: ChildProcess | null = null;
  #last: StoreStatus = NO_STATUS;
  #downState: StoreReport['state'] = 'down';
  #restartCount = 0;
  #timer: NodeJS.Timeout | null = null;
  #watch: NodeJS.Timeout | null = null;
  #stopped: Promise<void> | null = null;

  constructor(options: StoreSupervisorOptions) {
    this.#options = options;
    this.#timings = { ...TIMINGS, ...options.timings };
    const { firstRestartMillis, maxRestartMillis, healthyMillis } = this.#timings;
    this.#restarts = new StoreRestarts({ firstMillis: firstRestartMillis, maxMillis: maxRestartMillis, healthyMillis }, EXIT_DAMAGED);
  }

  get status(): StoreReport {
    const isOpen = this.#running !== null && this.#running.readySinceMillis !== null;
    const state = isOpen ? this.#last.state : this.#downState;
    return { ...this.#last, state, processId: this.#running?.child.pid ?? null, restarts: this.#restartCount };
  }

  /** Starts the process unless it runs. */
  start(): void {
    if (this.#running !== null || this.#checking !== null || this.#stopped !== null) return;
    this.#timer = null;
    const child = startChild(this.#options.processFile ?? PROCESS_FILE, JSON.stringify(this.#options.settings));
    const running: Running = {
      child,
      readySinceMillis: null,
      hasProgressed: false,
      silentLooks: 0,
      killedFor: null,
      output: outputOf(child),
    };
    this.#running = running;
    child.on('message', (message: FromStore) => this.#receive(running, message));
    whenEnded(child, (code, signal, error) => this.#ended(running, code, signal, error));
    this.#watch = setInterval(() => this.#look(running), Math.ceil(this.#options.settings.hangMillis / LOOKS_PER_HANG)).unref();
  }

  /** Keeps the newest message of each kind until the process is there to take it; tells it again after a restart. */
  tell(message: Exclude<ToStore, { type: 'stop' }>): void {
    this.#outbox.put(message);
  }

  /** Lets the process drain what the journals hold, within limits, and ends it. Resolves when nothing of it runs. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stop();
    return this.#stopped;
  }

  async #stop(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#checking?.kill('SIGKILL');
    const running = this.#running;
    if (running === null) return;
    const { stopMillis } = this.#timings;
    this.#outbox.stop({ type: 'stop', withinMillis: stopMillis }, running.child);
    const deadline = setTimeout(() => running.child.kill('SIGKILL'), stopMillis + STOP_GRACE_MILLIS);
    await new Promise<void>((resolve) => {
      whenEnded(running.child, () => resolve());
    });
    clearTimeout(deadline);
  }

  #receive(running: Running, message: FromStore): void {
    running.silentLooks = 0;
    switch (message.type) {
      case 'ready':
        running.readySinceMillis = performance.now();
        this.#downState = 'down';
        this.#outbox.attach(running.child);
        this.#options.onReady(message.states);
        break;
      case 'status':
        this.#last = message.status;
        if (message.status.lastCommitMillis !== null) running.hasProgressed = true;
        this.#options.onStatus(this.status);
        if (message.status.commitPendingMillis > this.#options.settings.hangMillis) this.#kill(running, 'a commit takes too long');
        break;
      case 'alert':
        this.#options.onAlert(message.alert, message.message);
        break;
    }
  }

  #look(running: Running): void {
    running.silentLooks += 1;
    const { hangMillis } = this.#options.settings;
    const limitMillis = running.readySinceMillis === null ? Math.max(this.#timings.openMillis, hangMillis) : hangMillis;
    if (running.silentLooks * (hangMillis / LOOKS_PER_HANG) > limitMillis) this.#kill(running, `it said nothing for ${limitMillis} ms`);
  }

  #kill(running: Running, why: string): void {
    running.killedFor ??= why;
    running.child.kill('SIGKILL');
  }

  #ended(running: Running, code: number | null, signal: string | null, error: Error | null): void {
    if (this.#running !== running) return;
    this.#running = null;
    this.#outbox.detach();
    if (this.#watch !== null) clearInterval(this.#watch);
    if (this.#stopped !== null) return;
    this.#options.onExit(describeEnd(running, code, signal, error));
    const readyMillis = running.readySinceMillis === null ? 0 : performance.now() - running.readySinceMillis;
    const next = this.#restarts.ended({ code, signal, hasProgressed: running.hasProgressed, readyMillis });
    this.#downState = code === EXIT_NO_SPACE ? 'waiting_for_space' : 'down';
    if (this.#restarts.failures === ALERT_AFTER_FAILURES) {
      this.#options.onAlert(
        'store_down',
        `The store process ended ${ALERT_AFTER_FAILURES} times without taking a record; the journals keep everything until they are full. Last: ${describeEnd(running, code, signal, error)}`,
      );
    }
    this.#after(next.delayMillis, next.action);
  }

  #after(delayMillis: number, action: 'start' | 'check' | 'set_aside'): void {
    this.#timer = setTimeout(() => {
      this.#restartCount += 1;
      if (action === 'start') this.start();
      else if (action === 'check') this.#check();
      else void this.#setAside('it ended its process again and again, and nothing could be stored');
    }, delayMillis).unref();
  }

  /** A check needs room as any open does: on a full disk it would die of that, and a sound store be set aside. */
  #check(): void {
    const { settings, checkFile = CHECK_FILE } = this.#options;
    if (freeBytesOrZero(settings.dataDirectory) < settings.minFreeBytes) {
      this.#downState = 'waiting_for_space';
      this.#after(this.#timings.maxRestartMillis, 'check');
      return;
    }
    this.#downState = 'checking';
    const child = startChild(checkFile, storeDirectory(settings.dataDirectory));
    this.#checking = child;
    const said = outputOf(child);
    const deadline = setTimeout(() => child.kill('SIGKILL'), this.#timings.checkMillis);
    whenEnded(child, (code, signal) => {
      clearTimeout(deadline);
      this.#checking = null;
      this.#downState = 'down';
      if (this.#stopped !== null) return;
      const verdict = checkVerdict(code, signal, EXIT_DAMAGED);
      if (verdict === 'damaged') void this.#setAside(`the check ended with ${endText(code, signal)}${quoted(said())}`);
      else this.start();
    });
  }

  async #setAside(why: string): Promise<void> {
    const { settings, onAlert } = this.#options;
    try {
      const aside = await setStoreAside(settings.dataDirectory, new Date());
      this.#restarts.setAside();
      if (aside !== null) onAlert('store_set_aside', `The store is damaged (${why}); it is kept as ${aside}, and a new one is begun`);
    } catch (error) {
      // It is tried again after the next death: nothing is written to the store until then.
      onAlert('store_set_aside', `Cannot set the damaged store aside (${why}): ${messageOf(error)}`);
    }
    this.start();
  }
}

/** A directory that does not answer has no room. */
function freeBytesOrZero(directory: string): number {
  try {
    return freeBytesOf(directory);
  } catch {
    // Not to be read at the moment: the same wait as for space, and the next look decides.
    return 0;
  }
}

function describeEnd(running: Running, code: number | null, signal: string | null, error: Error | null): string {
  if (error !== null) return `cannot be started: ${error.message}`;
  const killed = running.killedFor === null ? '' : `, killed because ${running.killedFor}`;
  return `${endText(code, signal)}${killed}${quoted(running.output())}`;
}
