import type { Datatype } from '../../protocol/datatype.ts';
import { DATATYPE_BY_CODE, elementTypeName } from './onnx-types.ts';
import type { ProtobufReader } from './protobuf-reader.ts';

/** Inputs and outputs of a model: ValueInfoProto, TypeProto and TensorShapeProto of onnx.proto. Pure. */
type ValueKind = 'tensor' | 'sparse-tensor' | 'sequence' | 'map' | 'optional' | 'opaque' | 'none';

export interface OnnxValue {
  readonly name: string;
  readonly kind: ValueKind;
  /** Null where no door carries the element type. */
  readonly datatype: Datatype | null;
  /** Name of the element type, for messages. */
  readonly elementType: string;
  /** -1 is a free or symbolic dimension. */
  readonly shape: readonly number[];
}

/** Longest name, bytes. Exporters join module paths into names; 4 KiB holds any seen. */
export const MAX_NAME_BYTES = 4096;
/** Most dimensions read; the scan allows less. */
const MAX_DIMENSIONS_READ = 64;

const KIND_BY_FIELD: Readonly<Record<number, ValueKind>> = {
  1: 'tensor',
  4: 'sequence',
  5: 'map',
  7: 'opaque',
  8: 'sparse-tensor',
  9: 'optional',
};

export function readValue(reader: ProtobufReader): OnnxValue {
  let name = '';
  let value: Omit<OnnxValue, 'name'> = { kind: 'none', datatype: null, elementType: 'undefined', shape: [] };
  while (reader.next()) {
    if (reader.field === 1) name = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 2) value = readType(reader.message('type'));
    else reader.skip();
  }
  return { name, ...value };
}

function readType(reader: ProtobufReader): Omit<OnnxValue, 'name'> {
  let kind: ValueKind = 'none';
  let elementCode = 0;
  let shape: number[] = [];
  while (reader.next()) {
    const found = KIND_BY_FIELD[reader.field];
    if (found !== undefined) kind = found;
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    const tensor = reader.message('tensor_type');
    while (tensor.next()) {
      if (tensor.field === 1) elementCode = tensor.integer();
      else if (tensor.field === 2) shape = readShape(tensor.message('shape'));
      else tensor.skip();
    }
  }
  return { kind, datatype: DATATYPE_BY_CODE[elementCode] ?? null, elementType: elementTypeName(elementCode), shape };
}

function readShape(reader: ProtobufReader): number[] {
  const shape: number[] = [];
  while (reader.next()) {
    if (reader.field !== 1) {
      reader.skip();
      continue;
    }
    const dimension = reader.message('dim');
    let length = -1;
    while (dimension.next()) {
      if (dimension.field === 1) length = Math.max(-1, dimension.integer());
      else dimension.skip();
    }
    if (shape.length >= MAX_DIMENSIONS_READ) reader.fail(`it has more than ${MAX_DIMENSIONS_READ} dimensions`);
    shape.push(length);
  }
  return shape;
}
