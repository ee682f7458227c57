import { join } from 'node:path';
import { decodeClientFrame } from '../../protocol/codec.ts';
import { assert, messageOf, SetpointError } from '../../protocol/errors.ts';
import { FRAME_KINDS, type ObserveFrame, type Outcome } from '../../protocol/frames.ts';
import { systemCode } from '../bundles/disk.ts';
import type { EstimatorState } from '../guard/estimator.ts';
import type { GuardPolicy } from '../guard/policy.ts';
import { scanJournal } from '../journal/reader.ts';
import { type JournalRecord, RECORD_KINDS } from '../journal/record.ts';
import { listSegments } from '../journal/segments.ts';
import type { Log } from '../log.ts';
import type { StreamSequence } from '../store/messages.ts';
import { EstimatorStore, type WaitingObservation } from './estimator-store.ts';
import type { ThreadMessage } from './messages.ts';
import { observationOf } from './observations.ts';

export interface EstimatorControlOptions {
  readonly dataDirectory: string;
  /** Slots of the configuration: nobody waits for the observations of another. */
  readonly slots: readonly string[];
  readonly log: Log;
  /** Tells every serving thread; null forgets. */
  readonly broadcast: (slot: string, key: string, state: EstimatorState | null) => void;
  /** A snapshot was written: observations up to these need no journal any more. */
  readonly saved: (snapshot: string, positions: readonly StreamSequence[]) => void;
}

/** Observations that may wait for one slot. Estimators look back 32 of them for each control thread; a tenth of these is usual. */
const MAX_WAITING = 10_000;

interface Replay extends WaitingObservation {
  /** Where it is in the journals; stream -1 for one that a snapshot kept. */
  readonly stream: number;
  readonly sequence: number;
}

/**
 * Brings the estimators back at start and keeps them: the snapshot first, then the observations that the journals hold
 * beyond it, each when its slot has a guard to read it with. Until then they are part of the snapshot, so that no journal has
 * to be kept for a slot that never gets ready.
 */
export class EstimatorControl {
  readonly #options: EstimatorControlOptions;
  readonly #store: EstimatorStore;
  /** Observations that wait for their slot. */
  readonly #replays = new Map<string, Replay[]>();
  readonly #told = new Set<string>();
  #needsCopy = false;

  constructor(options: EstimatorControlOptions) {
    this.#options = options;
    this.#store = new EstimatorStore(join(options.dataDirectory, 'estimators.json'));
  }

  /** There is no snapshot: one that was kept elsewhere would help, adopt() takes it. */
  get needsCopy(): boolean {
    return this.#needsCopy;
  }

  /** Before the serving threads open the journals: a damaged one is set aside then, and what it still tells is read here. */
  load(): void {
    try {
      const waiting = this.#store.load();
      this.#needsCopy = waiting === null;
      for (const observation of waiting ?? []) this.#wait({ ...observation, stream: -1, sequence: 0 });
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      this.#needsCopy = true;
      this.#options.log('warn', 'estimators damaged', { message: error.message, remedy: error.remedy });
    }
    // Every stream that is there, not only those of today's serving threads: there may have been more of them before.
    const segments = listSegments(join(this.#options.dataDirectory, 'journal'));
    for (const { path, stream } of segments) this.#read(path, stream);
    // Whoever is told of snapshots was not told of this one.
    this.#store.changed();
  }

  #read(path: string, stream: number): void {
    try {
      scanJournal(path, 0, (record) => this.#collect(record, stream));
    } catch (error) {
      // The store process of an agent that was killed may delete it meanwhile: then the snapshot has what it held.
      if (systemCode(error) !== 'ENOENT') throw error;
    }
  }

  #collect(record: JournalRecord, stream: number): void {
    if (record.kind !== RECORD_KINDS.observation || record.sequence <= this.#store.position(stream)) return;
    const { slot } = observeFrameOf(record.request.slice());
    const frame = Buffer.from(record.request).toString('base64');
    this.#wait({ slot, frame, timeMillis: record.timeMicros / 1000, stream, sequence: record.sequence });
    this.#store.reached(stream, record.sequence);
  }

  #wait(replay: Replay): void {
    if (!this.#options.slots.includes(replay.slot)) return;
    const waiting = this.#replays.get(replay.slot) ?? [];
    waiting.push(replay);
    if (waiting.length > MAX_WAITING) waiting.shift();
    this.#replays.set(replay.slot, waiting);
  }

  /** Takes the copy of a snapshot (its text, as saved() was told it), before any slot is ready; of what the journals told, the part beyond it stays. */
  adopt(copy: unknown): void {
    const own = [...this.#replays.values()].flat();
    const positions = this.#store.positions;
    try {
      const waiting = this.#store.adopt(JSON.parse(String(copy)));
      this.#replays.clear();
      for (const observation of waiting) this.#wait({ ...observation, stream: -1, sequence: 0 });
      for (const replay of own) if (replay.sequence > this.#store.position(replay.stream)) this.#wait(replay);
      this.#options.log('warn', 'estimators restored', { from: 'the store' });
    } catch (error) {
      this.#options.log('warn', 'estimators not restored', { message: messageOf(error) });
    }
    for (const { stream, sequence } of positions) this.#store.reached(stream, Math.max(sequence, this.#store.position(stream)));
    this.#needsCopy = false;
  }

  /** The slot has a guard: what waited for it is learnt, and its estimates go to the serving threads. */
  slotReady(slot: string, policy: GuardPolicy): void {
    // In the order in which they came, whichever serving thread took them: estimates depend on it.
    const waiting = (this.#replays.get(slot) ?? []).sort((one, other) => one.timeMillis - other.timeMillis);
    for (const { frame, timeMillis } of waiting) {
      const { key, observation } = observationOf(observeFrameOf(Buffer.from(frame, 'base64')), policy, timeMillis);
      this.#store.learn(slot, key, observation, policy, timeMillis, (...evicted) => this.#options.broadcast(...evicted, null));
    }
    this.#replays.delete(slot);
    if (this.#told.has(slot)) return;
    this.#told.add(slot);
    for (const entry of this.#store.entries) if (entry.slot === slot) this.#options.broadcast(slot, entry.key, entry.state);
  }

  learn(
    stream: number,
    message: Extract<ThreadMessage, { type: 'observation' }>,
    policy: GuardPolicy | null,
  ): { outcome: Outcome; estimate: number | null } {
    const { slot, key, observation, sequence } = message;
    this.#store.reached(stream, sequence);
    if (policy === null) return { outcome: 'recorded', estimate: null };
    const learnt = this.#store.learn(slot, key, observation, policy, Date.now(), (...evicted) => this.#options.broadcast(...evicted, null));
    if (learnt.state !== undefined) this.#options.broadcast(slot, key, learnt.state);
    return { outcome: learnt.outcome, estimate: learnt.estimate };
  }

  save(): void {
    try {
      const waiting = [...this.#replays.values()].flat().map(({ slot, frame, timeMillis }) => ({ slot, frame, timeMillis }));
      const text = this.#store.save(waiting);
      if (text !== null) this.#options.saved(text, this.#store.positions);
    } catch (error) {
      // The journals still hold every observation; the next interval tries again.
      this.#options.log('error', 'estimators not saved', { message: messageOf(error) });
    }
  }
}

function observeFrameOf(bytes: Uint8Array): ObserveFrame {
  const frame = decodeClientFrame(bytes);
  assert(frame.kind === FRAME_KINDS.observe, 'an observation record holds an observe frame');
  return frame;
}
