import { encodeFrame } from '../../../protocol/codec.ts';
import { FRAME_KINDS, type DecisionFrame, type ObserveFrame, type PredictFrame } from '../../../protocol/frames.ts';
import type { DrainPosition, RecordToStore } from '../../../agent/store/writer.ts';

/** Realistic records: what a controller sends and the agent answers, encoded as they travel. */

export const BUNDLE_A = new Uint8Array(32).fill(0xa1);
export const BUNDLE_B = new Uint8Array(32).fill(0xb2);

const NO_CONTEXT = {
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

export interface RecordChoices {
  readonly substrateId?: string | null;
  readonly bundleId?: Uint8Array;
  readonly timeMicros?: number;
  readonly featureCount?: number;
  readonly stream?: number;
  readonly outputs?: DecisionFrame['outputs'];
}

export function timeOf(sequence: number): number {
  return 1_795_000_000_000_000 + sequence * 10_000;
}

export function decision(sequence: number, choices: RecordChoices = {}): RecordToStore {
  const { substrateId = `LOT${Math.floor(sequence / 25)}.${sequence % 25}`, bundleId = BUNDLE_A, featureCount = 86, stream = 0 } = choices;
  const timeMicros = choices.timeMicros ?? timeOf(sequence);
  const features = new Float32Array(featureCount).map((_, at) => Math.fround(sequence * 0.25 + at));
  const predict: PredictFrame = {
    kind: FRAME_KINDS.predict,
    requestId: sequence,
    slot: 'etch-cd',
    context: {
      ...NO_CONTEXT,
      substrateId,
      lotId: `LOT${Math.floor(sequence / 25)}`,
      moduleId: 'PM2',
      recipeId: 'ETCH-7;3',
      runNumber: sequence,
    },
    deadlineMicros: 0,
    lastApplied: 12.5,
    features: { encoding: 'float32', bytes: new Uint8Array(features.buffer) },
    outputs: null,
  };
  const answer: DecisionFrame = {
    kind: FRAME_KINDS.decision,
    requestId: sequence,
    sequence,
    stream,
    action: 'model',
    reasons: 0,
    value: 42.25 + sequence,
    rawValue: 42.25 + sequence,
    correction: null,
    rawCorrection: null,
    ri: 0.97,
    riThreshold: 0.5,
    gsi: 1.2,
    gsiThreshold: 3,
    bundleId,
    version: '1.4.0',
    serverTimeMicros: timeMicros,
    outputs: choices.outputs ?? null,
  };
  return { kind: 1, sequence, timeMicros, request: encodeFrame(predict).slice(), reply: encodeFrame(answer).slice() };
}

export function observation(sequence: number, substrateId: string): RecordToStore {
  const observe: ObserveFrame = {
    kind: FRAME_KINDS.observe,
    requestId: sequence,
    slot: 'etch-cd',
    context: { ...NO_CONTEXT, substrateId },
    measurementId: `M${sequence}`,
    parameter: 'CD',
    value: 42.5,
    unit: 'nm',
    appliedInput: 12.5,
    measuredAtMillis: 1_795_000_000_000,
  };
  return { kind: 2, sequence, timeMicros: timeOf(sequence), request: encodeFrame(observe).slice(), reply: new Uint8Array(0) };
}

export function alert(sequence: number): RecordToStore {
  const request = new TextEncoder().encode(JSON.stringify({ alert: 'clamped', slot: 'etch-cd', message: `alert ${sequence}` }));
  return { kind: 3, sequence, timeMicros: timeOf(sequence), request, reply: new Uint8Array(0) };
}

export function decisions(from: number, to: number, choices: RecordChoices = {}): RecordToStore[] {
  return Array.from({ length: to - from + 1 }, (_, at) => decision(from + at, choices));
}

export function positionAt(lastSequence: number, choices: Partial<DrainPosition> = {}): DrainPosition {
  return { stream: 0, epoch: 7n, segment: 1, offset: 32 + lastSequence * 700, lastSequence, ...choices };
}
