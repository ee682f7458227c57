import type { OrtTensors } from '../../../agent/infer/session.ts';
import { Model } from '../../../agent/infer/model.ts';
import { type ReplyTarget, Request } from '../../../agent/serve/request.ts';
import { ServedBundle, Slot } from '../../../agent/serve/slot.ts';
import type { SetpointError } from '../../../protocol/errors.ts';
import { type Context, type DecisionFrame, FRAME_KINDS, type ObserveFrame, type PredictFrame } from '../../../protocol/frames.ts';
import type { Manifest } from '../../../protocol/manifest.ts';
import { FLOAT, int64s, model, value } from '../bundles/tiny-onnx.ts';
import { guardedManifest } from '../guard/guarded-manifest.ts';

/** Bundles, frames and targets as serving threads have them, small enough to see through. */

/** y = the first feature, features [N, 2]; a batch is 64 rows. */
const FIRST_FEATURE = model({
  nodes: [{ op: 'Gather', inputs: ['features', 'zero'], outputs: ['y'], attributes: [gatherAxis(1)] }],
  initializers: [int64s('zero', [1], [0])],
  inputs: [value(11, 'features', FLOAT, ['N', 2])],
  outputs: [value(12, 'y', FLOAT, ['N', 1])],
});

/** Attribute `axis` of Gather: name (1), i (3), type INT (20: 2). */
function gatherAxis(axis: number): number[] {
  return [0x0a, 4, 0x61, 0x78, 0x69, 0x73, 0x18, axis, 0xa0, 0x01, 2];
}

export const BASELINE = 74;

/** Predicts the first feature; the fallback is an estimate by EWMA, or 74. */
const PREDICTS: Readonly<Record<string, unknown>> = {
  kind: 'prediction',
  features: [{ name: 'first', min: -1000, max: 1000 }, { name: 'second' }],
  roles: { prediction: { output: 'y' } },
  guard: {},
  fallback: { estimator: 'ewma', lambda: 0.5, baselineValue: BASELINE, threadBy: ['equipmentId'] },
};

export const TENSORS: Readonly<Record<string, unknown>> = { kind: 'tensors', roles: {} };

export function manifestOf(spec: Readonly<Record<string, unknown>> = PREDICTS): Manifest {
  return guardedManifest(spec, [{ name: 'features', datatype: 'FP32', shape: [-1, 2] }]);
}

let bundleCount = 0;

/** @param lane 'heavy' leaves the model out, as a serving thread does for the heavy lane */
export function servedBundle(lane: 'inline' | 'heavy' = 'inline', spec: Readonly<Record<string, unknown>> = PREDICTS): ServedBundle {
  const manifest = manifestOf(spec);
  const bundleId = (++bundleCount).toString(16).padStart(64, '0');
  const loaded = lane === 'heavy' ? null : new Model(manifest, true, FIRST_FEATURE, []);
  return new ServedBundle(bundleId, `/bundles/${bundleId}`, manifest, true, loaded);
}

export function slotWith(bundle: ServedBundle, name = 'etch', index = 0): Slot {
  const slot = new Slot(name, index);
  slot.active = bundle;
  return slot;
}

export function vector(...numbers: readonly number[]): PredictFrame['features'] {
  return { encoding: 'float32', bytes: new Uint8Array(Float32Array.from(numbers).buffer) };
}

export function predictFrame(fields: Partial<PredictFrame> = {}): PredictFrame {
  return {
    kind: FRAME_KINDS.predict,
    requestId: 1,
    slot: 'etch',
    context: null,
    deadlineMicros: 1_000_000,
    lastApplied: null,
    features: vector(5, 6),
    outputs: null,
    ...fields,
  };
}

export const NO_CONTEXT: Context = {
  substrateId: null,
  lotId: null,
  carrierId: null,
  slotId: null,
  equipmentId: null,
  moduleId: null,
  recipeId: null,
  stepId: null,
  processJobId: null,
  controlJobId: null,
  product: null,
  runNumber: null,
  processEndMillis: null,
};

export function observeFrame(fields: Partial<ObserveFrame> = {}): ObserveFrame {
  return {
    kind: FRAME_KINDS.observe,
    requestId: 1,
    slot: 'etch',
    context: NO_CONTEXT,
    measurementId: 'm-1',
    parameter: 'depth',
    value: 70,
    unit: null,
    appliedInput: null,
    measuredAtMillis: 5000,
    ...fields,
  };
}

/** Writes down what it is told, into a log that others may share. */
export class RecordingTarget implements ReplyTarget {
  handedMillis = 0;
  readonly sendsFrames: boolean;
  readonly decisions: DecisionFrame[] = [];
  readonly frames: Uint8Array[] = [];
  readonly errors: SetpointError[] = [];
  readonly #log: string[];

  constructor(log: string[] = [], sendsFrames = true) {
    this.#log = log;
    this.sendsFrames = sendsFrames;
  }

  decided(decision: DecisionFrame, bytes: Uint8Array): void {
    this.decisions.push(decision);
    this.frames.push(Uint8Array.from(bytes));
    this.#log.push(`decided ${decision.requestId}`);
  }

  failed(requestId: number, error: SetpointError): void {
    this.errors.push(error);
    this.#log.push(`failed ${requestId}`);
  }

  flush(): void {
    this.#log.push('flush');
  }
}

export function requestOf(bundle: ServedBundle, frame: PredictFrame = predictFrame(), arrivedMillis = performance.now()): Request {
  const bytes = Uint8Array.of(frame.requestId);
  return new Request(new RecordingTarget(), slotWith(bundle), bundle, frame, bytes, arrivedMillis, frame.deadlineMicros);
}

export function outputsOf(...numbers: readonly number[]): OrtTensors {
  return { y: { type: 'float32', data: Float32Array.from(numbers), dims: [numbers.length, 1], location: 'cpu' } };
}
