import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { REASONS } from '../../protocol/frames.ts';
import { outputNumber } from '../infer/model.ts';
import type { OrtTensors } from '../infer/session.ts';
import { checkTensors, placeVector, tensorsOf } from './inputs.ts';
import type { Request } from './request.ts';
import type { ServedBundle } from './slot.ts';

/** Runs models for requests of one turn on this thread: rows together where the model can, else one by one. */

/**
 * Takes a request in: checks its inputs and puts its row into the batch. Returns whether the batch is full and must run
 * before the next row. Requests that fail the check are not run at all.
 */
export function admit(request: Request): boolean {
  const { bundle, frame } = request;
  const { model, vector } = bundle;
  if (model === null || vector === null || model.rows === null) {
    bundle.pending.push(request);
    return true;
  }
  request.inputReasons = placeVector(frame.features, vector, model.rows, bundle.pending.length, bundle.policy);
  if (request.inputReasons !== 0 && (bundle.isGuarded || !isRowUnguarded(request))) return false;
  request.row = bundle.pending.length;
  bundle.pending.push(request);
  return bundle.pending.length === vector.capacityRows;
}

/**
 * Whether a row that a guard would stop goes into the batch all the same: without a guard nothing is wrong with a NaN. What
 * is no single row runs here and now, since several rows fit the model too; where they do not, that is the sender's error.
 */
function isRowUnguarded(request: Request): boolean {
  const isRow = (request.inputReasons & REASONS.input_count) === 0;
  request.inputReasons = 0;
  if (!isRow) runAlone(request);
  return isRow;
}

/** Runs everything pending of a bundle and fills in the requests' outputs. Never throws: a model's failure is its requests' reason. */
export function runPending(bundle: ServedBundle): void {
  const { pending, model } = bundle;
  if (model === null || pending.length === 0) return;
  if (bundle.vector === null) for (const request of pending) runAlone(request);
  else runTogether(bundle);
  pending.length = 0;
}

function runTogether(bundle: ServedBundle): void {
  const { pending, model } = bundle;
  if (model === null) return;
  const rows = pending.length;
  try {
    const isEveryOutputWanted = pending.some((request) => request.frame.outputs !== null);
    const outputs = model.runRows(rows, isEveryOutputWanted);
    for (const request of pending) takeOutputs(request, outputs, rows);
  } catch (cause) {
    for (const request of pending) fail(request, cause);
  }
}

function runAlone(request: Request): void {
  const { bundle, frame } = request;
  let tensors;
  try {
    tensors = tensorsOf(frame.features, bundle.manifest);
  } catch (cause) {
    if (bundle.isGuarded) request.inputReasons = REASONS.input_count;
    else request.error = refusal(cause);
    return;
  }
  if (bundle.isGuarded) request.inputReasons = checkTensors(tensors);
  if (request.inputReasons !== 0) return;
  try {
    takeOutputs(request, bundle.model?.runTensors(tensors) ?? {}, 1);
  } catch (cause) {
    fail(request, cause);
  }
}

/** Gives a request its part of a run's outputs. */
export function takeOutputs(request: Request, outputs: OrtTensors, rows: number): void {
  const { roles } = request.bundle.manifest;
  request.rows = rows;
  request.prediction = outputNumber(outputs, roles.prediction?.output, request.row, rows);
  request.correctionOutput = outputNumber(outputs, roles.correction?.output, request.row, rows);
  request.reference = outputNumber(outputs, roles.reference?.output, request.row, rows);
  request.gsi = outputNumber(outputs, roles.gsi?.output, request.row, rows);
  if (request.frame.outputs !== null) request.outputs = outputs;
}

/** A run that failed: the fallback answers, or where there is none the sender learns why. */
export function fail(request: Request, cause: unknown): void {
  if (request.bundle.isGuarded) request.laneReasons |= REASONS.model_failed;
  else request.error = refusal(cause);
}

function refusal(cause: unknown): SetpointError {
  if (cause instanceof SetpointError) return cause;
  return new SetpointError('invalid_field', `Cannot run the model: ${messageOf(cause)}`, { field: 'features', cause });
}
