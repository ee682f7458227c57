import { existsSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { StreamSequence } from '../store/messages.ts';
import { storeDirectory } from '../store/quarantine.ts';
import type { StoreSettings } from '../store/settings.ts';
import { addCounts, type LifetimeCounts, parseLifetimeCounts } from './lifetime-counts.ts';
import type { StoreView } from './messages.ts';
import type { ThreadMetrics } from './metrics.ts';
import { StoreSupervisor } from './store-supervisor.ts';

/** How often the store is given a copy of what it keeps for the agent. The estimators of 10,000 control threads are 50 MB. */
const COPY_INTERVAL_MILLIS = 30_000;

/** A larger snapshot is not copied: it would hold the control thread for longer than an observation may wait. */
const MAX_COPY_CHARACTERS = 16 * 1024 * 1024;

export interface StoreControlOptions {
  readonly isEnabled: boolean;
  readonly settings: StoreSettings;
  readonly slots: readonly string[];
  readonly metrics: readonly ThreadMetrics[];
  readonly activeSlots: () => Readonly<Record<string, string>>;
  readonly onView: (view: StoreView) => void;
  readonly onAlert: (alert: string, message: string) => void;
  readonly onExit: (description: string) => void;
}

type States = Readonly<Record<string, unknown>>;

/** The agent's end of the store process: what it is given to keep, what it kept, and how it is. */
export class StoreControl {
  /** Whether a store stood in the data directory before this agent started. */
  readonly hasBeenThere: boolean;
  readonly #options: StoreControlOptions;
  readonly #supervisor: StoreSupervisor | null;
  #lifetime: LifetimeCounts | null = null;
  #copiedMillis = Number.NEGATIVE_INFINITY;
  #isStopping = false;
  #ready: (states: States) => void = () => {};
  readonly #states: Promise<States>;
  #timer: NodeJS.Timeout | null = null;

  constructor(options: StoreControlOptions) {
    this.#options = options;
    this.hasBeenThere = options.isEnabled && existsSync(storeDirectory(options.settings.dataDirectory));
    this.#states = new Promise((resolve) => {
      this.#ready = resolve;
    });
    this.#supervisor = options.isEnabled ? this.#createSupervisor() : null;
  }

  #createSupervisor(): StoreSupervisor {
    const { settings, onAlert, onExit } = this.#options;
    return new StoreSupervisor({
      settings,
      onReady: (states) => {
        // A restarted store process has counts that this agent told it: only the first are from before.
        this.#lifetime ??= parseLifetimeCounts(states['counters']);
        this.#ready(states);
      },
      onStatus: () => this.#tellView(),
      onAlert,
      onExit: (description) => {
        onExit(description);
        this.#tellView();
      },
    });
  }

  start(): void {
    this.#tellView();
    if (this.#supervisor === null) return;
    this.#supervisor.start();
    this.#timer = setInterval(() => this.#keepCounts(), COPY_INTERVAL_MILLIS).unref();
  }

  /** What the store kept, or nothing when it does not open in time. */
  states(withinMillis: number): Promise<States> {
    return Promise.race([this.#states, delay(withinMillis, {}, { ref: false })]);
  }

  /** Observations up to `positions` are in this snapshot: the journals that hold them may go, once it is copied. */
  keepEstimators(snapshot: string, positions: readonly StreamSequence[]): void {
    const now = performance.now();
    if (this.#supervisor === null || (now - this.#copiedMillis < COPY_INTERVAL_MILLIS && !this.#isStopping)) return;
    this.#copiedMillis = now;
    // In this order: the copy is there before the journals go.
    if (snapshot.length <= MAX_COPY_CHARACTERS) this.#supervisor.tell({ type: 'state', name: 'estimators', value: snapshot });
    this.#supervisor.tell({ type: 'snapshot', positions });
  }

  /** The store has drained the journals, or its time is up, and its process has ended. */
  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#keepCounts();
    await this.#supervisor?.stop();
  }

  /** Copies are made at once from now on. */
  stopping(): void {
    this.#isStopping = true;
  }

  #keepCounts(): void {
    const { slots, metrics, activeSlots } = this.#options;
    // Before the store has told what was there, a report would start it anew.
    if (this.#lifetime !== null)
      this.#supervisor?.tell({ type: 'state', name: 'counters', value: addCounts(this.#lifetime, slots, metrics) });
    this.#supervisor?.tell({ type: 'state', name: 'slots', value: activeSlots() });
  }

  #tellView(): void {
    this.#options.onView({ report: this.#supervisor?.status ?? null, lifetime: this.#lifetime ?? {} });
  }
}
