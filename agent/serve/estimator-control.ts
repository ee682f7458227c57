import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { decodeClientFrame } from '../../protocol/codec.ts';
import { messageOf } from '../../protocol/errors.ts';
import { FRAME_KINDS, type ObserveFrame, type Outcome } from '../../protocol/frames.ts';
import type { EstimatorState } from '../guard/estimator.ts';
import type { GuardPolicy } from '../guard/policy.ts';
import { journalPath } from '../journal/open.ts';
import { scanJournal } from '../journal/reader.ts';
import { type JournalRecord, RECORD_KINDS } from '../journal/record.ts';
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

  load(streams: number): void {
    const damage = this.#store.load();
    if (damage !== null) this.#options.log('warn', 'estimators damaged', { message: damage.message, remedy: damage.remedy });
    for (let stream = 0; stream < streams; stream++) this.#collect(stream);
  }

  #collect(stream: number): void {
    const path = journalPath(join(this.#options.dataDirectory, 'journal'), stream);
    if (!existsSync(path)) return;
    const { sequence, offset } = this.#store.position(stream);
    let last = { sequence, offset };
    const visit = (record: JournalRecord, recordOffset: number): void => {
      if (record.kind !== RECORD_KINDS.observation || record.sequence <= last.sequence) return;
      const frame = decodeClientFrame(record.request.slice());
      if (frame.kind !== FRAME_KINDS.observe) return;
      const waiting = this.#replays.get(frame.slot) ?? [];
      waiting.push({ frame, timeMillis: record.timeMicros / 1000 });
      this.#replays.set(frame.slot, waiting);
      last = { sequence: record.sequence, offset: recordOffset };
    };
    // A journal that was set aside and begun anew does not have the old offset: it is read from its start.
    const isKnown = offset <= statSync(path).size && scanJournal(path, offset, visit)?.tail !== 'damaged';
    if (!isKnown) scanJournal(path, 0, visit);
    this.#store.reached(stream, last);
  }

  /** The slot has a guard: what waited for it is learnt, and its estimates go to the serving threads. */
  slotReady(slot: string, policy: GuardPolicy): void {
    for (const { frame, timeMillis } of this.#replays.get(slot) ?? []) {
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
    const { slot, key, observation, sequence, offset } = message;
    this.#store.reached(stream, { sequence, offset });
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
