import { SetpointError } from '../../protocol/errors.ts';
import type { InferenceJob, InferenceResult, InferenceServices, ModelDescription, ModelStatistics } from '../http/services.ts';
import { framesOf, HttpTarget } from './http-inference.ts';
import type { StatusDetail, StoreView } from './messages.ts';
import type { ThreadField, ThreadMetrics } from './metrics.ts';
import { metricsText } from './metrics-text.ts';
import type { Slot } from './slot.ts';
import type { Turn } from './turn.ts';

export interface HttpServicesOptions {
  readonly software: string;
  readonly slots: ReadonlyMap<string, Slot>;
  readonly metrics: readonly ThreadMetrics[];
  readonly turn: Turn;
  readonly status: () => { readonly isReady: boolean; readonly detail: StatusDetail; readonly store: StoreView };
  /** Asks the control thread; rejects with its SetpointError. */
  readonly repository: (action: 'load' | 'unload', slot: string) => Promise<void>;
}

const NO_DURATION = { count: 0, totalNanos: 0 } as const;

/** What the HTTP door asks of a serving thread. */
export class HttpServices implements InferenceServices {
  readonly software: { readonly name: string; readonly version: string };
  readonly #options: HttpServicesOptions;
  #nextRequestId = 1;

  constructor(options: HttpServicesOptions) {
    this.#options = options;
    this.software = { name: 'setpoint-agent', version: options.software };
  }

  isLive(): boolean {
    return true;
  }

  isReady(): boolean {
    return this.#options.status().isReady;
  }

  models(): readonly ModelDescription[] {
    return [...this.#options.slots.values()].map(describe);
  }

  model(name: string): ModelDescription | undefined {
    const slot = this.#options.slots.get(name);
    return slot === undefined ? undefined : describe(slot);
  }

  infer(job: InferenceJob, done: (outcome: InferenceResult | SetpointError) => void): void {
    const arrivedMillis = performance.now();
    const { slots, turn, status } = this.#options;
    const slot = slots.get(job.model);
    const bundle = slot?.active ?? null;
    if (slot === undefined || bundle === null || status().detail.isStopping) {
      done(new SetpointError(slot === undefined ? 'unknown_slot' : 'not_ready', `Cannot infer: slot '${job.model}' has no active bundle`));
      return;
    }
    let frames;
    try {
      frames = framesOf(job, bundle, this.#nextRequestId);
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      done(error);
      return;
    }
    const target = new HttpTarget(bundle, this.#nextRequestId, frames.length, done);
    this.#nextRequestId += frames.length;
    for (const { frame, bytes } of frames) turn.predict(target, slot, bundle, frame, bytes, arrivedMillis);
  }

  statistics(model: string | null): readonly ModelStatistics[] {
    return [...this.#options.slots.values()]
      .filter((slot) => slot.active !== null && (model === null || slot.name === model))
      .map((slot) => this.#statisticsOf(slot));
  }

  load(model: string): Promise<void> {
    return this.#options.repository('load', model);
  }

  unload(model: string): Promise<void> {
    return this.#options.repository('unload', model);
  }

  metricsText(): string {
    const { metrics, slots, status } = this.#options;
    const { isReady, detail, store } = status();
    return metricsText(metrics, [...slots.keys()], detail, isReady, store);
  }

  readinessDetail(): unknown {
    const { metrics, status } = this.#options;
    const sum = (field: ThreadField): number => metrics.reduce((total, thread) => total + thread.get(field), 0);
    const { detail, store } = status();
    const journal = {
      isFailing: sum('journalFailing') > 0,
      failures: sum('journalFailures'),
      ringRecords: sum('ringRecords'),
      recoveredRecords: sum('recoveredRecords'),
      lostRecords: sum('lostRecords'),
    };
    return { journal, store: store.report, ...detail };
  }

  #statisticsOf(slot: Slot): ModelStatistics {
    const sum = (value: (thread: ThreadMetrics) => number): number =>
      this.#options.metrics.reduce((total, thread) => total + value(thread), 0);
    const requests = sum((thread) => thread.slotField(slot.index, 'requests'));
    const runs = sum((thread) => thread.slotField(slot.index, 'runs'));
    return {
      name: slot.name,
      version: slot.active?.manifest.version ?? '',
      lastInferenceMillis: Math.round(slot.lastRequestMillis),
      inferenceCount: requests,
      executionCount: runs,
      success: { count: requests, totalNanos: Math.round(sum((thread) => thread.slotMicros(slot.index)) * 1000) },
      fail: { count: sum((thread) => thread.slotField(slot.index, 'errors')), totalNanos: 0 },
      queue: NO_DURATION,
      computeInput: NO_DURATION,
      computeInfer: { count: runs, totalNanos: Math.round(sum((thread) => thread.slotField(slot.index, 'runMicros')) * 1000) },
      computeOutput: NO_DURATION,
      batches: [],
    };
  }
}

function describe(slot: Slot): ModelDescription {
  const { active } = slot;
  return {
    name: slot.name,
    versions: active === null ? [] : [active.manifest.version],
    platform: 'onnx_onnxv1',
    inputs: active?.manifest.inputs ?? [],
    outputs: active?.manifest.outputs ?? [],
    properties: active === null ? {} : { kind: active.manifest.kind, bundle: active.bundleId },
    isReady: active !== null && !active.isSuspended,
  };
}
