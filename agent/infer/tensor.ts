import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { SetpointError } from '../../protocol/errors.ts';
import type { OrtTensor, OrtTensors, TensorData } from './session.ts';

/** Turns tensors as they travel (little-endian bytes) into tensors as ONNX Runtime takes them, and back. Pure. */

type FixedArray = Exclude<TensorData, string[]>;
type FixedConstructor = { new (buffer: ArrayBuffer): FixedArray; readonly BYTES_PER_ELEMENT: number };

const ARRAYS: Readonly<Record<string, FixedConstructor>> = {
  bool: Uint8Array,
  uint8: Uint8Array,
  uint16: Uint16Array,
  uint32: Uint32Array,
  uint64: BigUint64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  float16: Uint16Array,
  float32: Float32Array,
  float64: Float64Array,
};

const DATATYPE_BY_ONNX = new Map(Object.entries(DATATYPES).map(([name, { onnx }]) => [onnx as string, name as WireTensor['datatype']]));

const decoder = new TextDecoder('utf-8', { fatal: true });
const encoder = new TextEncoder();

/** Number of elements of a shape without free dimensions. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const dimension of shape) count *= dimension;
  return count;
}

/**
 * Copies a wire tensor into its own memory: the frame it came in is only borrowed.
 * @throws SetpointError invalid_field when the bytes are not what datatype and shape say
 */
export function toOrtTensor(tensor: WireTensor): OrtTensor {
  const { onnx } = DATATYPES[tensor.datatype];
  const data = onnx === 'string' ? decodeStrings(tensor) : decodeFixed(tensor, onnx);
  return { type: onnx, data, dims: tensor.shape, location: 'cpu' };
}

/** Named wire tensors as the feeds of a run. @throws as toOrtTensor */
export function toFeeds(tensors: readonly WireTensor[]): OrtTensors {
  return Object.fromEntries(tensors.map((tensor) => [tensor.name, toOrtTensor(tensor)]));
}

function decodeFixed(tensor: WireTensor, onnx: string): TensorData {
  const constructor = ARRAYS[onnx];
  const expected = elementCount(tensor.shape) * DATATYPES[tensor.datatype].bytes;
  if (constructor === undefined || tensor.bytes.byteLength !== expected) {
    throw new SetpointError(
      'invalid_field',
      `Cannot read tensor '${tensor.name}': ${tensor.datatype} [${tensor.shape.join(', ')}] takes ${expected} bytes, ${tensor.bytes.byteLength} were sent`,
      { field: tensor.name },
    );
  }
  const copy = new ArrayBuffer(expected);
  new Uint8Array(copy).set(tensor.bytes);
  return new constructor(copy);
}

function decodeStrings(tensor: WireTensor): string[] {
  const { bytes } = tensor;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = elementCount(tensor.shape);
  const strings: string[] = [];
  let at = 0;
  try {
    while (at < bytes.byteLength) {
      const length = view.getUint32(at, true);
      if (length > bytes.byteLength - at - 4) throw new RangeError('an element is longer than what is left');
      strings.push(decoder.decode(bytes.subarray(at + 4, at + 4 + length)));
      at += 4 + length;
    }
  } catch (cause) {
    throw new SetpointError(
      'invalid_field',
      `Cannot read tensor '${tensor.name}': its BYTES elements are not (uint32 length, UTF-8) pairs`,
      { field: tensor.name, cause },
    );
  }
  if (strings.length !== count) {
    throw new SetpointError(
      'invalid_field',
      `Cannot read tensor '${tensor.name}': its shape holds ${count} elements, ${strings.length} were sent`,
      { field: tensor.name },
    );
  }
  return strings;
}

/**
 * A model output as it travels. The bytes are a view of the output, which ONNX Runtime made for this run.
 * @throws SetpointError unsupported for element types that no door carries
 */
export function toWireTensor(name: string, tensor: OrtTensor): WireTensor {
  const datatype = DATATYPE_BY_ONNX.get(tensor.type);
  if (datatype === undefined) {
    throw new SetpointError('unsupported', `Cannot send output '${name}': element type ${tensor.type} is not supported`, { field: name });
  }
  const { data } = tensor;
  const bytes = Array.isArray(data) ? encodeStrings(data) : new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  return { name, datatype, shape: tensor.dims, bytes };
}

function encodeStrings(strings: readonly string[]): Uint8Array {
  const encoded = strings.map((one) => encoder.encode(one));
  const bytes = new Uint8Array(encoded.reduce((sum, one) => sum + 4 + one.byteLength, 0));
  const view = new DataView(bytes.buffer);
  let at = 0;
  for (const one of encoded) {
    view.setUint32(at, one.byteLength, true);
    bytes.set(one, at + 4);
    at += 4 + one.byteLength;
  }
  return bytes;
}
