import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../protocol/errors.ts';
import { AlertGate } from '../serve/alert-gate.ts';
import type { CheckpointKeeper } from './checkpoint-keeper.ts';
import { type Ballast, freeBytesOf, type SpaceWatch } from './disk-space.ts';
import type { Drain } from './drain.ts';
import { STATE_NAMES, type StoreAlert, type StoreStatus, type StreamSequence, type ToStore } from './messages.ts';
import { nextRetentionStep, type RetentionStep } from './retention.ts';
import type { StoreSettings } from './settings.ts';
import type { StoreWriter } from './writer.ts';

/** Between two looks at the journals when the last one found little. */
const IDLE_MILLIS = 100;
/** Between two looks at what is in the way: no space, or a full store. */
const BLOCKED_MILLIS = 1000;
/** Entries dropped in one transaction, and transactions between two batches: dropping keeps pace with a batch of 4,096. */
const DROP_RECORDS = 500;
const DROP_STEPS = 16;
/** A ballast that could not be made is not tried again at once. */
const BALLAST_RETRY_MILLIS = 60_000;
/** The same alert again: dropping goes on for weeks once the cap is reached. */
const ALERT_INTERVAL_MILLIS = 3_600_000;

export interface StoreParts {
  readonly settings: StoreSettings;
  readonly writer: StoreWriter;
  readonly drain: Drain;
  readonly space: SpaceWatch;
  readonly ballast: Ballast;
  readonly checkpoints: CheckpointKeeper;
  readonly onAlert: (alert: StoreAlert, message: string) => void;
  readonly nowMillis: () => number;
}

/**
 * What the store process does all day, one thing after the other: keep the agent's states, look at the space, drop what is
 * over the limits, drain, sign. A commit that fails rejects run(), and the process must end.
 */
export class StoreLoop {
  readonly #parts: StoreParts;
  readonly #states = new Map<string, unknown>();
  #covered: readonly StreamSequence[] = [];
  #state: StoreStatus['state'] = 'draining';
  #stepSince: number | null = null;
  #lastCommitMillis: number | null = null;
  #head: number;
  #dropped = { telemetry: 0, records: 0 };
  #stopAt: number | null = null;
  readonly #wake = new AbortController();
  #noBallastUntil = 0;
  readonly #gate = new AlertGate(ALERT_INTERVAL_MILLIS, 100);

  constructor(parts: StoreParts) {
    this.#parts = parts;
    this.#head = parts.writer.head.index;
  }

  receive(message: ToStore): void {
    if (message.type === 'state') this.#states.set(message.name, message.value);
    else if (message.type === 'snapshot') this.#covered = message.positions;
    else this.stop(message.withinMillis);
  }

  /** Drains what is there, for at most so long; 0: ends with the commit that is under way. */
  stop(withinMillis: number): void {
    this.#stopAt = Math.min(this.#stopAt ?? Infinity, performance.now() + withinMillis);
    this.#wake.abort();
  }

  /** What was kept for the agent, by name. */
  states(): Record<string, unknown> {
    const kept = STATE_NAMES.map((name) => [name, this.#parts.writer.getState(name)] as const);
    return Object.fromEntries(kept.filter(([, value]) => value !== undefined && value !== null));
  }

  async close(): Promise<void> {
    await this.#parts.writer.close();
  }

  get status(): StoreStatus {
    const { writer, drain, settings } = this.#parts;
    const { entries, usedBytes, fileBytes } = writer.usage();
    return {
      state: this.#state,
      entries,
      headIndex: writer.head.index,
      lagBytes: drain.lagBytes(),
      fileBytes,
      usedBytes,
      freeBytes: freeBytesOf(settings.dataDirectory),
      lastCommitMillis: this.#lastCommitMillis,
      commitPendingMillis: this.#stepSince === null ? 0 : Math.round(performance.now() - this.#stepSince),
      dropped: { ...this.#dropped, lost: drain.lost },
    };
  }

  /** Resolves when it was told to stop and has drained, or its time is up. The writer is left open. */
  async run(): Promise<void> {
    for (;;) {
      // Asked before the work: what came with the order to stop (the last states, the last records) needs a round of its own.
      const isLastRound = this.#stopAt !== null;
      const isBlocked = !(await this.#hasSpace());
      if (isBlocked) this.#become('waiting_for_space');
      const hasMore = !isBlocked && (await this.#work());
      const isTimeUp = this.#stopAt !== null && performance.now() >= this.#stopAt;
      if (isTimeUp || (isLastRound && !hasMore)) break;
      if (!hasMore) await this.#rest(this.#state === 'draining' ? IDLE_MILLIS : BLOCKED_MILLIS);
    }
    if (this.#state !== 'waiting_for_space') await this.#step(() => this.#checkpoint(true));
  }

  /** True when there is more to do at once. */
  async #work(): Promise<boolean> {
    await this.#step(() => this.#keepStates());
    const isHeld = !(await this.#retain());
    this.#become(isHeld ? 'full' : 'draining');
    const result = isHeld ? 'idle' : await this.#step(() => this.#parts.drain.round(this.#stopAt !== null));
    await this.#step(() => this.#checkpoint(false));
    return result === 'more';
  }

  /** The states first: what the journal holds of an estimator may go only when the copy of it is stored. */
  async #keepStates(): Promise<void> {
    const covered = this.#covered;
    for (const [name, value] of this.#states) {
      this.#states.delete(name);
      await this.#parts.writer.putState(name, value);
    }
    this.#parts.drain.cover(covered);
  }

  async #hasSpace(): Promise<boolean> {
    const { space, ballast, settings, onAlert } = this.#parts;
    const freeBytes = freeBytesOf(settings.dataDirectory);
    const action = space.look(freeBytes, ballast.exists);
    if (action === 'remove') {
      ballast.remove();
      // Told at once, each time: the file that was given up is the last reserve.
      onAlert(
        'store_waiting_for_space',
        `The file system of ${settings.dataDirectory} has ${freeBytes} bytes free, ${settings.minFreeBytes} are needed; the reserve was given up, and the journals go on until they are full`,
      );
    } else if (action === 'make' && performance.now() >= this.#noBallastUntil) {
      try {
        await this.#step(() => ballast.make());
      } catch {
        // A reserve that cannot be had leaves everything as it is; the space itself is looked at before each batch.
        this.#noBallastUntil = performance.now() + BALLAST_RETRY_MILLIS;
      }
    }
    return !space.isLow;
  }

  /** Drops what is over the limits. False when the cap is reached and nothing may go. */
  async #retain(): Promise<boolean> {
    for (let count = 0; count < DROP_STEPS; count++) {
      const { settings, writer, nowMillis } = this.#parts;
      const step = nextRetentionStep(settings, writer.usage(), nowMillis() * 1000);
      if (step.action === 'none') return true;
      if (step.action === 'hold') return false;
      const dropped = await this.#step(() => this.#drop(step));
      // Nothing of that kind was left after all: what is over the limit cannot be dropped.
      if (dropped === 0) return step.reason === 'age' || settings.onFull === 'drop_oldest';
    }
    return true;
  }

  async #drop(step: Extract<RetentionStep, { reason: unknown }>): Promise<number> {
    const { writer, settings, onAlert, nowMillis } = this.#parts;
    const limit = { maxRecords: DROP_RECORDS, ...(step.olderThanMicros === undefined ? {} : { olderThanMicros: step.olderThanMicros }) };
    const isTelemetry = step.action === 'drop_telemetry';
    const count = isTelemetry ? await writer.dropTelemetry(limit, step.reason) : await writer.dropRecords(limit, step.reason);
    this.#dropped[isTelemetry ? 'telemetry' : 'records'] += count;
    if (count > 0 && step.reason === 'size' && this.#gate.allows(step.action, nowMillis())) {
      const what = isTelemetry ? 'features and outputs of the oldest records are' : 'the oldest records are';
      onAlert('store_dropped', `The store has reached its ${settings.maxBytes} bytes: ${what} being dropped`);
    }
    return count;
  }

  async #checkpoint(isStopping: boolean): Promise<void> {
    const { checkpoints, writer, nowMillis } = this.#parts;
    await checkpoints.keep(writer.head, nowMillis(), isStopping);
  }

  #become(state: StoreStatus['state']): void {
    const { settings, onAlert } = this.#parts;
    if (state === this.#state) return;
    this.#state = state;
    if (state === 'full')
      onAlert(
        'store_full',
        `The store has reached its ${settings.maxBytes} bytes and drops nothing by configuration: records stay in the journals until they are full, too`,
      );
    if (state === 'waiting_for_space')
      onAlert(
        'store_waiting_for_space',
        `The file system of ${settings.dataDirectory} has less than ${settings.minFreeBytes} bytes free: nothing is stored until there is room; the journals keep the records until they are full`,
      );
  }

  /** Runs one thing, so that the heartbeat can say how long it has been at it. */
  async #step<T>(action: () => Promise<T>): Promise<T> {
    this.#stepSince = performance.now();
    const result = await action();
    this.#stepSince = null;
    const { index } = this.#parts.writer.head;
    if (index !== this.#head) this.#lastCommitMillis = this.#parts.nowMillis();
    this.#head = index;
    return result;
  }

  async #rest(millis: number): Promise<void> {
    try {
      await delay(millis, undefined, { signal: this.#wake.signal });
    } catch (error) {
      // Woken to stop: that is what the signal is for.
      if (this.#stopAt === null) throw new Error(`Cannot rest: ${messageOf(error)}`, { cause: error });
    }
  }
}
