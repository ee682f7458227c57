import { DATATYPES, type Datatype, type WireTensor } from '../../protocol/datatype.ts';
import { MAX_DIMENSIONS } from '../../protocol/limits.ts';
import { DATATYPE_BY_CODE, elementTypeName } from './onnx-types.ts';
import { ProtobufReader } from './protobuf-reader.ts';

/**
 * Reads an ONNX TensorProto (a `.pb` file of a test data set) into a tensor as it travels. Pure.
 *
 * The elements are in raw_data, or in the typed field of their type: float_data for float32; int32_data for bool, int8,
 * uint8, int16, uint16, int32 and, as bit patterns, float16; int64_data; double_data; uint64_data for uint32 and uint64;
 * string_data (onnx.proto, message TensorProto).
 */
interface Parts {
  readonly shape: number[];
  code: number;
  name: string;
  raw: Uint8Array | null;
  readonly integers: bigint[];
  readonly fixed: Uint8Array[];
  readonly strings: Uint8Array[];
}

/** @throws SetpointError invalid_bundle */
export function readTensorProto(bytes: Uint8Array, source: string): WireTensor {
  const reader = new ProtobufReader(bytes, source);
  const parts: Parts = { shape: [], code: 0, name: '', raw: null, integers: [], fixed: [], strings: [] };
  while (reader.next()) readField(reader, parts);
  const datatype = DATATYPE_BY_CODE[parts.code] ?? null;
  if (datatype === null) return reader.fail(`element type ${elementTypeName(parts.code)} is not supported`);
  const data = elementBytes(parts, datatype);
  const elements = parts.shape.reduce((product, length) => product * length, 1);
  const found = datatype === 'BYTES' ? parts.strings.length : data.byteLength / DATATYPES[datatype].bytes;
  if (found !== elements) reader.fail(`it has ${found} elements, its shape [${parts.shape.join(', ')}] holds ${elements}`);
  return { name: parts.name, datatype, shape: parts.shape, bytes: data };
}

function readField(reader: ProtobufReader, parts: Parts): void {
  switch (reader.field) {
    case 1:
      reader.int64s((value) => {
        if (value < 0n || value > 2n ** 31n) reader.fail(`dimension ${value} is out of range`);
        if (parts.shape.length >= MAX_DIMENSIONS) reader.fail(`it has more than ${MAX_DIMENSIONS} dimensions`);
        parts.shape.push(Number(value));
      });
      return;
    case 2:
      parts.code = reader.integer();
      return;
    case 4:
      parts.fixed.push(reader.fixedWidth(4));
      return;
    case 5:
    case 7:
    case 11:
      reader.int64s((value) => void parts.integers.push(value));
      return;
    case 6:
      parts.strings.push(reader.bytes());
      return;
    case 8:
      parts.name = reader.text(255);
      return;
    case 9:
      parts.raw = reader.bytes();
      return;
    case 10:
      parts.fixed.push(reader.fixedWidth(8));
      return;
    case 13:
    case 14:
      if (reader.field === 13 || reader.integer() !== 0) reader.fail('external data is not allowed here');
      return;
    default:
      reader.skip();
  }
}

function elementBytes(parts: Parts, datatype: Datatype): Uint8Array {
  if (datatype === 'BYTES') return encodeStrings(parts.strings);
  if (parts.raw !== null) return parts.raw.slice();
  if (datatype === 'FP32' || datatype === 'FP64') return concatenate(parts.fixed);
  return encodeIntegers(parts.integers, DATATYPES[datatype].bytes);
}

/** Little-endian, the lowest bytes of each number: right for signed, unsigned, bool and float16 bit patterns alike. */
function encodeIntegers(integers: readonly bigint[], width: number): Uint8Array {
  const bytes = new Uint8Array(integers.length * width);
  const view = new DataView(new ArrayBuffer(8));
  const element = new Uint8Array(view.buffer, 0, width);
  integers.forEach((value, index) => {
    view.setBigInt64(0, BigInt.asIntN(64, value), true);
    bytes.set(element, index * width);
  });
  return bytes;
}

function encodeStrings(strings: readonly Uint8Array[]): Uint8Array {
  return concatenate(
    strings.flatMap((text) => {
      const length = new Uint8Array(4);
      new DataView(length.buffer).setUint32(0, text.byteLength, true);
      return [length, text];
    }),
  );
}

function concatenate(chunks: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}
