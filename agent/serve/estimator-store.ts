import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import type { Outcome } from '../../protocol/frames.ts';
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

  #evict(evicted: (slot: string, key: string) => void): void {
    for (const { slot, key } of this.#entries.values()) {
      if (this.#entries.size <= MAX_THREADS) return;
      this.#entries.delete(key);
      evicted(slot, key);
    }
  }

  /**
   * Reads the snapshot. One that cannot be read is set aside and told of by the error returned: the journals still hold
   * every observation.
   */
  load(): SetpointError | null {
    if (!existsSync(this.#path)) return null;
    try {
      const snapshot = JSON.parse(readFileSync(this.#path, 'utf8')) as { format?: unknown; positions?: unknown; threads?: unknown };
      if (snapshot.format !== FORMAT || !Array.isArray(snapshot.positions) || !Array.isArray(snapshot.threads))
        throw new Error('it is no snapshot of estimators');
      for (const { stream, sequence } of snapshot.positions as { stream: number; sequence: number }[])
        this.#positions.set(stream, sequence);
      for (const { slot, key, state } of snapshot.threads as Entry[])
        this.#entries.set(key, { slot, key, state: parseEstimatorState(state) });
      return null;
    } catch (cause) {
      this.#entries.clear();
      this.#positions.clear();
      renameSync(this.#path, `${this.#path}.damaged`);
      return new SetpointError('internal', `Cannot read the estimators: ${messageOf(cause)}: they are learnt again from the journals`, {
        remedy: `look at ${this.#path}.damaged; nothing else has to be done`,
        cause,
      });
    }
  }

  /** Writes the snapshot if anything changed: to a new file, synced, renamed over the old one. */
  save(): void {
    if (!this.#isDirty) return;
    const positions = [...this.#positions].map(([stream, sequence]) => ({ stream, sequence }));
    const text = JSON.stringify({ format: FORMAT, positions, threads: [...this.#entries.values()] });
    const draft = `${this.#path}.new`;
    const descriptor = openSync(draft, 'w', 0o640);
    try {
      writeSync(descriptor, text);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(draft, this.#path);
    this.#isDirty = false;
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
