import { existsSync, readFileSync, renameSync } from 'node:fs';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import type { Outcome } from '../../protocol/frames.ts';
import { replaceFile } from '../bundles/disk.ts';
import { estimateNext, type EstimatorState, type Observation, observe, parseEstimatorState } from '../guard/estimator.ts';
import type { EstimatorParameters } from '../guard/policy.ts';

const FORMAT = 'setpoint.estimators.v1';

/** Control threads with an estimate: 150 models x 10 chambers x 5 recipes, with room. About 5 KB each. */
const MAX_THREADS = 10_000;

export interface LearntObservation {
  readonly outcome: Outcome;
  readonly estimate: number | null;
  readonly state: EstimatorState | undefined;
}

/** An observation that no slot could learn yet: its frame's bytes as base64. */
export interface WaitingObservation {
  readonly slot: string;
  readonly frame: string;
  readonly timeMillis: number;
}

/** What is kept, as JSON. */
interface Snapshot {
  readonly format: typeof FORMAT;
  readonly positions: readonly { readonly stream: number; readonly sequence: number }[];
  readonly threads: readonly Entry[];
  readonly waiting: readonly WaitingObservation[];
}

interface Entry {
  readonly slot: string;
  readonly key: string;
  readonly state: EstimatorState;
}

/**
 * The estimators of all control threads, owned by the agent's control thread; serving threads hold replicas. On disk it is
 * a snapshot: what came after it is in the journals and is learnt again at start.
 */
export class EstimatorStore {
  readonly #path: string;
  readonly #entries = new Map<string, Entry>();
  /** By stream: every observation up to this sequence number is part of the states. */
  readonly #positions = new Map<number, number>();
  #isDirty = false;

  constructor(path: string) {
    this.#path = path;
  }

  get entries(): Iterable<Entry> {
    return this.#entries.values();
  }

  position(stream: number): number {
    return this.#positions.get(stream) ?? 0;
  }

  /** Learns an observation. `evicted` is told of a control thread that had to make room, the one longest without news. */
  learn(
    slot: string,
    key: string,
    observation: Observation,
    parameters: EstimatorParameters,
    nowMillis: number,
    evicted: (slot: string, key: string) => void,
  ): LearntObservation {
    const known = this.#entries.get(key)?.state;
    const { state, outcome } = observe(known, observation, parameters);
    if (state !== undefined && state !== known) {
      this.#entries.delete(key);
      this.#entries.set(key, { slot, key, state });
      this.#isDirty = true;
      this.#evict(evicted);
    }
    return { outcome, state, estimate: nextValue(state, observation, parameters, nowMillis) };
  }

  reached(stream: number, sequence: number): void {
    this.#positions.set(stream, sequence);
    this.#isDirty = true;
  }

  /** Lets the next save() write, whether anything was learnt or not. */
  changed(): void {
    this.#isDirty = true;
  }

  #evict(evicted: (slot: string, key: string) => void): void {
    for (const { slot, key } of this.#entries.values()) {
      if (this.#entries.size <= MAX_THREADS) return;
      this.#entries.delete(key);
      evicted(slot, key);
    }
  }

  /** By stream: observations up to here need not be learnt again. */
  get positions(): Snapshot['positions'] {
    return [...this.#positions].map(([stream, sequence]) => ({ stream, sequence }));
  }

  /**
   * Reads the snapshot: the observations that waited when it was made, or null when there is none. One that cannot be read
   * is set aside and told of by the error.
   * @throws SetpointError internal
   */
  load(): readonly WaitingObservation[] | null {
    if (!existsSync(this.#path)) return null;
    try {
      return this.adopt(JSON.parse(readFileSync(this.#path, 'utf8')));
    } catch (cause) {
      renameSync(this.#path, `${this.#path}.damaged`);
      throw new SetpointError('internal', `Cannot read the estimators: ${messageOf(cause)}: they are learnt again from what was kept`, {
        remedy: `look at ${this.#path}.damaged; nothing else has to be done`,
        cause,
      });
    }
  }

  /** Takes a snapshot in place of what is here. @throws Error when it is none; nothing is known then */
  adopt(snapshot: unknown): readonly WaitingObservation[] {
    this.#entries.clear();
    this.#positions.clear();
    try {
      const { format, positions, threads, waiting } = (snapshot ?? {}) as Partial<Snapshot>;
      if (format !== FORMAT || !Array.isArray(positions) || !Array.isArray(threads) || !Array.isArray(waiting))
        throw new Error('it is no snapshot of estimators');
      for (const { stream, sequence } of positions as Snapshot['positions']) this.#positions.set(stream, sequence);
      for (const { slot, key, state } of threads as Entry[]) this.#entries.set(key, { slot, key, state: parseEstimatorState(state) });
      return waiting as readonly WaitingObservation[];
    } catch (cause) {
      this.#entries.clear();
      this.#positions.clear();
      throw cause;
    }
  }

  /**
   * Writes the snapshot if anything changed: to a new file, synced, renamed over the old one. Returns its text, null when
   * there was nothing to write.
   */
  save(waiting: readonly WaitingObservation[]): string | null {
    if (!this.#isDirty) return null;
    const snapshot: Snapshot = { format: FORMAT, positions: this.positions, threads: [...this.#entries.values()], waiting };
    const text = JSON.stringify(snapshot);
    replaceFile(this.#path, new TextEncoder().encode(text));
    this.#isDirty = false;
    return text;
  }
}

function nextValue(
  state: EstimatorState | undefined,
  observation: Observation,
  parameters: EstimatorParameters,
  nowMillis: number,
): number | null {
  const result = { hasEstimate: false, isStale: false, fallbackValue: Number.NaN, fallbackSetting: Number.NaN };
  const query = { runNumber: Number.NaN, nowMillis, input: observation.appliedInput ?? Number.NaN };
  estimateNext(state, parameters, query, result);
  return Number.isFinite(result.fallbackValue) ? result.fallbackValue : null;
}
