import { decodeServerFrame } from '../protocol/codec.ts';
import { FRAME_KINDS } from '../protocol/frames.ts';
import { benchGraph, FEATURE_COUNT, featureRows } from './bench-bundle.ts';
import { evaluateGraph } from './fab/graph.ts';
import { unpackReply } from './peers/ws-codec.ts';

/** Reads the prediction out of each contender's reply: a bench that times errors or another model must fail. */
export type ReadPrediction = (reply: Uint8Array) => number;

/** What the model says to the first request, by an evaluation that shares no code with ONNX Runtime. */
export function expectedPrediction(): number {
  const first = featureRows(1).slice(0, FEATURE_COUNT);
  return evaluateGraph(benchGraph('mlp'), first).get('prediction')?.[0] ?? Number.NaN;
}

/** float32 sums of 86 products of values near 1 agree to about 1e-5; Fastify's request has six digits. */
const TOLERANCE = 1e-2;

/** @throws Error when the reply does not carry the prediction of the bench model */
export function checkPrediction(name: string, predicted: number): void {
  const expected = expectedPrediction();
  if (Math.abs(predicted - expected) <= TOLERANCE) return;
  throw new Error(`Cannot time ${name}: it predicted ${predicted}, the model says ${expected}`);
}

/** @throws Error when the agent answered anything but the model's own value */
export function agentPrediction(reply: Uint8Array): number {
  const frame = decodeServerFrame(reply);
  if (frame.kind === FRAME_KINDS.decision && frame.action === 'model' && frame.value !== null) return frame.value;
  const text = JSON.stringify(frame, (_, value: unknown) => (value instanceof Uint8Array ? `${value.length} bytes` : value));
  throw new Error(`Cannot time the agent: it answered ${text}`);
}

/** The one float32 output stands at the end of the body. */
export function binaryTensorPrediction(reply: Uint8Array): number {
  return lastFloat(reply);
}

export function webSocketPeerPrediction(reply: Uint8Array): number {
  return unpackReply(reply).prediction;
}

export function jsonPrediction(reply: Uint8Array): number {
  return Number((JSON.parse(Buffer.from(reply).toString('utf8')) as { prediction: unknown }).prediction);
}

export function grpcPrediction(reply: Uint8Array): number {
  return lastFloat(reply);
}

function lastFloat(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getFloat32(bytes.length - 4, true);
}
