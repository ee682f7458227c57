import { mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { systemCode } from '../bundles/disk.ts';
import { BundleStore } from '../bundles/store.ts';
import type { Config } from '../config.ts';
import type { Log } from '../log.ts';
import { Ballast } from '../store/disk-space.ts';
import { storeDirectory } from '../store/quarantine.ts';
import { ActiveSlots } from './active-slots.ts';
import { type DataLock, lockDataDirectory } from './data-lock.ts';
import { EstimatorControl } from './estimator-control.ts';
import { HeavySupervisor } from './heavy-supervisor.ts';
import type { StatusDetail, ThreadMessage } from './messages.ts';
import { metricsBytes, ThreadMetrics } from './metrics.ts';
import { toRemote } from './remote-error.ts';
import { checkJournalRoom, storeSettings, threadSettings } from './settings.ts';
import { SlotControl } from './slot-control.ts';
import { StoreControl } from './store-control.ts';
import { ServingThreads } from './threads.ts';

const MEBIBYTE = 1024 * 1024;

/** How often estimators that changed are written to disk; what comes between is in the journals. */
const SNAPSHOT_INTERVAL_MILLIS = 5000;

/** How long slots wait at start for what the store kept, and only when a file that should be there is not. */
const STORE_COPY_MILLIS = 10_000;

export interface AgentOptions {
  readonly config: Config;
  readonly software: string;
  readonly log: Log;
  /** Something broke that only a restart mends. */
  readonly onFatal: (error: Error) => void;
}

/**
 * The serve process's control thread: holds the data directory, starts the serving threads, and brings bundles, estimates
 * and orders to them. Requests never pass through here.
 */
export class Agent {
  readonly #options: AgentOptions;
  readonly #lock: DataLock;
  readonly #metrics: readonly ThreadMetrics[];
  readonly #threads: ServingThreads;
  readonly #heavy: HeavySupervisor;
  readonly #slots: ReadonlyMap<string, SlotControl>;
  readonly #active: ActiveSlots;
  readonly #estimators: EstimatorControl;
  readonly #store: StoreControl;
  readonly #timers: NodeJS.Timeout[] = [];
  #isStopping = false;
  readonly port: number;

  private constructor(options: AgentOptions, lock: DataLock, port: number) {
    const { config, log } = options;
    this.#options = options;
    this.#lock = lock;
    this.port = port;
    const slotNames = Object.keys(config.slots);
    const threadCount = config.threads === 0 ? Math.max(1, availableParallelism() - 1) : config.threads;
    checkJournalRoom(config, threadCount);
    const blocks = Array.from({ length: threadCount }, () => new SharedArrayBuffer(metricsBytes(slotNames.length)));
    this.#metrics = blocks.map((shared) => new ThreadMetrics(shared));
    this.#active = new ActiveSlots(join(config.dataDir, 'slots.json'));
    this.#active.load();
    this.#estimators = new EstimatorControl({
      dataDirectory: config.dataDir,
      slots: slotNames,
      log,
      broadcast: (slot, key, state) => this.#threads.tellAll({ type: 'estimate', slot, key, state }),
      saved: (snapshot, positions) => this.#store.keepEstimators(snapshot, positions),
    });
    this.#estimators.load();
    this.#store = this.#createStore(slotNames);
    this.#heavy = this.#createHeavy(config);
    this.#threads = new ServingThreads({
      settings: blocks.map((_, stream) => threadSettings(config, options.software, port, stream, slotNames, blocks)),
      onMessage: (stream, message) => this.#receive(stream, message),
      onCrash: (_, error) => options.onFatal(error),
    });
    this.#slots = this.#createSlots(config);
  }

  /**
   * Starts an agent and resolves when it listens; slots become ready as their bundles are vetted and warm.
   * @throws SetpointError when the data directory or the port cannot be had
   */
  static async start(options: AgentOptions): Promise<Agent> {
    const { config } = options;
    mkdirSync(config.dataDir, { recursive: true });
    const lock = lockEvenWhenFull(config.dataDir);
    try {
      const agent = new Agent(options, lock, await findPort(config.listen.host, config.listen.port));
      // Before the first question can come.
      agent.#tellStatus();
      await agent.#threads.listen();
      agent.#store.start();
      void agent.#bringUp();
      return agent;
    } catch (error) {
      lock.release();
      throw error;
    }
  }

  /** Answers what is in flight, then stops everything. Resolves when nothing of the agent runs any more. */
  async stop(): Promise<void> {
    if (this.#isStopping) return;
    this.#isStopping = true;
    for (const timer of this.#timers) clearInterval(timer);
    this.#tellStatus();
    await this.#threads.stop(this.#options.config.drainMillis);
    this.#heavy.stop();
    this.#store.stopping();
    this.#estimators.save();
    await this.#store.stop();
    this.#lock.release();
  }

  async #bringUp(): Promise<void> {
    await this.#restoreCopies();
    this.#timers.push(setInterval(() => this.#estimators.save(), SNAPSHOT_INTERVAL_MILLIS));
    // One after the other: two vettings at a time would disturb each other's measurements.
    for (const slot of this.#slots.values()) await this.#bringUpSlot(slot);
    if (this.#isStopping) return;
    const { bundlePollMillis } = this.#options.config;
    this.#timers.push(
      setInterval(() => {
        for (const slot of this.#slots.values()) void slot.poll();
      }, bundlePollMillis),
    );
  }

  /** Files of the data directory that are gone and that the store has a copy of. */
  async #restoreCopies(): Promise<void> {
    if (!(this.#active.isNew || this.#estimators.needsCopy) || !this.#store.hasBeenThere) return;
    const states = await this.#store.states(STORE_COPY_MILLIS);
    if (this.#active.isNew) this.#active.adopt(states['slots']);
    if (this.#estimators.needsCopy && states['estimators'] !== undefined) this.#estimators.adopt(states['estimators']);
  }

  async #bringUpSlot(slot: SlotControl): Promise<void> {
    if (this.#isStopping) return;
    await slot.poll();
    const last = this.#active.get(slot.name);
    if (slot.policy !== null || last === undefined || this.#isStopping) return;
    const { reason } = slot.status;
    try {
      await slot.restore(last);
      this.#options.log('warn', 'last good bundle restored', { slot: slot.name, bundle: last, reason });
    } catch (error) {
      this.#options.log('error', 'last good bundle not usable', { slot: slot.name, bundle: last, reason: toRemote(error).message });
    }
  }

  #createSlots(config: Config): ReadonlyMap<string, SlotControl> {
    const store = new BundleStore(config.dataDir);
    const services = {
      store,
      vetOptions: {
        inlineBudgetMicros: config.inlineBudgetMicros,
        deadlineMillis: config.vetting.deadlineMillis,
        memoryLimitBytes: config.vetting.memoryLimitMebibytes * MEBIBYTE,
      },
      prepare: (slot: string, order: Parameters<ServingThreads['prepare']>[1]) => {
        if (order.lane === 'heavy') this.#heavy.start();
        return this.#threads.prepare(slot, order);
      },
      activate: (slot: string, bundleId: string | null) => this.#threads.activate(slot, bundleId),
      changed: (slot: SlotControl) => this.#slotChanged(slot),
    };
    return new Map(Object.entries(config.slots).map(([name, { bundle }]) => [name, new SlotControl(name, bundle, services)]));
  }

  #createStore(slots: readonly string[]): StoreControl {
    const { config } = this.#options;
    return new StoreControl({
      isEnabled: config.store.enabled,
      settings: storeSettings(config),
      slots,
      metrics: this.#metrics,
      activeSlots: () => this.#active.all,
      onView: (view) => this.#threads.tellAll({ type: 'store', view }),
      onAlert: (alert, message) => this.#alert(alert, message),
      onExit: (description) => this.#options.log('error', 'store process ended', { how: description }),
    });
  }

  /** Alerts of the control thread are in the journal, too: in that of the first serving thread. */
  #alert(alert: string, message: string): void {
    this.#options.log('warn', `alert ${alert}`, { slot: null, message });
    this.#threads.tell(0, { type: 'alert', alert, slot: null, message });
  }

  #createHeavy(config: Config): HeavySupervisor {
    const { heavy } = config;
    return new HeavySupervisor({
      threads: heavy.threads,
      // Each serving thread bounds what it hands over, and says so to the requester; the pool itself has room for all of it.
      queueLength: this.#metrics.length * (heavy.queueLength + heavy.threads),
      hangMillis: heavy.hangMillis,
      memoryLimitBytes: heavy.memoryLimitMebibytes * MEBIBYTE,
      onListening: (socketPath) => this.#threads.tellAll({ type: 'heavy', socketPath }),
      onFailure: (failure) => {
        for (const bundleId of failure.bundleIds) this.#suspend(bundleId, failure.message);
      },
      onExit: (description) => this.#options.log('error', 'heavy process ended', { how: description }),
    });
  }

  #suspend(bundleId: string, why: string): void {
    this.#threads.tellAll({ type: 'suspend', bundleId });
    for (const slot of this.#slots.values()) if (slot.status.bundleId === bundleId) slot.suspend(why);
  }

  #slotChanged(slot: SlotControl): void {
    const { state, bundleId, version, lane, reason } = slot.status;
    const level = state === 'ready' && reason === null ? 'info' : 'warn';
    this.#options.log(level, `slot ${state}`, { slot: slot.name, bundle: bundleId, version, lane, reason });
    if (state === 'ready' && bundleId !== null) this.#keepActive(slot.name, bundleId);
    if (slot.policy !== null) this.#estimators.slotReady(slot.name, slot.policy);
    this.#tellStatus();
  }

  /** Without the file the slot starts from its configured bundle, or from the store's copy of it: no reason to stop answering. */
  #keepActive(slot: string, bundleId: string): void {
    try {
      this.#active.set(slot, bundleId);
    } catch (error) {
      this.#options.log('error', 'slots not saved', { message: messageOf(error) });
    }
  }

  #tellStatus(): void {
    const slots = [...this.#slots.values()].map((slot) => slot.status);
    const detail: StatusDetail = { isStopping: this.#isStopping, slots };
    const isReady = !this.#isStopping && slots.every((slot) => slot.state === 'ready');
    this.#threads.tellAll({ type: 'status', isReady, detail });
  }

  #receive(stream: number, message: ThreadMessage): void {
    switch (message.type) {
      case 'observation':
        this.#learn(stream, message);
        break;
      case 'repository':
        void this.#changeRepository(stream, message);
        break;
      case 'suspended':
        this.#suspend(message.bundleId, message.why);
        break;
      case 'alert':
        this.#options.log('warn', `alert ${message.alert}`, { slot: message.slot, message: message.message });
        break;
      case 'prepared':
      case 'activated':
      case 'listening':
      case 'stopped':
        break;
    }
  }

  #learn(stream: number, message: Extract<ThreadMessage, { type: 'observation' }>): void {
    const policy = this.#slots.get(message.slot)?.policy ?? null;
    const learnt = this.#estimators.learn(stream, message, policy);
    this.#threads.tell(stream, { type: 'observed', token: message.token, ...learnt });
  }

  async #changeRepository(stream: number, { token, action, slot: name }: Extract<ThreadMessage, { type: 'repository' }>): Promise<void> {
    try {
      const slot = this.#slots.get(name);
      if (slot === undefined) throw new SetpointError('unknown_slot', `Cannot ${action}: there is no slot '${name}'`);
      await (action === 'load' ? slot.load() : slot.unload());
      this.#threads.tell(stream, { type: 'repository', token, error: null });
    } catch (error) {
      this.#threads.tell(stream, { type: 'repository', token, error: toRemote(error) });
    }
  }
}

/** An agent that was killed on a full disk starts again on it: the lock takes the room that the store keeps in reserve. */
function lockEvenWhenFull(directory: string): DataLock {
  try {
    return lockDataDirectory(directory);
  } catch (error) {
    if (systemCode(error) !== 'ENOSPC') throw error;
    new Ballast(storeDirectory(directory), 0).remove();
    return lockDataDirectory(directory);
  }
}

/**
 * Makes sure that nobody else has the port: the serving threads share it (SO_REUSEPORT), and so would a second agent,
 * silently. Port 0 becomes a free one.
 */
function findPort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', (cause) => {
      reject(
        new SetpointError('not_ready', `Cannot listen on ${host}:${port}: ${cause.message}`, {
          remedy: 'stop what uses the port, or choose another listen.port',
          cause,
        }),
      );
    });
    probe.listen({ host, port, exclusive: true }, () => {
      const address = probe.address();
      const found = typeof address === 'object' && address !== null ? address.port : port;
      probe.close(() => resolve(found));
    });
  });
}
