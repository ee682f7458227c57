import { DATATYPE_NAMES, type Datatype } from '../../../protocol/datatype.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { route } from '../../../agent/http/routes.ts';
import type {
  HttpReply,
  HttpRequest,
  InferenceJob,
  InferenceResult,
  InferenceServices,
  ModelDescription,
  ModelStatistics,
  TensorDescription,
} from '../../../agent/http/services.ts';

const identity = (name: string, tensors: readonly TensorDescription[], isReady = true): ModelDescription => ({
  name,
  versions: ['1.0.0', '0.9.0'],
  platform: 'onnx_onnxv1',
  inputs: tensors,
  outputs: tensors,
  isReady,
});

/** One identity model per datatype, named `echo/<datatype>`, of shape [-1]; and the slots that the sentences speak of. */
export const MODELS: readonly ModelDescription[] = [
  ...DATATYPE_NAMES.map((datatype) => identity(`echo/${datatype}`, [{ name: 'x', datatype, shape: [-1] }])),
  identity('cd/scanner-a/product-x', [{ name: 'features', datatype: 'FP32', shape: [-1, 3] }]),
  identity('pair', [
    { name: 'left', datatype: 'INT32', shape: [2, 2] },
    { name: 'flags', datatype: 'BOOL', shape: [3] },
  ]),
  identity('cube', [{ name: 'x', datatype: 'FP64', shape: [-1, 2, 2] }]),
  identity('wide', [{ name: 'x', datatype: 'FP32', shape: [-1, -1] }]),
  identity('etch/ready', [{ name: 'x', datatype: 'FP32', shape: [1] }]),
  { ...identity('asleep', [{ name: 'x', datatype: 'FP32', shape: [1] }], false), properties: { unit: 'nm' } },
];

const none = { count: 0, totalNanos: 0 };

const STATISTICS: ModelStatistics = {
  name: 'pair',
  version: '1.0.0',
  lastInferenceMillis: 1_700_000_000_000,
  inferenceCount: 64,
  executionCount: 2,
  success: { count: 3, totalNanos: 900 },
  fail: none,
  queue: none,
  computeInput: none,
  computeInfer: { count: 2, totalNanos: 500 },
  computeOutput: none,
  batches: [{ batchSize: 32, computeInput: none, computeInfer: { count: 2, totalNanos: 500 }, computeOutput: none }],
};

/** Identity models that remember what they were asked; every part of the behaviour can be replaced. */
export class FakeServices implements InferenceServices {
  readonly software = { name: 'setpoint', version: '0.1.0' };
  readonly jobs: InferenceJob[] = [];
  readonly loads: string[] = [];
  live = true;
  ready = true;
  parameters: InferenceResult['parameters'] = {};
  outcome: ((job: InferenceJob) => InferenceResult | SetpointError) | null = null;

  isLive(): boolean {
    return this.live;
  }
  isReady(): boolean {
    return this.ready;
  }
  models(): readonly ModelDescription[] {
    return MODELS;
  }
  model(name: string): ModelDescription | undefined {
    return MODELS.find((model) => model.name === name);
  }
  infer(job: InferenceJob, done: (outcome: InferenceResult | SetpointError) => void): void {
    this.jobs.push(job);
    done(this.outcome?.(job) ?? { outputs: job.inputs, version: job.version ?? '1.0.0', parameters: this.parameters });
  }
  statistics(model: string | null): readonly ModelStatistics[] {
    return [STATISTICS, { ...STATISTICS, version: '0.9.0' }, { ...STATISTICS, name: 'cube' }].filter(
      (one) => model === null || one.name === model,
    );
  }
  async load(model: string): Promise<void> {
    if (this.model(model) === undefined) {
      throw new SetpointError('unknown_slot', `Cannot load ${model}: no slot has this name`);
    }
    this.loads.push(`load ${model}`);
  }
  async unload(model: string): Promise<void> {
    this.loads.push(`unload ${model}`);
  }
  metricsText(): string {
    return 'setpoint_decisions_total 3\n';
  }
  readinessDetail(): unknown {
    return { store: 'down' };
  }
}

export interface Sent {
  readonly method?: string;
  readonly body?: Uint8Array | string | object;
  readonly headers?: Readonly<Record<string, string>>;
  readonly isLoopback?: boolean;
}

/** The reply of the door, once it is there; the array keeps every reply so that a second one is seen. */
export function sendAll(services: InferenceServices, path: string, sent: Sent = {}): HttpReply[] {
  const replies: HttpReply[] = [];
  const { body = '', headers = {} } = sent;
  const text = typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body);
  const request: HttpRequest = {
    method: sent.method ?? 'GET',
    path,
    query: '',
    headers: (name) => headers[name] ?? '',
    body: typeof text === 'string' ? new TextEncoder().encode(text) : text,
    isLoopback: sent.isLoopback ?? false,
  };
  route(request, services, (reply) => replies.push(reply));
  return replies;
}

/** As sendAll, for requests that are answered at once. */
export function send(services: InferenceServices, path: string, sent: Sent = {}): HttpReply {
  const [reply, ...more] = sendAll(services, path, sent);
  if (reply === undefined || more.length > 0) {
    throw new Error(`${path} was answered ${more.length + (reply === undefined ? 0 : 1)} times`);
  }
  return reply;
}

/** POSTs to a model's infer path. */
export function infer(services: InferenceServices, model: string, body: Uint8Array | string | object, headerLength?: string): HttpReply {
  const headers: Record<string, string> = headerLength === undefined ? {} : { 'inference-header-content-length': headerLength };
  return send(services, `/v2/models/${model}/infer`, { method: 'POST', body, headers });
}

/** A body of the binary extension: the JSON, then the blobs; with the value of the header. */
export function binaryBody(json: object, ...blobs: readonly Uint8Array[]): { body: Uint8Array; length: string } {
  const head = Buffer.from(JSON.stringify(json));
  return { body: new Uint8Array(Buffer.concat([head, ...blobs])), length: String(head.length) };
}

export function headerOf(reply: HttpReply, name: string): string | undefined {
  return reply.headers.find(([one]) => one.toLowerCase() === name.toLowerCase())?.[1];
}

// oxlint-disable-next-line typescript/no-explicit-any
export function jsonOf(reply: HttpReply): any {
  const length = headerOf(reply, 'inference-header-content-length');
  const bytes = typeof reply.body === 'string' ? Buffer.from(reply.body) : reply.body.subarray(0, Number(length));
  return JSON.parse(Buffer.from(bytes).toString());
}

/** The binary part of a reply. */
export function blobOf(reply: HttpReply): Uint8Array {
  return (reply.body as Uint8Array).slice(Number(headerOf(reply, 'inference-header-content-length')));
}

export function wire(datatype: Datatype, values: readonly (number | bigint)[]): Uint8Array {
  const arrays = {
    BOOL: Uint8Array,
    UINT8: Uint8Array,
    UINT16: Uint16Array,
    UINT32: Uint32Array,
    UINT64: BigUint64Array,
    INT8: Int8Array,
    INT16: Int16Array,
    INT32: Int32Array,
    INT64: BigInt64Array,
    FP16: Uint16Array,
    FP32: Float32Array,
    FP64: Float64Array,
    BYTES: Uint8Array,
  };
  const array = (arrays[datatype] as unknown as { from(values: unknown): { buffer: ArrayBuffer } }).from(values);
  return new Uint8Array(array.buffer);
}
