import { SetpointError } from '../../protocol/errors.ts';
import { REASONS } from '../../protocol/frames.ts';
import type { HeavyLane } from '../infer/heavy-lane.ts';
import type { OrtTensors } from '../infer/session.ts';
import { toFeeds } from '../infer/tensor.ts';
import { checkTensors, placeVector, tensorsOf } from './inputs.ts';
import type { Request } from './request.ts';
import { fail, takeOutputs } from './runner.ts';

/** Deaths of the heavy process during runs of a bundle before it is suspended: once may be the neighbour's fault. */
const MAX_CRASHES = 3;

export interface HeavyRequestServices {
  readonly lane: HeavyLane;
  /** Takes the request into the next turn, answered. */
  readonly complete: (request: Request) => void;
  /** A result came after its request had been answered. */
  readonly discarded: (request: Request) => void;
  readonly suspended: (bundleId: string, why: string) => void;
}

/**
 * Sends requests to the heavy process with the deadline enforced here, outside it: at the deadline the request is
 * completed without outputs, whatever the model does, and a result that comes later is discarded.
 */
export class HeavyRequests {
  readonly #services: HeavyRequestServices;
  readonly #crashes = new Map<string, number>();
  /** Bundles that the death being told counts against: its runs are all told of it before anything else happens. */
  readonly #counted = new Set<string>();
  #isDeathExplained = false;

  constructor(services: HeavyRequestServices) {
    this.#services = services;
  }

  /** Bundles were suspended and their process is killed for it: the other runs that it takes along are innocent. */
  explainDeath(): void {
    this.#isDeathExplained = true;
  }

  /** Another process takes over. */
  processStarted(): void {
    this.#isDeathExplained = false;
  }

  submit(request: Request): void {
    const { bundle } = request;
    const { lane, complete } = this.#services;
    // The request outlives its turn: its bytes leave the arena.
    request.bytes = request.bytes.slice();
    const feeds = this.#feedsOf(request);
    if (feeds === null) {
      complete(request);
    } else if (bundle.isSuspended) {
      fail(
        request,
        new SetpointError('not_ready', `Cannot run the model: bundle ${bundle.bundleId} is suspended after it hung or crashed`),
      );
      complete(request);
    } else if (lane.isFull) {
      if (bundle.isGuarded) request.laneReasons |= REASONS.overload;
      else request.error = new SetpointError('overloaded', `Cannot run the model: ${lane.inFlight} runs are waiting`);
      complete(request);
    } else {
      this.#run(request, feeds);
    }
  }

  #run(request: Request, feeds: OrtTensors): void {
    const { bundle } = request;
    const { lane, complete, discarded } = this.#services;
    let isOpen = true;
    const close = (): boolean => {
      const wasOpen = isOpen;
      isOpen = false;
      clearTimeout(timer);
      if (!wasOpen) discarded(request);
      return wasOpen;
    };
    const remainingMillis = request.deadlineMicros / 1000 - (performance.now() - request.arrivedMillis);
    // A timer fires up to a millisecond after its time; the answer must not.
    const timer = setTimeout(
      () => {
        request.isExpired = true;
        if (close()) complete(request);
      },
      Math.max(0, Math.floor(remainingMillis) - 1),
    );
    lane.run(bundle.bundleId, bundle.directory, feeds, {
      onResult: (outputs) => {
        if (!close()) return;
        takeOutputs(request, outputs, 1);
        complete(request);
      },
      onFailure: (error, isCrash) => {
        if (isCrash) this.#countCrash(request);
        if (!close()) return;
        fail(request, error);
        complete(request);
      },
    });
  }

  #countCrash({ bundle }: Request): void {
    if (this.#isDeathExplained || this.#counted.has(bundle.bundleId)) return;
    this.#counted.add(bundle.bundleId);
    queueMicrotask(() => this.#counted.clear());
    const crashes = (this.#crashes.get(bundle.bundleId) ?? 0) + 1;
    this.#crashes.set(bundle.bundleId, crashes);
    if (crashes < MAX_CRASHES || bundle.isSuspended) return;
    bundle.isSuspended = true;
    this.#services.suspended(bundle.bundleId, `the heavy process died ${crashes} times while it ran`);
  }

  /** The model's feeds; null when the input is wrong, with the reason in the request. */
  #feedsOf(request: Request): OrtTensors | null {
    const { bundle, frame } = request;
    const { vector, manifest, policy, isGuarded } = bundle;
    if (vector !== null && isGuarded) {
      const rows = vector.encoding === 'float32' ? new Float32Array(vector.featureCount) : new Float64Array(vector.featureCount);
      request.inputReasons = placeVector(frame.features, vector, rows, 0, policy);
      const dims = manifest.inputs[0]?.shape.length === 1 ? [vector.featureCount] : [1, vector.featureCount];
      return request.inputReasons === 0 ? { [vector.name]: { type: vector.encoding, data: rows, dims, location: 'cpu' } } : null;
    }
    try {
      const tensors = tensorsOf(frame.features, manifest);
      if (isGuarded) request.inputReasons = checkTensors(tensors);
      if (request.inputReasons !== 0) return null;
      return toFeeds(tensors);
    } catch (cause) {
      if (!(cause instanceof SetpointError)) throw cause;
      if (isGuarded) request.inputReasons = REASONS.input_count;
      else request.error = cause;
      return null;
    }
  }
}
