import type { WireTensor } from '../../protocol/datatype.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { type Features, REASONS } from '../../protocol/frames.ts';
import type { Manifest, TensorSchema } from '../../protocol/manifest.ts';
import type { GuardPolicy } from '../guard/policy.ts';
import { checkVector } from '../guard/features.ts';
import type { VectorInput } from '../infer/model.ts';

/**
 * Puts a request's features into row `row` of the model's buffer and returns the guard's input reasons. A vector of the
 * wrong length leaves the row as it was and returns input_count.
 */
export function placeVector(
  features: Features,
  vector: VectorInput,
  rows: Float32Array | Float64Array,
  row: number,
  policy: GuardPolicy,
): number {
  const bytes = features.encoding === 'tensors' ? soleRow(features.tensors, vector) : features.bytes;
  const encoding = features.encoding === 'tensors' ? vector.encoding : features.encoding;
  const width = encoding === 'float32' ? 4 : 8;
  const { featureCount } = vector;
  if (bytes === null || bytes.byteLength !== featureCount * width) return REASONS.input_count;
  const at = row * featureCount;
  if (encoding === vector.encoding) {
    // Same element type: the little-endian bytes are the elements (the agent runs on little-endian machines only).
    new Uint8Array(rows.buffer, rows.byteOffset + at * width, bytes.byteLength).set(bytes);
  } else {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let index = 0; index < featureCount; index++) {
      rows[at + index] = width === 4 ? view.getFloat32(index * 4, true) : view.getFloat64(index * 8, true);
    }
  }
  return checkVector(rows, at, featureCount, policy);
}

/** The bytes of a vector that came as one named tensor of one row, null when it is anything else. */
function soleRow(tensors: readonly WireTensor[], vector: VectorInput): Uint8Array | null {
  const [tensor, ...others] = tensors;
  if (tensor === undefined || others.length > 0 || tensor.name !== vector.name) return null;
  if (tensor.datatype !== (vector.encoding === 'float32' ? 'FP32' : 'FP64')) return null;
  const { shape } = tensor;
  const isRow = shape.at(-1) === vector.featureCount && shape.length <= 2 && (shape.length === 1 || shape[0] === 1);
  return isRow ? tensor.bytes : null;
}

/**
 * The named tensors of a request, whatever form they came in: a vector is the model's only input, as one row.
 * @throws SetpointError invalid_field that names the tensor and what the model takes instead
 */
export function tensorsOf(features: Features, manifest: Manifest): readonly WireTensor[] {
  const tensors = features.encoding === 'tensors' ? features.tensors : [vectorAsTensor(features, manifest)];
  for (const input of manifest.inputs) {
    const tensor = tensors.find((one) => one.name === input.name);
    if (tensor === undefined) throw mismatch(input, 'it is missing');
    if (tensor.datatype !== input.datatype) throw mismatch(input, `${tensor.datatype} was sent`);
    if (!fits(tensor.shape, input.shape)) throw mismatch(input, `[${tensor.shape.join(', ')}] was sent`);
  }
  if (tensors.length > manifest.inputs.length) {
    const extra = tensors.find((tensor) => !manifest.inputs.some((input) => input.name === tensor.name));
    throw new SetpointError('invalid_field', `Cannot run the model: it has no input '${extra?.name}'`, { field: 'features' });
  }
  return tensors;
}

function vectorAsTensor(features: Extract<Features, { bytes: Uint8Array }>, manifest: Manifest): WireTensor {
  const [input, ...others] = manifest.inputs;
  const datatype = features.encoding === 'float32' ? 'FP32' : 'FP64';
  const count = features.bytes.byteLength / (datatype === 'FP32' ? 4 : 8);
  if (input === undefined || others.length > 0) {
    throw new SetpointError('invalid_field', `Cannot run the model: it takes ${manifest.inputs.length} named tensors, a vector was sent`, {
      field: 'features',
    });
  }
  const shape = input.shape.length === 1 ? [count] : [...Array<number>(Math.max(input.shape.length - 1, 0)).fill(1), count];
  return { name: input.name, datatype, shape, bytes: features.bytes };
}

function fits(shape: readonly number[], declared: readonly number[]): boolean {
  return shape.length === declared.length && shape.every((dimension, at) => declared[at] === -1 || declared[at] === dimension);
}

function mismatch(input: TensorSchema, found: string): SetpointError {
  return new SetpointError(
    'invalid_field',
    `Cannot run the model: input '${input.name}' takes ${input.datatype} [${input.shape.join(', ')}], ${found}`,
    {
      field: `features.${input.name}`,
    },
  );
}

/** input_not_finite when a floating-point tensor holds NaN or an infinity. */
export function checkTensors(tensors: readonly WireTensor[]): number {
  return tensors.every(isFinite) ? 0 : REASONS.input_not_finite;
}

function isFinite(tensor: WireTensor): boolean {
  const { bytes, datatype } = tensor;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (datatype === 'FP32') return everyElement(bytes.byteLength, 4, (at) => Number.isFinite(view.getFloat32(at, true)));
  if (datatype === 'FP64') return everyElement(bytes.byteLength, 8, (at) => Number.isFinite(view.getFloat64(at, true)));
  // Exponent bits all set: NaN or infinity.
  if (datatype === 'FP16') return everyElement(bytes.byteLength, 2, (at) => (view.getUint16(at, true) & 0x7c00) !== 0x7c00);
  return true;
}

function everyElement(bytes: number, width: number, holds: (at: number) => boolean): boolean {
  for (let at = 0; at + width <= bytes; at += width) if (!holds(at)) return false;
  return true;
}
