import { encodeFrame } from '../protocol/codec.ts';
import { type Context, FRAME_KINDS } from '../protocol/frames.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST } from '../protocol/limits.ts';
import { FEATURE_COUNT, featureRows, floatBytes } from './bench-bundle.ts';
import { packRequest } from './peers/ws-codec.ts';

/** The requests of the benches, built once before anything is measured. */

/** Different wafers sent in turn: more than a turn of the agent takes alone, so that no two rows of a batch are alike. */
const DISTINCT = 64;

/** Ids and run numbers start here so that all requests encode to the same length. */
const FIRST_NUMBER = 1000;

/** No request may meet the fallback in a saturated run: the benches time the model's answers. */
const DEADLINE_MICROS = 1_000_000;

const CONTEXT: Context = {
  substrateId: 'LOT240731.07-W13',
  lotId: 'LOT240731.07',
  carrierId: 'FOUP-002317',
  slotId: '13',
  equipmentId: 'ETCH-07',
  moduleId: 'CH-B',
  recipeId: 'OX-ETCH-45:12',
  stepId: 'ETCH-45',
  processJobId: 'PJ-0042',
  controlJobId: 'CJ-0007',
  product: 'PRODUCT-X',
  runNumber: FIRST_NUMBER,
  processEndMillis: 1_795_000_000_000,
};

function rows(): Float32Array[] {
  const all = featureRows(DISTINCT);
  return Array.from({ length: DISTINCT }, (_, index) => all.slice(index * FEATURE_COUNT, (index + 1) * FEATURE_COUNT));
}

export function helloPayload(): Uint8Array {
  return encodeFrame({
    kind: FRAME_KINDS.hello,
    versionOldest: PROTOCOL_VERSION_OLDEST,
    versionNewest: PROTOCOL_VERSION,
    client: 'setpoint-bench',
    token: null,
  });
}

/** Predict frames with 86 float32 features and a full SEMI context: 489 bytes for the slots of the bench. */
export function predictPayloads(slot: string): Uint8Array[] {
  return rows().map((features, index) =>
    encodeFrame({
      kind: FRAME_KINDS.predict,
      requestId: FIRST_NUMBER + index,
      slot,
      context: { ...CONTEXT, runNumber: FIRST_NUMBER + index },
      deadlineMicros: DEADLINE_MICROS,
      lastApplied: null,
      features: { encoding: 'float32', bytes: floatBytes(features) },
      outputs: null,
    }),
  );
}

/** The WebSocket peer's requests: no context, no deadline, which favours it. */
export function webSocketPeerPayloads(): Uint8Array[] {
  return rows().map((features, index) => packRequest({ id: FIRST_NUMBER + index, features: Buffer.from(floatBytes(features)) }));
}

export function grpcPeerPayload(): Uint8Array {
  return floatBytes(featureRows(1));
}

export interface HttpRequest {
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** Fastify's request. Six significant digits hold a float32 sensor value well enough and keep the text short. */
export function jsonRequest(): HttpRequest {
  const features = Array.from(featureRows(1), (value) => Number(value.toPrecision(6)));
  return { path: '/predict', headers: { 'content-type': 'application/json' }, body: Buffer.from(JSON.stringify({ features })) };
}

/** The Open Inference Protocol with the binary tensor extension, in and out. */
export function binaryTensorRequest(slot: string): HttpRequest {
  const tensor = floatBytes(featureRows(1));
  const head = Buffer.from(
    JSON.stringify({
      id: '1000',
      inputs: [{ name: 'features', shape: [1, FEATURE_COUNT], datatype: 'FP32', parameters: { binary_data_size: tensor.length } }],
      parameters: { binary_data_output: true },
    }),
  );
  return {
    path: `/v2/models/${slot}/infer`,
    headers: { 'content-type': 'application/octet-stream', 'inference-header-content-length': String(head.length) },
    body: Buffer.concat([head, tensor]),
  };
}

/** A whole HTTP/1.1 request as bytes, keep-alive by default. */
export function httpBytes({ path, headers, body }: HttpRequest): Uint8Array {
  const lines = [`POST ${path} HTTP/1.1`, 'Host: 127.0.0.1', `Content-Length: ${body.length}`];
  for (const [name, value] of Object.entries(headers)) lines.push(`${name}: ${value}`);
  return Buffer.concat([Buffer.from(`${lines.join('\r\n')}\r\n\r\n`), body]);
}
