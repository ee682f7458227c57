import {
  countAt,
  finiteAt,
  listAt,
  MAX_MILLIS,
  nameAt,
  optionalCountAt,
  optionalFiniteAt,
  optionalTextAt,
  tupleAt,
  wrongField,
} from './fields.ts';
import { FrameError } from './frame-error.ts';
import { CONTEXT_FIELDS, FRAME_KINDS, type ClientFrame, type Context, type Features, type HelloFrame } from './frames.ts';
import type { ObserveFrame, PredictFrame } from './frames.ts';
import { MAX_DEADLINE_MICROS, MAX_TENSORS } from './limits.ts';
import { tensorsAt } from './tensors.ts';

/** Values, position by position, into the frames a controller sends. Pure: bytes have been read by codec.ts. */

/** Versions are small integers; a 16-bit limit keeps a hostile window from meaning anything. */
export const MAX_VERSION = 0xffff;

/** Values of `encoding` in predict: the bytes of one element of the vector, or 0 for named tensors. */
export const ENCODINGS = { tensors: 0, float32: 4, float64: 8 } as const;

/** @throws FrameError malformed_frame when the array does not have the kind's exact length */
export function checkArity(values: readonly unknown[], length: number, kind: string): void {
  if (values.length === length) return;
  throw new FrameError('malformed_frame', `Cannot read ${kind}: the array has ${values.length} values, ${length} are wanted`);
}

/** @throws FrameError unknown_frame, malformed_frame or invalid_field, without a request id */
export function clientFrameOf(values: readonly unknown[]): ClientFrame {
  switch (values[0]) {
    case FRAME_KINDS.predict:
      return predictOf(values);
    case FRAME_KINDS.observe:
      return observeOf(values);
    case FRAME_KINDS.hello:
      return helloOf(values);
    default:
      throw unknownKind(values[0], 'hello (1), predict (3) or observe (5)');
  }
}

export function unknownKind(kind: unknown, wanted: string): FrameError {
  const { message } = wrongField('the frame kind', kind, wanted);
  return new FrameError('unknown_frame', message, { field: 'kind', remedy: `send only ${wanted} frames in this direction` });
}

function helloOf(values: readonly unknown[]): HelloFrame {
  checkArity(values, 5, 'hello');
  const versionOldest = countAt(values[1], 'versionOldest', MAX_VERSION);
  const versionNewest = countAt(values[2], 'versionNewest', MAX_VERSION);
  if (versionNewest < versionOldest) throw wrongField('versionNewest', versionNewest, `${versionOldest} (versionOldest) or more`);
  return {
    kind: FRAME_KINDS.hello,
    versionOldest,
    versionNewest,
    client: nameAt(values[3], 'client'),
    token: optionalTextAt(values[4], 'token'),
  };
}

function predictOf(values: readonly unknown[]): PredictFrame {
  checkArity(values, 9, 'predict');
  return {
    kind: FRAME_KINDS.predict,
    requestId: countAt(values[1], 'requestId'),
    slot: nameAt(values[2], 'slot'),
    context: values[3] === null ? null : contextOf(values[3]),
    deadlineMicros: countAt(values[4], 'deadlineMicros', MAX_DEADLINE_MICROS),
    lastApplied: optionalFiniteAt(values[5], 'lastApplied'),
    features: featuresOf(values[6], values[7]),
    outputs: values[8] === null ? null : outputNamesOf(values[8]),
  };
}

function contextOf(value: unknown): Context {
  const fields = tupleAt(value, 'context', CONTEXT_FIELDS.length);
  return {
    substrateId: optionalTextAt(fields[0], 'context.substrateId'),
    lotId: optionalTextAt(fields[1], 'context.lotId'),
    carrierId: optionalTextAt(fields[2], 'context.carrierId'),
    slotId: optionalTextAt(fields[3], 'context.slotId'),
    equipmentId: optionalTextAt(fields[4], 'context.equipmentId'),
    moduleId: optionalTextAt(fields[5], 'context.moduleId'),
    recipeId: optionalTextAt(fields[6], 'context.recipeId'),
    stepId: optionalTextAt(fields[7], 'context.stepId'),
    processJobId: optionalTextAt(fields[8], 'context.processJobId'),
    controlJobId: optionalTextAt(fields[9], 'context.controlJobId'),
    product: optionalTextAt(fields[10], 'context.product'),
    runNumber: optionalCountAt(fields[11], 'context.runNumber'),
    processEndMillis: optionalCountAt(fields[12], 'context.processEndMillis', MAX_MILLIS),
  };
}

function featuresOf(encoding: unknown, payload: unknown): Features {
  switch (encoding) {
    case ENCODINGS.float32:
      return { encoding: 'float32', bytes: vectorOf(payload, ENCODINGS.float32) };
    case ENCODINGS.float64:
      return { encoding: 'float64', bytes: vectorOf(payload, ENCODINGS.float64) };
    case ENCODINGS.tensors: {
      const tensors = tensorsAt(payload, 'features.tensors');
      if (tensors.length === 0) throw wrongField('features.tensors', payload, `an array of 1 to ${MAX_TENSORS}`);
      return { encoding: 'tensors', tensors };
    }
    default:
      throw wrongField('features.encoding', encoding, '4 (float32), 8 (float64) or 0 (tensors)');
  }
}

function vectorOf(payload: unknown, elementBytes: number): Uint8Array {
  if (payload instanceof Uint8Array && payload.length > 0 && payload.length % elementBytes === 0) return payload;
  throw wrongField('features.bytes', payload, `binary of a positive multiple of ${elementBytes} bytes`);
}

function outputNamesOf(value: unknown): string[] {
  const list = listAt(value, 'outputs', MAX_TENSORS);
  const names: string[] = [];
  for (let index = 0; index < list.length; index += 1) {
    const name = nameAt(list[index], `outputs[${index}]`);
    if (names.includes(name)) throw wrongField(`outputs[${index}]`, name, 'a name used once');
    names.push(name);
  }
  return names;
}

function observeOf(values: readonly unknown[]): ObserveFrame {
  checkArity(values, 10, 'observe');
  return {
    kind: FRAME_KINDS.observe,
    requestId: countAt(values[1], 'requestId'),
    slot: nameAt(values[2], 'slot'),
    context: contextOf(values[3]),
    measurementId: nameAt(values[4], 'measurementId'),
    parameter: nameAt(values[5], 'parameter'),
    value: finiteAt(values[6], 'value'),
    unit: optionalTextAt(values[7], 'unit'),
    appliedInput: optionalFiniteAt(values[8], 'appliedInput'),
    measuredAtMillis: countAt(values[9], 'measuredAtMillis', MAX_MILLIS),
  };
}
