import type { Datatype, WireTensor } from '../../protocol/datatype.ts';
import type { SetpointError } from '../../protocol/errors.ts';
import type { Context } from '../../protocol/frames.ts';

/** What the HTTP door and the rest of the agent owe each other. Nothing here knows a socket or a model runtime. */

/** Largest request body, bytes. Binary: a batch of 4,096 rows of 1,024 FP32 features. The socket's door refuses more before it buffers it. */
export const MAX_BODY_BYTES = 16 * 1024 * 1024;

/**
 * Largest JSON part of a request, bytes; as much as one frame of the binary protocol. Reading it holds up the serving
 * thread: 25 ms for 100,000 numbers of 9 digits, 0.1 to 0.3 s for 500,000 of one digit (2 shared cores). More than that
 * belongs in the binary part.
 */
export const MAX_JSON_BYTES = 1024 * 1024;

/**
 * Deepest nesting of the JSON part: request, inputs, input and data are 4, a tensor has at most 8 dimensions, the rest is
 * head room. Checked before parsing: 16 MiB of brackets would cost the parser 5.7 s and 745 MB.
 */
export const MAX_JSON_DEPTH = 16;

/**
 * Largest JSON part, characters, in which integers beyond 2^53 are read exactly. That takes a reviver call per value
 * (1.8 us each), so the worst case here, 128 Ki one-digit values, costs 0.25 s.
 */
export const MAX_EXACT_JSON_LENGTH = 256 * 1024;

export interface HttpRequest {
  /** Upper case. */
  readonly method: string;
  /** Raw: still percent-encoded, without the query. */
  readonly path: string;
  readonly query: string;
  /** The value of a header by its lower-case name, '' when absent. */
  readonly headers: (lowercaseName: string) => string;
  /** Stays valid and unchanged until the request is answered. */
  readonly body: Uint8Array;
  /** The peer's address is a loopback address. */
  readonly isLoopback: boolean;
}

export interface HttpReply {
  readonly status: number;
  /** Without Content-Length, which the socket's door writes. */
  readonly headers: readonly (readonly [string, string])[];
  /** Empty for HEAD. */
  readonly body: Uint8Array | string;
}

export interface TensorDescription {
  readonly name: string;
  readonly datatype: Datatype;
  /** -1 is a free dimension. */
  readonly shape: readonly number[];
}

/** A slot, as the Open Inference Protocol sees one. */
export interface ModelDescription {
  /** The slot. */
  readonly name: string;
  /** The versions that a request may name; `inputs` and `outputs` hold for each of them. */
  readonly versions: readonly string[];
  readonly platform: 'onnx_onnxv1';
  readonly inputs: readonly TensorDescription[];
  readonly outputs: readonly TensorDescription[];
  readonly properties?: Readonly<Record<string, string>>;
  readonly isReady: boolean;
}

export interface InferenceJob {
  readonly model: string;
  /** One of the description's versions, null for the active one. */
  readonly version: string | null;
  /** In the order of the description, each once, checked against it. Views into the request's body: valid until `done`. */
  readonly inputs: readonly WireTensor[];
  /** Names from the description, null for all. */
  readonly outputs: readonly string[] | null;
  /** From the arrival of the request, 0 for the agent's default. */
  readonly deadlineMicros: number;
  readonly context: Context | null;
  /** The recipe setting in force, in the correction's unit. */
  readonly lastApplied: number | null;
}

export interface InferenceResult {
  /**
   * At least the outputs that exist: where the fallback answered because the model did not, only the guarded role outputs
   * do. Their bytes are copied before `done` returns.
   */
  readonly outputs: readonly WireTensor[];
  readonly version: string;
  /** Passed through to the client, for example setpoint_action and setpoint_reasons. */
  readonly parameters: Readonly<Record<string, string | number | boolean>>;
}

export interface DurationStatistic {
  readonly count: number;
  readonly totalNanos: number;
}

interface BatchStatistic {
  /** Rows in one run of the model. */
  readonly batchSize: number;
  readonly computeInput: DurationStatistic;
  readonly computeInfer: DurationStatistic;
  readonly computeOutput: DurationStatistic;
}

/** Totals of one model version since the agent started, after Triton's statistics extension. */
export interface ModelStatistics {
  readonly name: string;
  readonly version: string;
  /** Milliseconds since 1970-01-01 UTC, 0 for never. */
  readonly lastInferenceMillis: number;
  /** Rows that were predicted. */
  readonly inferenceCount: number;
  /** Runs of the model; one run predicts a whole batch. */
  readonly executionCount: number;
  readonly success: DurationStatistic;
  readonly fail: DurationStatistic;
  readonly queue: DurationStatistic;
  readonly computeInput: DurationStatistic;
  readonly computeInfer: DurationStatistic;
  readonly computeOutput: DurationStatistic;
  readonly batches: readonly BatchStatistic[];
}

export interface InferenceServices {
  isLive(): boolean;
  isReady(): boolean;
  readonly software: { readonly name: string; readonly version: string };
  models(): readonly ModelDescription[];
  model(name: string): ModelDescription | undefined;
  /** Calls `done` exactly once, during the call or later. */
  infer(job: InferenceJob, done: (outcome: InferenceResult | SetpointError) => void): void;
  /** One entry per version of the model, of every model for null. */
  statistics(model: string | null): readonly ModelStatistics[];
  /** @throws SetpointError unknown_slot, invalid_bundle or what else kept the model from loading */
  load(model: string): Promise<void>;
  /** @throws SetpointError unknown_slot */
  unload(model: string): Promise<void>;
  /** Prometheus text format 0.0.4. */
  metricsText(): string;
  /** JSON that says what the server's readiness depends on. */
  readinessDetail(): unknown;
}
