import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';
import { assert, messageOf, SetpointError } from '../../protocol/errors.ts';
import { FRAME_KINDS, type ObserveFrame, type PredictFrame, reasonNames, type WelcomeFrame } from '../../protocol/frames.ts';
import { MAX_FRAME_BYTES, MAX_IN_FLIGHT } from '../../protocol/limits.ts';
import { route } from '../http/routes.ts';
import { HeavyLane } from '../infer/heavy-lane.ts';
import { encodeAlert } from '../journal/gap.ts';
import { Journal } from '../journal/journal.ts';
import { RECORD_KINDS } from '../journal/record.ts';
import { AlertGate } from './alert-gate.ts';
import { loadServedBundle } from './bundle-loader.ts';
import type { Connection } from './connection.ts';
import { debugRoute } from './debug-routes.ts';
import { Door } from './door.ts';
import { HeavyRequests } from './heavy-requests.ts';
import { HttpServices } from './http-services.ts';
import type { BundleOrder, ControlMessage, StatusDetail, StoreView, ThreadMessage, ThreadSettings } from './messages.ts';
import { ThreadMetrics } from './metrics.ts';
import { observationOf, WaitingObservations } from './observations.ts';
import { fromRemote, toRemote } from './remote-error.ts';
import { type ServedBundle, Slot } from './slot.ts';
import { Turn } from './turn.ts';

/** How often a stopping thread looks whether everything in flight is answered. */
const DRAIN_POLL_MILLIS = 5;

/**
 * Between the close frames and the end of the sockets. A socket that ends while its peer still sends is reset, and the peer
 * may lose the close frame and the answers before it.
 */
const GOODBYE_MILLIS = 250;

/** An alert of the same kind is told again after this; the counters in /metrics miss none. */
const ALERT_INTERVAL_MILLIS = 60_000;

/** Slots x combinations of reasons that are remembered as told. */
const MAX_ALERT_KINDS = 4096;

const EMPTY = new Uint8Array(0);

/**
 * A serving thread: its own sockets on the shared port, its own models, guard state and journal. It needs the control
 * thread only for new bundles and estimates, and answers requests by itself.
 */
class ServingThread {
  readonly #settings: ThreadSettings;
  readonly #post: (message: ThreadMessage) => void;
  readonly #metrics: ThreadMetrics;
  readonly #slots: ReadonlyMap<string, Slot>;
  readonly #journal: Journal;
  readonly #lane: HeavyLane;
  readonly #heavyRequests: HeavyRequests;
  readonly #turn: Turn;
  readonly #door: Door;
  readonly #waiting: WaitingObservations;
  readonly #repositoryCalls = new Map<number, { resolve: () => void; reject: (error: SetpointError) => void }>();
  readonly #alertGate = new AlertGate(ALERT_INTERVAL_MILLIS, MAX_ALERT_KINDS);
  #nextToken = 1;
  #isReady = false;
  #status: StatusDetail = { isStopping: false, slots: [] };
  #store: StoreView = { report: null, lifetime: {} };

  constructor(settings: ThreadSettings, post: (message: ThreadMessage) => void) {
    this.#settings = settings;
    this.#post = post;
    const blocks = settings.metrics.map((shared) => new ThreadMetrics(shared));
    const own = blocks[settings.stream];
    assert(own !== undefined, 'every stream has a metrics block');
    this.#metrics = own;
    this.#slots = new Map(settings.slots.map(({ name, index }) => [name, new Slot(name, index)]));
    this.#journal = this.#openJournal();
    this.#lane = new HeavyLane(settings.heavyLimit);
    this.#waiting = new WaitingObservations(settings.stream);
    this.#heavyRequests = this.#createHeavyRequests();
    this.#turn = this.#createTurn();
    this.#door = this.#createDoor(blocks);
  }

  receive(message: ControlMessage): void {
    switch (message.type) {
      case 'prepare':
        void this.#prepare(message.slot, message.order);
        break;
      case 'activate':
        this.#activate(message.slot, message.bundleId);
        break;
      case 'suspend':
        this.#heavyRequests.explainDeath();
        for (const slot of this.#slots.values()) if (slot.active?.bundleId === message.bundleId) slot.active.isSuspended = true;
        break;
      case 'heavy':
        // Connecting gives up the runs of the process before: they are told apart by what ended it.
        this.#lane.connect(message.socketPath);
        this.#heavyRequests.processStarted();
        break;
      case 'estimate':
        if (message.state === null) this.#slots.get(message.slot)?.estimators.delete(message.key);
        else this.#slots.get(message.slot)?.estimators.set(message.key, message.state);
        break;
      case 'observed':
        this.#waiting.settle(message.token, message.outcome, message.estimate);
        break;
      case 'status':
        this.#isReady = message.isReady;
        this.#status = message.detail;
        break;
      case 'store':
        this.#store = message.view;
        break;
      case 'alert':
        this.#journalAlert(message.alert, message.slot, message.message);
        this.#commitAlert();
        break;
      case 'repository':
        this.#settleRepository(message.token, message.error === null ? null : fromRemote(message.error));
        break;
      case 'listen':
        this.#listen();
        break;
      case 'stop':
        void this.#stop(message.drainMillis);
        break;
    }
  }

  #openJournal(): Journal {
    const { journalDirectory, stream, journal, durability } = this.#settings;
    return new Journal({
      directory: journalDirectory,
      stream,
      ...journal,
      durability,
      newEpoch: () => randomBytes(8).readBigUInt64LE(),
      onSyncFailure: (error) => this.#journalFailed(error),
      onRecovered: ({ lost, recovered }) => {
        this.#metrics.add('recoveredRecords', recovered);
        this.#showJournal();
        this.#alert('journal_recovered', null, `${recovered} records were written late, ${lost} are lost`);
      },
    });
  }

  #createHeavyRequests(): HeavyRequests {
    return new HeavyRequests({
      lane: this.#lane,
      complete: (request) => this.#turn.complete(request),
      discarded: (request) => this.#metrics.addToSlot(request.slot.index, 'discarded'),
      suspended: (bundleId, why) => this.#post({ type: 'suspended', bundleId, why }),
    });
  }

  #createTurn(): Turn {
    return new Turn({
      journal: this.#journal,
      metrics: this.#metrics,
      defaultDeadlineMicros: this.#settings.defaultDeadlineMicros,
      durability: this.#settings.durability,
      onJournalFailure: this.#settings.onJournalFailure,
      nowMillis: Date.now,
      submitHeavy: (request) => this.#heavyRequests.submit(request),
      journalFailed: (error) => this.#journalFailed(error),
      onDecision: (slot, reasons) => this.#alertReasons(slot, reasons),
    });
  }

  #createDoor(blocks: readonly ThreadMetrics[]): Door {
    const services = new HttpServices({
      software: this.#settings.software,
      slots: this.#slots,
      metrics: blocks,
      turn: this.#turn,
      status: () => ({ isReady: this.#isReady, detail: this.#status, store: this.#store }),
      repository: (action, slot) => this.#askRepository(action, slot),
    });
    const debug = debugRoute(blocks);
    return new Door({
      host: this.#settings.host,
      port: this.#settings.port,
      maxConnections: this.#settings.maxConnections,
      metrics: this.#metrics,
      keep: (borrowed) => this.#turn.keep(borrowed),
      route: (request, respond) => {
        if (!debug(request, respond)) route(request, services, respond);
      },
      connectionServices: {
        controllerToken: this.#settings.controllerToken,
        welcome: (version) => this.#welcome(version),
        predict: (connection, frame, bytes, arrivedMillis) => this.#predict(connection, frame, bytes, arrivedMillis),
        observe: (connection, frame, bytes) => this.#observe(connection, frame, bytes),
        badFrame: () => this.#metrics.add('badFrames'),
      },
    });
  }

  #welcome(version: number): WelcomeFrame {
    const { agentId, software, defaultDeadlineMicros } = this.#settings;
    return {
      kind: FRAME_KINDS.welcome,
      version,
      agentId,
      software,
      serverTimeMicros: Date.now() * 1000,
      limits: { maxFrameBytes: MAX_FRAME_BYTES, maxInFlight: MAX_IN_FLIGHT, defaultDeadlineMicros },
      slots: [...this.#slots.values()].flatMap(({ name, active }) => {
        if (active === null) return [];
        const { kind, version: bundleVersion, roles } = active.manifest;
        return [
          {
            slot: name,
            kind,
            bundleId: active.bundleIdBytes,
            version: bundleVersion,
            featureCount: active.vector?.featureCount ?? null,
            valueUnit: roles.prediction?.unit ?? null,
            correctionUnit: roles.correction?.unit ?? null,
          },
        ];
      }),
    };
  }

  /** The slot and bundle that answer, or an error given to the connection. */
  #bundleFor(connection: Connection, requestId: number, name: string): { slot: Slot; bundle: ServedBundle } | null {
    const slot = this.#slots.get(name);
    const bundle = slot?.active ?? null;
    if (slot !== undefined && bundle !== null && !this.#status.isStopping) return { slot, bundle };
    let error: SetpointError;
    if (this.#status.isStopping) error = new SetpointError('stopping', 'Cannot take new requests: this agent is stopping');
    else if (slot === undefined) error = new SetpointError('unknown_slot', `Cannot predict: there is no slot '${name}'`, { field: 'slot' });
    else error = new SetpointError('not_ready', `Cannot predict: slot '${name}' has no active bundle yet`, { field: 'slot' });
    connection.failed(requestId, error);
    connection.flush();
    return null;
  }

  #predict(connection: Connection, frame: PredictFrame, bytes: Uint8Array, arrivedMillis: number): void {
    const found = this.#bundleFor(connection, frame.requestId, frame.slot);
    if (found !== null) this.#turn.predict(connection, found.slot, found.bundle, frame, bytes, arrivedMillis);
  }

  #observe(connection: Connection, frame: ObserveFrame, bytes: Uint8Array): void {
    const found = this.#bundleFor(connection, frame.requestId, frame.slot);
    if (found === null) return;
    const { slot, bundle } = found;
    this.#metrics.addToSlot(slot.index, 'observations');
    const { key, observation } = observationOf(frame, bundle.policy, Date.now());
    this.#turn.observe({
      bytes,
      journaled: (sequence) => {
        const token = this.#waiting.add(connection, frame.requestId, sequence);
        this.#post({ type: 'observation', token, slot: slot.name, key, observation, sequence });
      },
      refused: (error) => {
        connection.failed(frame.requestId, error);
        connection.flush();
      },
    });
  }

  async #prepare(name: string, order: BundleOrder): Promise<void> {
    const slot = this.#slots.get(name);
    assert(slot !== undefined, `slot ${name} is one of this thread's`);
    try {
      const bundle = await loadServedBundle(order, this.#lane);
      slot.standby?.model?.release();
      slot.standby = bundle;
      this.#post({ type: 'prepared', slot: name, bundleId: order.bundleId, error: null });
    } catch (error) {
      this.#post({ type: 'prepared', slot: name, bundleId: order.bundleId, error: toRemote(error) });
    }
  }

  #activate(name: string, bundleId: string | null): void {
    const slot = this.#slots.get(name);
    assert(slot !== undefined, `slot ${name} is one of this thread's`);
    assert(bundleId === null || slot.standby?.bundleId === bundleId, `bundle ${bundleId} was prepared`);
    // Requests of this turn belong to the bundle that was active when they came: they are answered first.
    this.#turn.end();
    const retired = slot.active;
    slot.active = bundleId === null ? null : slot.standby;
    slot.standby = null;
    retired?.model?.release();
    this.#post({ type: 'activated', slot: name, bundleId });
  }

  #listen(): void {
    try {
      this.#door.listen();
      this.#post({ type: 'listening', error: null });
    } catch (error) {
      this.#post({ type: 'listening', error: toRemote(error) });
    }
  }

  #askRepository(action: 'load' | 'unload', slot: string): Promise<void> {
    const token = this.#nextToken++;
    return new Promise((resolve, reject) => {
      this.#repositoryCalls.set(token, { resolve, reject });
      this.#post({ type: 'repository', token, action, slot });
    });
  }

  #settleRepository(token: number, error: SetpointError | null): void {
    const call = this.#repositoryCalls.get(token);
    this.#repositoryCalls.delete(token);
    if (error === null) call?.resolve();
    else call?.reject(error);
  }

  #alertReasons(slot: Slot, reasons: number): void {
    // The gate is asked before anything is made: under a fault every decision comes here.
    if (!this.#alertGate.allows(`${slot.index} ${reasons}`, performance.now())) return;
    // Written with the turn that is being decided.
    this.#alert('guard', slot.name, reasonNames(reasons).join(', '));
  }

  /** Tells the log, and writes a record that leaves with the next commit. */
  #alert(alert: string, slot: string | null, message: string): void {
    this.#post({ type: 'alert', alert, slot, message });
    this.#journalAlert(alert, slot, message);
  }

  #journalAlert(alert: string, slot: string | null, message: string): void {
    this.#journal.append(RECORD_KINDS.alert, Date.now() * 1000, encodeAlert({ alert, slot, message }), EMPTY);
  }

  #commitAlert(): void {
    try {
      this.#journal.commit();
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      this.#journalFailed(error);
    }
  }

  #journalFailed(error: SetpointError): void {
    this.#metrics.add('journalFailures');
    this.#showJournal();
    // Gated: on a full disk every turn comes here, and the log may be on the same disk.
    if (this.#alertGate.allows(error.code, performance.now())) this.#alert(error.code, null, error.message);
  }

  #showJournal(): void {
    const { isFailing, ringRecords, lostRecords } = this.#journal;
    this.#metrics.set('journalFailing', isFailing ? 1 : 0);
    this.#metrics.set('ringRecords', ringRecords);
    this.#metrics.set('lostRecords', lostRecords);
  }

  #closeJournal(): void {
    try {
      this.#journal.close();
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      this.#journalFailed(error);
    }
  }

  /** Answers what is in flight, says goodbye to every connection, and closes the journal. New requests get `stopping`. */
  async #stop(drainMillis: number): Promise<void> {
    this.#isReady = false;
    this.#status = { ...this.#status, isStopping: true };
    const until = performance.now() + drainMillis;
    while (this.#lane.inFlight > 0 && performance.now() < until) await delay(DRAIN_POLL_MILLIS);
    this.#turn.end();
    while (this.#turn.isWaiting && performance.now() < until) await delay(DRAIN_POLL_MILLIS);
    this.#door.stopListening();
    const isAnybodyThere = this.#door.connections.size > 0;
    for (const connection of this.#door.connections) connection.stop();
    if (isAnybodyThere) await delay(GOODBYE_MILLIS);
    this.#door.close();
    this.#lane.close();
    this.#turn.end();
    this.#closeJournal();
    for (const { active, standby } of this.#slots.values()) {
      active?.model?.release();
      standby?.model?.release();
    }
    this.#post({ type: 'stopped' });
    parentPort?.close();
  }
}

const port = parentPort;
assert(port !== null, 'a serving thread is started as a worker');
try {
  const thread = new ServingThread(workerData as ThreadSettings, (message) => port.postMessage(message));
  port.on('message', (message: ControlMessage) => thread.receive(message));
} catch (error) {
  port.postMessage({ type: 'listening', error: toRemote(error) } satisfies ThreadMessage);
  throw new Error(`Cannot start serving thread: ${messageOf(error)}`, { cause: error });
}
