/**
 * Tensor element types, by their Open Inference Protocol names: the one vocabulary of both doors, the manifest and the
 * journal. `bytes` is the size of an element on the wire; BYTES elements carry their own length.
 */
export const DATATYPES = {
  BOOL: { bytes: 1, onnx: 'bool' },
  UINT8: { bytes: 1, onnx: 'uint8' },
  UINT16: { bytes: 2, onnx: 'uint16' },
  UINT32: { bytes: 4, onnx: 'uint32' },
  UINT64: { bytes: 8, onnx: 'uint64' },
  INT8: { bytes: 1, onnx: 'int8' },
  INT16: { bytes: 2, onnx: 'int16' },
  INT32: { bytes: 4, onnx: 'int32' },
  INT64: { bytes: 8, onnx: 'int64' },
  FP16: { bytes: 2, onnx: 'float16' },
  FP32: { bytes: 4, onnx: 'float32' },
  FP64: { bytes: 8, onnx: 'float64' },
  BYTES: { bytes: 0, onnx: 'string' },
} as const;

export type Datatype = keyof typeof DATATYPES;

export const DATATYPE_NAMES = Object.keys(DATATYPES) as readonly Datatype[];

export function isDatatype(name: unknown): name is Datatype {
  return typeof name === 'string' && Object.hasOwn(DATATYPES, name);
}

/**
 * A tensor as it travels: little-endian, row-major, no padding. BOOL is one byte, 0 or 1; a BYTES element is a uint32
 * length and that many bytes of UTF-8. `bytes` may be a view into a larger buffer and is valid only as long as that is.
 */
export interface WireTensor {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: readonly number[];
  readonly bytes: Uint8Array;
}
