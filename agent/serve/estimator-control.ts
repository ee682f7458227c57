import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { decodeClientFrame } from '../../protocol/codec.ts';
import { messageOf } from '../../protocol/errors.ts';
import { FRAME_KINDS, type ObserveFrame, type Outcome } from '../../protocol/frames.ts';
import type { EstimatorState } from '../guard/estimator.ts';
import type { GuardPolicy } from '../guard/policy.ts';
import { journalPath } from '../journal/open.ts';
import { scanJournal } from '../journal/reader.ts';
import { RECORD_KINDS } from '../journal/record.ts';
import type { Log } from '../log.ts';
import { EstimatorStore } from './estimator-store.ts';
import type { ThreadMessage } from './messages.ts';
import { observationOf } from './observations.ts';

export interface EstimatorControlOptions {
  readonly dataDirectory: string;
  readonly log: Log;
  /** Tells every serving thread; null forgets. */
  readonly broadcast: (slot: string, key: string, state: EstimatorState | null) => void;
}

const STREAM_FILE = /^stream-(\d+)\.journal$/;

interface Replay {
  readonly frame: ObserveFrame;
  readonly timeMillis: number;
}

/**
 * Brings the estimators back at start and keeps them: the snapshot first, then the observations that the journals hold
 * beyond it, each when its slot has a guard to read it with.
 */
export class EstimatorControl {
  readonly #options: EstimatorControlOptions;
  readonly #store: EstimatorStore;
  /** Observations of the journals, by slot, that wait for their slot. While there are any, no snapshot is written. */
  readonly #replays = new Map<string, Replay[]>();
  readonly #told = new Set<string>();

  constructor(options: EstimatorControlOptions) {
    this.#options = options;
    this.#store = new EstimatorStore(join(options.dataDirectory, 'estimators.json'));
  }

  /** Before the serving threads open the journals: a damaged one is set aside then, and what it still tells is read here. */
  load(): void {
    const damage = this.#store.load();
    if (damage !== null) this.#options.log('warn', 'estimators damaged', { message: damage.message, remedy: damage.remedy });
    const folder = join(this.#options.dataDirectory, 'journal');
    if (!existsSync(folder)) return;
    // Every stream that is there, not only those of today's serving threads: there may have been more of them before.
    for (const name of readdirSync(folder)) {
      const stream = STREAM_FILE.exec(name)?.[1];
      if (stream !== undefined) this.#collect(journalPath(folder, Number(stream)), Number(stream));
    }
  }

  #collect(path: string, stream: number): void {
    let reached = this.#store.position(stream);
    scanJournal(path, 0, (record) => {
      if (record.kind !== RECORD_KINDS.observation || record.sequence <= reached) return;
      const frame = decodeClientFrame(record.request.slice());
      if (frame.kind !== FRAME_KINDS.observe) return;
      const waiting = this.#replays.get(frame.slot) ?? [];
      waiting.push({ frame, timeMillis: record.timeMicros / 1000 });
      this.#replays.set(frame.slot, waiting);
      reached = record.sequence;
    });
    this.#store.reached(stream, reached);
  }

  /** The slot has a guard: what waited for it is learnt, and its estimates go to the serving threads. */
  slotReady(slot: string, policy: GuardPolicy): void {
    // In the order in which they came, whichever serving thread took them: estimates depend on it.
    const waiting = (this.#replays.get(slot) ?? []).sort((one, other) => one.timeMillis - other.timeMillis);
    for (const { frame, timeMillis } of waiting) {
      const { key, observation } = observationOf(frame, policy, timeMillis);
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
    if (this.#replays.size > 0) return;
    try {
      this.#store.save();
    } catch (error) {
      // The journals still hold every observation; the next interval tries again.
      this.#options.log('error', 'estimators not saved', { message: messageOf(error) });
    }
  }
}
