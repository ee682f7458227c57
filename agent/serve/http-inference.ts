import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { encodeFrame } from '../../protocol/codec.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { type DecisionFrame, FRAME_KINDS, type PredictFrame, REASONS, reasonNames } from '../../protocol/frames.ts';
import type { Manifest } from '../../protocol/manifest.ts';
import type { InferenceJob, InferenceResult } from '../http/services.ts';
import { tensorRows } from '../infer/model.ts';
import type { ReplyTarget } from './request.ts';
import type { ServedBundle } from './slot.ts';

/** Rows of one HTTP request to a guarded slot: each is a decision of its own, with its own journal record. */
const MAX_HTTP_ROWS = 4096;

/**
 * Cuts an inference job into predict frames: one a row where the slot has a guard, since each row is a decision about a
 * substrate; the whole job in one where it has none.
 * @throws SetpointError frame_too_large
 */
export function framesOf(job: InferenceJob, bundle: ServedBundle, firstRequestId: number): { frame: PredictFrame; bytes: Uint8Array }[] {
  const rows = bundle.isGuarded ? rowCount(job.inputs, bundle.manifest) : 1;
  if (rows > MAX_HTTP_ROWS) {
    throw new SetpointError('frame_too_large', `Cannot take ${rows} rows at once: ${MAX_HTTP_ROWS} are allowed`);
  }
  const inputs = job.inputs.map((tensor) => (rows === 1 ? [tensor] : tensorRows(tensor, rows)));
  return Array.from({ length: rows }, (_, row) => {
    const frame: PredictFrame = {
      kind: FRAME_KINDS.predict,
      requestId: firstRequestId + row,
      slot: job.model,
      context: job.context,
      deadlineMicros: job.deadlineMicros,
      lastApplied: job.lastApplied,
      features: { encoding: 'tensors', tensors: inputs.map((cut) => cut[row] as WireTensor) },
      outputs: job.outputs ?? [],
    };
    return { frame, bytes: encodeFrame(frame) };
  });
}

/**
 * The common first dimension of all inputs; 1 when they have none in common, or when the model does not leave it free: a
 * trace of 64 samples is one substrate.
 */
function rowCount(inputs: readonly WireTensor[], manifest: Manifest): number {
  const rows = inputs[0]?.shape[0] ?? 1;
  const isShared = inputs.every((tensor) => tensor.shape.length >= 2 && tensor.shape[0] === rows);
  const isFree = manifest.inputs.every((input) => input.shape[0] === -1);
  return isShared && isFree && rows > 0 ? rows : 1;
}

/** Collects the decisions of one HTTP request and answers when the last has come. */
export class HttpTarget implements ReplyTarget {
  readonly sendsFrames = false;
  handedMillis = 0;
  readonly #bundle: ServedBundle;
  readonly #firstRequestId: number;
  readonly #decisions: (DecisionFrame | undefined)[];
  readonly #done: (outcome: InferenceResult | SetpointError) => void;
  #missing: number;
  #error: SetpointError | null = null;
  #isAnswered = false;

  constructor(bundle: ServedBundle, firstRequestId: number, rows: number, done: (outcome: InferenceResult | SetpointError) => void) {
    this.#bundle = bundle;
    this.#firstRequestId = firstRequestId;
    this.#decisions = Array<DecisionFrame | undefined>(rows).fill(undefined);
    this.#missing = rows;
    this.#done = done;
  }

  decided(decision: DecisionFrame): void {
    this.#decisions[decision.requestId - this.#firstRequestId] = decision;
    this.#missing--;
  }

  failed(_requestId: number, error: SetpointError): void {
    this.#error ??= error;
    this.#missing--;
  }

  flush(): void {
    if (this.#missing > 0 || this.#isAnswered) return;
    this.#isAnswered = true;
    this.#done(this.#error ?? resultOf(this.#bundle, this.#decisions as DecisionFrame[]));
  }
}

function resultOf(bundle: ServedBundle, decisions: readonly DecisionFrame[]): InferenceResult | SetpointError {
  const [first] = decisions;
  if (!bundle.isGuarded && (first === undefined || first.outputs === null)) {
    const isLate = first !== undefined && (first.reasons & REASONS.deadline) !== 0;
    return new SetpointError(
      'overloaded',
      isLate ? 'Cannot answer by the deadline: the model took longer' : 'Cannot answer: the model gave no outputs',
    );
  }
  return {
    outputs: bundle.isGuarded ? guardedOutputs(bundle.manifest, decisions) : (first?.outputs ?? []),
    version: bundle.manifest.version,
    parameters: parametersOf(decisions),
  };
}

function parametersOf(decisions: readonly DecisionFrame[]): Record<string, string | number> {
  const [first] = decisions;
  const parameters: Record<string, string | number> = {
    setpoint_action: decisions.map((decision) => decision.action).join(','),
    setpoint_reasons: decisions.map((decision) => reasonNames(decision.reasons).join('+')).join(','),
    setpoint_stream: first?.stream ?? 0,
    setpoint_sequence: first?.sequence ?? 0,
    setpoint_bundle: Buffer.from(first?.bundleId ?? []).toString('hex'),
  };
  if (decisions.length === 1 && first !== undefined) {
    const numbers = { value: first.value, correction: first.correction, ri: first.ri, gsi: first.gsi };
    for (const [name, value] of Object.entries(numbers)) if (value !== null) parameters[`setpoint_${name}`] = value;
  }
  return parameters;
}

/** Model outputs with the role outputs replaced by what the guard decided: a client that knows no guard gets safe values. */
function guardedOutputs(manifest: Manifest, decisions: readonly DecisionFrame[]): WireTensor[] {
  return manifest.outputs.flatMap((output) => {
    if (output.name === manifest.roles.prediction?.output)
      return guarded(
        output,
        decisions.map((decision) => decision.value),
      );
    if (output.name === manifest.roles.correction?.output)
      return guarded(
        output,
        decisions.map((decision) => settingOutput(manifest, decision)),
      );
    const rows = decisions.map((decision) => decision.outputs?.find((tensor) => tensor.name === output.name));
    return rows.every((row) => row !== undefined) ? stacked(rows) : [];
  });
}

/** The decided setting in the form in which the model gives it. */
function settingOutput(manifest: Manifest, decision: DecisionFrame): number | null {
  const isOffset = manifest.roles.correction?.form === 'offset';
  return decision.correction === null ? null : decision.correction - (isOffset ? (manifest.guard.correction?.baseline ?? 0) : 0);
}

function guarded(output: Manifest['outputs'][number], values: readonly (number | null)[]): WireTensor[] {
  const { datatype, name } = output;
  if (datatype !== 'FP32' && datatype !== 'FP64') return [];
  const width = DATATYPES[datatype].bytes;
  const bytes = new Uint8Array(values.length * width);
  const view = new DataView(bytes.buffer);
  values.forEach((value, row) => {
    const number = value ?? Number.NaN;
    if (datatype === 'FP32') view.setFloat32(row * width, number, true);
    else view.setFloat64(row * width, number, true);
  });
  const shape = output.shape.map((dimension, axis) => (axis === 0 ? values.length : dimension === -1 ? 1 : dimension));
  return [{ name, datatype, shape, bytes }];
}

function stacked(rows: readonly WireTensor[]): WireTensor[] {
  const [first] = rows;
  if (first === undefined || rows.length === 1) return first === undefined ? [] : [first];
  const bytes = new Uint8Array(rows.reduce((total, row) => total + row.bytes.byteLength, 0));
  let at = 0;
  for (const row of rows) {
    bytes.set(row.bytes, at);
    at += row.bytes.byteLength;
  }
  return [{ ...first, shape: [rows.length, ...first.shape.slice(1)], bytes }];
}
