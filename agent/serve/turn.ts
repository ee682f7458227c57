import { encodeDecision } from '../../protocol/codec.ts';
import { SetpointError } from '../../protocol/errors.ts';
import type { DecisionFrame, PredictFrame } from '../../protocol/frames.ts';
import { MAX_FRAME_BYTES } from '../../protocol/limits.ts';
import type { Journal } from '../journal/journal.ts';
import { RECORD_KINDS } from '../journal/record.ts';
import { Decider } from './decide.ts';
import type { ThreadMetrics } from './metrics.ts';
import { type ReplyTarget, Request } from './request.ts';
import { admit, runPending } from './runner.ts';
import type { ServedBundle, Slot } from './slot.ts';

/** Frames of one turn are copied here; a turn that fills it ends at once. Four of the largest frames, or 8,000 usual ones. */
const ARENA_BYTES = 4 * MAX_FRAME_BYTES;

const EMPTY = new Uint8Array(0);

export interface TurnServices {
  readonly journal: Journal;
  readonly metrics: ThreadMetrics;
  readonly defaultDeadlineMicros: number;
  /** Wall clock, milliseconds since 1970-01-01 UTC with fractions. */
  readonly nowMillis: () => number;
  /** Hands a request to the heavy process; complete() takes it back, once. */
  readonly submitHeavy: (request: Request) => void;
  /** The journal could not be written: what was answered is not on disk. */
  readonly onJournalFailure: (error: SetpointError, records: number) => void;
  readonly onDecision: (slot: Slot, reasons: number) => void;
}

interface Observation {
  readonly bytes: Uint8Array;
  readonly journaled: (sequence: number) => void;
}

/**
 * One turn, one batch, one write: requests that arrive in one turn of the event loop are run together at its end, judged,
 * written to the journal in one write, and only then answered. (The first request of a turn does not wait for its end when
 * the turn before had no more than one.) The order at the end of a turn is the contract:
 * run -> decide and append -> commit -> reply.
 */
export class Turn {
  readonly #services: TurnServices;
  readonly #decider = new Decider();
  readonly #arena = new Uint8Array(ARENA_BYTES);
  #arenaUsed = 0;
  #requests: Request[] = [];
  #observations: Observation[] = [];
  /** Bundles with rows to run, and their slots. */
  readonly #dirty = new Map<ServedBundle, Slot>();
  readonly #targets = new Set<ReplyTarget>();
  readonly #decisions: DecisionFrame[] = [];
  readonly #frames: Uint8Array[] = [];
  #isScheduled = false;
  /** Requests of this turn of the event loop, answered or not. */
  #turnRequests = 0;
  /** The last turn had at most one request, so the next request is probably alone in its turn, too. */
  #isQuiet = false;

  constructor(services: TurnServices) {
    this.#services = services;
  }

  /**
   * Copies a frame that is only borrowed (a WebSocket message) to where it stays valid until the turn ends. A frame that
   * does not fit ends the turn first.
   */
  keep(borrowed: Uint8Array): Uint8Array {
    if (this.#arenaUsed + borrowed.byteLength > ARENA_BYTES) this.end();
    const start = this.#arenaUsed;
    this.#arena.set(borrowed, start);
    this.#arenaUsed += borrowed.byteLength;
    return this.#arena.subarray(start, this.#arenaUsed);
  }

  /** Takes a predict request in. `bytes` must stay valid until the turn ends. */
  predict(target: ReplyTarget, slot: Slot, bundle: ServedBundle, frame: PredictFrame, bytes: Uint8Array, arrivedMillis: number): void {
    const deadlineMicros = frame.deadlineMicros === 0 ? this.#services.defaultDeadlineMicros : frame.deadlineMicros;
    const request = new Request(target, slot, bundle, frame, bytes, arrivedMillis, deadlineMicros);
    if (bundle.model === null) {
      this.#services.submitHeavy(request);
      return;
    }
    this.#requests.push(request);
    this.#dirty.set(bundle, slot);
    if (admit(request)) this.#run(slot, bundle);
    this.#turnRequests++;
    // A request that is alone gains nothing from waiting for the end of the turn: that costs it a tenth of its service time.
    // Whatever else comes in this turn waits for its end, and the next turn is a batch again.
    const isAnsweredNow = this.#isQuiet && !this.#isScheduled;
    this.#schedule();
    if (isAnsweredNow) this.end();
  }

  /** Takes a request back from the heavy lane, with its outputs or its reasons. */
  complete(request: Request): void {
    this.#requests.push(request);
    this.#schedule();
  }

  /** Writes an observation to the journal with this turn; `journaled` is called after the write. */
  observe(bytes: Uint8Array, journaled: (sequence: number) => void): void {
    this.#observations.push({ bytes, journaled });
    this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#onImmediate);
  }

  readonly #onImmediate = (): void => {
    this.#isScheduled = false;
    this.#isQuiet = this.#turnRequests <= 1;
    this.#turnRequests = 0;
    this.end();
  };

  #run(slot: Slot, bundle: ServedBundle): void {
    const runs = bundle.vector === null ? bundle.pending.length : Math.sign(bundle.pending.length);
    if (runs === 0) return;
    const started = performance.now();
    runPending(bundle);
    const { metrics } = this.#services;
    metrics.addToSlot(slot.index, 'runs', runs);
    metrics.addToSlot(slot.index, 'runMicros', (performance.now() - started) * 1000);
    metrics.add('modelRuns', runs);
  }

  /** Ends the turn now. Called by itself; also before stopping. */
  end(): void {
    if (this.#requests.length > 0 || this.#observations.length > 0) {
      for (const [bundle, slot] of this.#dirty) this.#run(slot, bundle);
      const sequences = this.#writeJournal();
      this.#reply();
      this.#observations.forEach((observation, at) => observation.journaled(sequences[at] as number));
      this.#clear();
    }
    this.#arenaUsed = 0;
  }

  /** Decides every request of the turn, writes decisions and observations in one write; returns the observations' numbers. */
  #writeJournal(): number[] {
    const { journal, metrics, nowMillis } = this.#services;
    const first = journal.nextSequence;
    const offset = journal.offset;
    const now = performance.now();
    const wall = nowMillis();
    for (const request of this.#requests) this.#decide(request, now, wall);
    const sequences = this.#observations.map(({ bytes }) => {
      journal.append(RECORD_KINDS.observation, Math.round(wall * 1000), bytes, EMPTY);
      return journal.nextSequence - 1;
    });
    try {
      journal.commit();
      metrics.add('journalRecords', journal.nextSequence - first);
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      this.#services.onJournalFailure(error, journal.nextSequence - first);
    }
    metrics.add('journalBytes', journal.offset - offset);
    return sequences;
  }

  #decide(request: Request, now: number, wall: number): void {
    const { journal, onDecision } = this.#services;
    const { slot } = request;
    if (request.error === null) {
      const decision = this.#decider.decide(request, journal.stream, journal.nextSequence, now, wall);
      const frame = encodeBounded(request, decision);
      if (frame !== null) {
        this.#decisions.push(decision);
        this.#frames.push(frame);
        journal.append(RECORD_KINDS.decision, decision.serverTimeMicros, request.bytes, frame);
        slot.lastRequestMillis = wall;
        if (decision.reasons !== 0) onDecision(slot, decision.reasons);
        return;
      }
      request.error = new SetpointError('frame_too_large', 'Cannot send the outputs: they do not fit one frame', {
        remedy: 'ask for fewer outputs, or use the HTTP door',
      });
    }
    this.#decisions.push(NO_DECISION);
    this.#frames.push(EMPTY);
  }

  #reply(): void {
    const { metrics } = this.#services;
    this.#requests.forEach((request, at) => {
      const { target, slot } = request;
      if (request.error === null) {
        target.decided(this.#decisions[at] as DecisionFrame, this.#frames[at] as Uint8Array);
      } else {
        metrics.addToSlot(slot.index, 'errors');
        target.failed(request.frame.requestId, request.error);
      }
      this.#targets.add(target);
    });
    for (const target of this.#targets) {
      target.handedMillis = performance.now();
      target.flush();
    }
    this.#requests.forEach((request, at) => {
      const decision = this.#decisions[at] as DecisionFrame;
      if (decision === NO_DECISION) return;
      metrics.answered(
        request.slot.index,
        ACTION_NUMBERS[decision.action],
        decision.reasons,
        (request.target.handedMillis - request.arrivedMillis) * 1000,
      );
    });
    metrics.add('turns');
  }

  #clear(): void {
    this.#requests = [];
    this.#observations = [];
    this.#decisions.length = 0;
    this.#frames.length = 0;
    this.#targets.clear();
    this.#dirty.clear();
  }
}

/**
 * The decision's frame. When its outputs make it too large, a guarded decision leaves without them, and so does the journal
 * record of an HTTP reply, which carries them itself; null where the outputs are the whole answer.
 */
function encodeBounded(request: Request, decision: DecisionFrame): Uint8Array | null {
  try {
    return encodeDecision(decision);
  } catch (error) {
    if (!(error instanceof SetpointError) || error.code !== 'frame_too_large' || decision.outputs === null) throw error;
    const isAnswer = request.bundle.isGuarded || !request.target.sendsFrames;
    return isAnswer ? encodeDecision({ ...decision, outputs: null }) : null;
  }
}

const ACTION_NUMBERS = { model: 0, clamped: 1, fallback: 2 } as const;

/** Stands in the list of decisions for a request that was refused. */
const NO_DECISION = {} as DecisionFrame;
