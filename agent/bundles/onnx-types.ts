import type { Datatype } from '../../protocol/datatype.ts';

/** onnx.TensorProto.DataType by code (onnx.proto, enum DataType); null is a type that no door carries. */
export const DATATYPE_BY_CODE: readonly (Datatype | null)[] = [
  null,
  'FP32',
  'UINT8',
  'INT8',
  'UINT16',
  'INT16',
  'INT32',
  'INT64',
  'BYTES',
  'BOOL',
  'FP16',
  'FP64',
  'UINT32',
  'UINT64',
];

/** Names of the codes that no door carries, for messages. */
const OTHER_NAMES: Readonly<Record<number, string>> = {
  0: 'undefined',
  14: 'complex64',
  15: 'complex128',
  16: 'bfloat16',
  17: 'float8e4m3fn',
  18: 'float8e4m3fnuz',
  19: 'float8e5m2',
  20: 'float8e5m2fnuz',
  21: 'uint4',
  22: 'int4',
  23: 'float4e2m1',
};

export function elementTypeName(code: number): string {
  return DATATYPE_BY_CODE[code] ?? OTHER_NAMES[code] ?? `element type ${code}`;
}
