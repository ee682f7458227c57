import { encodeFrame } from '../../protocol/codec.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import { type ClientFrame, type Context, FRAME_KINDS } from '../../protocol/frames.ts';

/** Every request of a run is made from its id alone: what the log holds can be compared with it without keeping it. */

export const SLOT = 'crash/sum';
/** The bundle answers the sum of the two features and this. */
export const BIAS = 1;
/** Every so many requests is an observation, in rounds that have any. */
const OBSERVE_EVERY = 16;
/** Observations have ids of their own, above those of predict requests. */
const FIRST_OBSERVATION = 2 ** 40;
const TIME_MILLIS = Date.UTC(2026, 0, 1);
/** Makes a record 1.5 kB large, twice the usual, so that segments are finished all the time at a rate that a small machine has. */
const LONG_ID = '.'.repeat(160);

export class RequestIds {
  #next = 0;

  next(isObserving: boolean): number {
    this.#next += 1;
    return isObserving && this.#next % OBSERVE_EVERY === 0 ? FIRST_OBSERVATION + this.#next : this.#next;
  }
}

export function isObservation(requestId: number): boolean {
  return requestId >= FIRST_OBSERVATION;
}

export function substrateOf(requestId: number): string {
  return `LOT${Math.floor(requestId / 25)}.${requestId % 25}#${requestId}`;
}

/** The value a decision about this request must have when the model made it. */
export function expectedValue(requestId: number): number {
  const [first = 0, second = 0] = featuresOf(requestId);
  return Math.fround(Math.fround(first + second) + BIAS);
}

function featuresOf(requestId: number): Float32Array {
  return Float32Array.of(requestId % 4096, Math.floor(requestId / 4096) % 4096);
}

export function requestBytes(requestId: number): Uint8Array {
  return encodeFrame(isObservation(requestId) ? observeFrame(requestId) : predictFrame(requestId));
}

function predictFrame(requestId: number): ClientFrame {
  const features: WireTensor = {
    name: 'features',
    datatype: 'FP32',
    shape: [1, 2],
    bytes: new Uint8Array(featuresOf(requestId).buffer),
  };
  return {
    kind: FRAME_KINDS.predict,
    requestId,
    slot: SLOT,
    context: contextOf(requestId),
    // Longer than a busy machine may take: the answer of every request that is answered is the model's.
    deadlineMicros: 10_000_000,
    lastApplied: null,
    features: { encoding: 'tensors', tensors: [features] },
    outputs: [],
  };
}

function observeFrame(requestId: number): ClientFrame {
  return {
    kind: FRAME_KINDS.observe,
    requestId,
    slot: SLOT,
    context: contextOf(requestId),
    measurementId: `M${requestId}`,
    parameter: 'CD',
    value: requestId % 100,
    unit: 'nm',
    appliedInput: null,
    measuredAtMillis: TIME_MILLIS + (requestId % FIRST_OBSERVATION),
  };
}

function contextOf(requestId: number): Context {
  return {
    substrateId: substrateOf(requestId),
    lotId: `LOT${Math.floor(requestId / 25)}${LONG_ID}`,
    carrierId: `CARRIER${LONG_ID}`,
    slotId: String(requestId % 25),
    equipmentId: 'SCANNER-A',
    moduleId: 'STAGE-1',
    recipeId: `GATE;3${LONG_ID}`,
    stepId: null,
    processJobId: `PJ${LONG_ID}`,
    controlJobId: `CJ${LONG_ID}`,
    product: 'PRODUCT-X',
    runNumber: requestId % FIRST_OBSERVATION,
    processEndMillis: TIME_MILLIS + (requestId % FIRST_OBSERVATION),
  };
}
