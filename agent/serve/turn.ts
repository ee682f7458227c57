import { encodeDecision } from '../../protocol/codec.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { type DecisionFrame, type PredictFrame, REASONS } from '../../protocol/frames.ts';
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

/**
 * What is answered while the journal cannot be written: the decision all the same, the fallback, or an error. Records of what
 * is answered all the same wait in the journal's memory.
 */
export type JournalFailurePolicy = 'serve' | 'fallback' | 'refuse';

export interface TurnServices {
  readonly journal: Journal;
  readonly metrics: ThreadMetrics;
  readonly defaultDeadlineMicros: number;
  /** 'power' holds replies back until their records are on the disk itself. */
  readonly durability: 'process' | 'power';
  readonly onJournalFailure: JournalFailurePolicy;
  /** Wall clock, milliseconds since 1970-01-01 UTC with fractions. */
  readonly nowMillis: () => number;
  /** Hands a request to the heavy process; complete() takes it back, once. */
  readonly submitHeavy: (request: Request) => void;
  /** The journal could not be written or synced: these records of what was answered are not on disk yet, if they ever will be. */
  readonly journalFailed: (error: SetpointError, records: number) => void;
  readonly onDecision: (slot: Slot, reasons: number) => void;
}

/** An observation on its way through a turn; one of the two is called, once. */
export interface TurnObservation {
  readonly bytes: Uint8Array;
  /** It has this number in the journal. */
  journaled(sequence: number): void;
  refused(error: SetpointError): void;
}

/** Everything a turn answers. Lists of the same length belong together. */
class Answers {
  requests: Request[] = [];
  readonly decisions: DecisionFrame[] = [];
  readonly frames: Uint8Array[] = [];
  observations: TurnObservation[] = [];
  /** Null for an observation that is refused. */
  readonly sequences: (number | null)[] = [];
  /** Set when the journal fails and the policy is to refuse. */
  refusal: SetpointError | null = null;

  clear(): void {
    this.requests = [];
    this.observations = [];
    this.undecide();
    this.refusal = null;
  }

  undecide(): void {
    this.decisions.length = 0;
    this.frames.length = 0;
    this.sequences.length = 0;
  }
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
  #answers = new Answers();
  /** Turns whose replies wait for the disk. */
  #unsynced = 0;
  /** Bundles with rows to run, and their slots. */
  readonly #dirty = new Map<ServedBundle, Slot>();
  readonly #targets = new Set<ReplyTarget>();
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
    this.#answers.requests.push(request);
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
    this.#answers.requests.push(request);
    this.#schedule();
  }

  /** Writes an observation to the journal with this turn. */
  observe(observation: TurnObservation): void {
    this.#answers.observations.push(observation);
    this.#schedule();
  }

  /** Whether answers wait for the disk. */
  get isWaiting(): boolean {
    return this.#unsynced > 0;
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
    const answers = this.#answers;
    if (answers.requests.length > 0 || answers.observations.length > 0) {
      for (const [bundle, slot] of this.#dirty) this.#run(slot, bundle);
      this.#dirty.clear();
      const isWritten = this.#journal(answers);
      if (isWritten && this.#services.durability === 'power') this.#replyWhenSynced(answers);
      else {
        this.#reply(answers);
        answers.clear();
      }
    }
    this.#arenaUsed = 0;
  }

  /** Decides everything and writes it, as the policy says when it cannot be written. Returns whether records are in the file. */
  #journal(answers: Answers): boolean {
    const { journal, onJournalFailure, journalFailed } = this.#services;
    const first = journal.nextSequence;
    let isDegraded = onJournalFailure !== 'serve' && journal.isFailing;
    if (isDegraded) this.#degrade(answers);
    this.#decideAll(answers);
    const error = this.#commit(first);
    if (error === null) return journal.nextSequence > first;
    if (onJournalFailure !== 'serve' && !isDegraded) {
      // What was decided must not be answered: its records are taken back, and it is decided again. That cannot be written
      // either, so the commit fails again; what it keeps in memory is what is answered now.
      isDegraded = true;
      const kept = journal.withdrawFrom(first);
      this.#degrade(answers, kept);
      this.#decideAll(answers, kept);
      this.#commit(first);
    }
    journalFailed(error, journal.nextSequence - first);
    return false;
  }

  /** Leaves of a turn that cannot be written what the policy allows: fallbacks, or errors. Records below `kept` are in the file. */
  #degrade(answers: Answers, kept = 0): void {
    const error = new SetpointError('journal_failed', 'Cannot answer: the journal cannot be written, and answers must be in it');
    const isFallback = this.#services.onJournalFailure === 'fallback';
    for (const [at, request] of answers.requests.entries()) {
      if (isBelow(answers.decisions[at]?.sequence, kept)) continue;
      if (isFallback && request.bundle.isGuarded) request.laneReasons |= REASONS.journal_failed;
      else request.error ??= error;
    }
    answers.refusal = isFallback ? null : error;
  }

  /** Decides every request; one whose record is in the file already, below `kept`, is answered as it was decided. */
  #decideAll(answers: Answers, kept = 0): void {
    const { journal, nowMillis } = this.#services;
    const now = performance.now();
    const wall = nowMillis();
    const before = { decisions: [...answers.decisions], frames: [...answers.frames], sequences: [...answers.sequences] };
    answers.undecide();
    for (const [at, request] of answers.requests.entries()) {
      const decision = before.decisions[at];
      if (decision === undefined || !isBelow(decision.sequence, kept)) {
        this.#decide(answers, request, now, wall);
      } else {
        answers.decisions.push(decision);
        answers.frames.push(before.frames[at] as Uint8Array);
      }
    }
    for (const [at, { bytes }] of answers.observations.entries()) {
      const sequence = before.sequences[at];
      if (isBelow(sequence, kept)) {
        answers.sequences.push(sequence ?? null);
      } else if (answers.refusal === null) {
        answers.sequences.push(journal.nextSequence);
        journal.append(RECORD_KINDS.observation, Math.round(wall * 1000), bytes, EMPTY);
      } else {
        answers.sequences.push(null);
      }
    }
  }

  /** One write for the whole turn; the error when it failed. */
  #commit(first: number): SetpointError | null {
    const { journal, metrics } = this.#services;
    if (journal.nextSequence === first) return null;
    const written = journal.writtenBytes;
    try {
      journal.commit();
      metrics.add('journalRecords', journal.nextSequence - first);
      metrics.add('journalBytes', journal.writtenBytes - written);
      return null;
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      return error;
    }
  }

  #decide(answers: Answers, request: Request, now: number, wall: number): void {
    const { journal, onDecision } = this.#services;
    const { slot } = request;
    if (request.error === null) {
      const decision = this.#decider.decide(request, journal.stream, journal.nextSequence, now, wall);
      const frame = encodeBounded(request, decision);
      if (frame !== null) {
        answers.decisions.push(decision);
        answers.frames.push(frame);
        journal.append(RECORD_KINDS.decision, decision.serverTimeMicros, request.bytes, frame);
        slot.lastRequestMillis = wall;
        if (decision.reasons !== 0) onDecision(slot, decision.reasons);
        return;
      }
      request.error = new SetpointError('frame_too_large', 'Cannot send the outputs: they do not fit one frame', {
        remedy: 'ask for fewer outputs, or use the HTTP door',
      });
    }
    answers.decisions.push(NO_DECISION);
    answers.frames.push(EMPTY);
  }

  /** Holds the replies of this turn back until its records are on the disk; turns that come meanwhile share a sync. */
  #replyWhenSynced(answers: Answers): void {
    const { journal, onJournalFailure, journalFailed } = this.#services;
    this.#answers = new Answers();
    this.#unsynced++;
    journal.whenSynced((error) => {
      this.#unsynced--;
      if (error !== null) {
        journalFailed(error, answers.requests.length + answers.observations.length);
        // It was decided and may be on the disk: an answer other than that one would be a second decision.
        if (onJournalFailure !== 'serve') for (const request of answers.requests) request.error ??= error;
        if (onJournalFailure === 'refuse') {
          answers.refusal = error;
          answers.sequences.fill(null);
        }
      }
      this.#reply(answers);
    });
  }

  #reply(answers: Answers): void {
    const { metrics } = this.#services;
    const { requests, decisions, frames, observations, refusal, sequences } = answers;
    requests.forEach((request, at) => {
      const { target, slot } = request;
      if (request.error === null) {
        target.decided(decisions[at] as DecisionFrame, frames[at] as Uint8Array);
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
    this.#targets.clear();
    requests.forEach((request, at) => {
      if (request.error !== null) return;
      const decision = decisions[at] as DecisionFrame;
      metrics.answered(
        request.slot.index,
        ACTION_NUMBERS[decision.action],
        decision.reasons,
        (request.target.handedMillis - request.arrivedMillis) * 1000,
      );
    });
    observations.forEach((observation, at) => {
      const sequence = sequences[at] ?? null;
      if (sequence !== null) observation.journaled(sequence);
      else if (refusal !== null) observation.refused(refusal);
    });
    metrics.add('turns');
  }
}

/** Of nothing, and of a request that was refused, no record is below anything. */
function isBelow(sequence: number | null | undefined, kept: number): boolean {
  return typeof sequence === 'number' && sequence < kept;
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
