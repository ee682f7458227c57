import type { EstimatorState } from '../guard/estimator.ts';
import { compilePolicy, type GuardPolicy } from '../guard/policy.ts';
import type { Model } from '../infer/model.ts';
import { type VectorInput, vectorInput } from '../infer/model.ts';
import type { Manifest } from '../../protocol/manifest.ts';
import type { Request } from './request.ts';

/**
 * A bundle that a serving thread answers from. Its model is loaded on this thread (inline), or in the heavy process, which
 * loads it from `directory`.
 */
export class ServedBundle {
  readonly bundleId: string;
  readonly bundleIdBytes: Uint8Array;
  readonly directory: string;
  readonly manifest: Manifest;
  readonly policy: GuardPolicy;
  readonly vector: VectorInput | null;
  /** Null on the heavy lane. */
  readonly model: Model | null;
  /** Requests of this turn whose rows are in the model's buffer, in row order. */
  readonly pending: Request[] = [];
  /** Set when the model hung or killed its process; the fallback answers from then on. */
  isSuspended = false;

  constructor(bundleId: string, directory: string, manifest: Manifest, isBatchable: boolean, model: Model | null) {
    this.bundleId = bundleId;
    this.bundleIdBytes = Uint8Array.from(Buffer.from(bundleId, 'hex'));
    this.directory = directory;
    this.manifest = manifest;
    this.policy = compilePolicy(manifest);
    this.vector = model === null ? vectorInput(manifest, isBatchable) : model.vector;
    this.model = model;
  }

  /** Whether the bundle has a guard and so an answer for every request; a bundle of kind 'tensors' has none. */
  get isGuarded(): boolean {
    return this.policy.predicts || this.policy.corrects;
  }
}

/** One slot of a serving thread: the bundle that answers and what the fallback knows of its control threads. */
export class Slot {
  readonly name: string;
  /** Position in the shared metrics. */
  readonly index: number;
  active: ServedBundle | null = null;
  /** Loaded and warm, waiting for the order to take over. */
  standby: ServedBundle | null = null;
  /** Replicas of the control thread's estimators, by control-thread key. The owner bounds their number. */
  readonly estimators = new Map<string, EstimatorState>();
  /** Milliseconds since 1970-01-01 UTC, 0 for never. */
  lastRequestMillis = 0;

  constructor(name: string, index: number) {
    this.name = name;
    this.index = index;
  }
}
