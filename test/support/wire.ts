import type { Datatype, WireTensor } from '../../protocol/datatype.ts';

/**
 * Tensors as a test writes and reads them. Encodes, decodes and compares by itself, with none of the agent's own code: what
 * both sides of a comparison shared would hide its own defects.
 */
export type Element = number | bigint | boolean | string;

interface Codec {
  readonly width: number;
  readonly read: (view: DataView, at: number) => Element;
  readonly write: (view: DataView, at: number, value: Element) => void;
}

const CODECS: Readonly<Record<Exclude<Datatype, 'BYTES'>, Codec>> = {
  BOOL: { width: 1, read: (view, at) => view.getUint8(at) !== 0, write: (view, at, value) => view.setUint8(at, value === true ? 1 : 0) },
  UINT8: { width: 1, read: (view, at) => view.getUint8(at), write: (view, at, value) => view.setUint8(at, Number(value)) },
  INT8: { width: 1, read: (view, at) => view.getInt8(at), write: (view, at, value) => view.setInt8(at, Number(value)) },
  UINT16: { width: 2, read: (view, at) => view.getUint16(at, true), write: (view, at, value) => view.setUint16(at, Number(value), true) },
  INT16: { width: 2, read: (view, at) => view.getInt16(at, true), write: (view, at, value) => view.setInt16(at, Number(value), true) },
  UINT32: { width: 4, read: (view, at) => view.getUint32(at, true), write: (view, at, value) => view.setUint32(at, Number(value), true) },
  INT32: { width: 4, read: (view, at) => view.getInt32(at, true), write: (view, at, value) => view.setInt32(at, Number(value), true) },
  UINT64: {
    width: 8,
    read: (view, at) => view.getBigUint64(at, true),
    write: (view, at, value) => view.setBigUint64(at, BigInt(value), true),
  },
  INT64: {
    width: 8,
    read: (view, at) => view.getBigInt64(at, true),
    write: (view, at, value) => view.setBigInt64(at, BigInt(value), true),
  },
  FP16: {
    width: 2,
    read: (view, at) => halfToNumber(view.getUint16(at, true)),
    write: () => {
      throw new Error('no test writes FP16');
    },
  },
  FP32: { width: 4, read: (view, at) => view.getFloat32(at, true), write: (view, at, value) => view.setFloat32(at, Number(value), true) },
  FP64: { width: 8, read: (view, at) => view.getFloat64(at, true), write: (view, at, value) => view.setFloat64(at, Number(value), true) },
};

/** IEEE 754 binary16, by widening its fields to binary32: rebias by 112, fraction 13 bits up. */
function halfToNumber(half: number): number {
  const exponent = (half >> 10) & 0x1f;
  const fraction = half & 0x3ff;
  if (exponent === 0) return ((half & 0x8000) === 0 ? 1 : -1) * fraction * 2 ** -24;
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, (((half & 0x8000) << 16) | ((exponent === 0x1f ? 0xff : exponent + 112) << 23) | (fraction << 13)) >>> 0);
  return view.getFloat32(0);
}

/** The elements of a tensor in row-major order; 64-bit integers are bigints, BYTES are strings. */
export function elementsOf({ datatype, bytes }: WireTensor): Element[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (datatype === 'BYTES') return stringsIn(bytes).map((text) => new TextDecoder().decode(text.subarray(4)));
  const { width, read } = CODECS[datatype];
  return Array.from({ length: bytes.byteLength / width }, (_, index) => read(view, index * width));
}

/** The elements of a float tensor as numbers. */
export function numbersOf(tensor: WireTensor | undefined): number[] {
  if (tensor === undefined) throw new Error('there is no such tensor');
  return elementsOf(tensor).map(Number);
}

export function tensorOf(name: string, datatype: Datatype, shape: readonly number[], elements: readonly Element[]): WireTensor {
  if (datatype === 'BYTES') return { name, datatype, shape, bytes: joined(elements.map((element) => lengthAndText(String(element)))) };
  const { width, write } = CODECS[datatype];
  const bytes = new Uint8Array(elements.length * width);
  const view = new DataView(bytes.buffer);
  elements.forEach((element, index) => write(view, index * width, element));
  return { name, datatype, shape, bytes };
}

function lengthAndText(text: string): Uint8Array {
  const encoded = new TextEncoder().encode(text);
  const bytes = new Uint8Array(4 + encoded.byteLength);
  new DataView(bytes.buffer).setUint32(0, encoded.byteLength, true);
  bytes.set(encoded, 4);
  return bytes;
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

/** Each BYTES element with its length in front. */
function stringsIn(bytes: Uint8Array): Uint8Array[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts: Uint8Array[] = [];
  let at = 0;
  while (at < bytes.byteLength) {
    const end = at + 4 + view.getUint32(at, true);
    parts.push(bytes.subarray(at, end));
    at = end;
  }
  return parts;
}

/** Row `row` of a tensor whose first axis counts rows, as a tensor of one row. */
export function rowOf(tensor: WireTensor, row: number): WireTensor {
  const rows = tensor.shape[0] ?? 1;
  const { name, datatype, bytes } = tensor;
  const shape = [1, ...tensor.shape.slice(1)];
  if (datatype === 'BYTES') {
    const strings = stringsIn(bytes);
    const each = strings.length / rows;
    return { name, datatype, shape, bytes: joined(strings.slice(row * each, (row + 1) * each)) };
  }
  const each = bytes.byteLength / rows;
  return { name, datatype, shape, bytes: bytes.slice(row * each, (row + 1) * each) };
}

export interface Tolerance {
  readonly rtol: number;
  readonly atol: number;
}

/**
 * What is different between the outputs got and those wanted, one line each; empty when they agree. Names, types and shapes
 * agree exactly, and so do integers, booleans and strings; floats by |got - want| <= atol + rtol * |want|, NaN only with NaN.
 */
export function differences(got: readonly WireTensor[], wanted: readonly WireTensor[], tolerance: Tolerance): string[] {
  const found = got.map((tensor) => tensor.name).toSorted();
  const expected = wanted.map((tensor) => tensor.name).toSorted();
  if (found.join() !== expected.join()) return [`outputs are ${found.join()}, not ${expected.join()}`];
  return wanted.flatMap((want) => {
    const tensor = got.find((one) => one.name === want.name);
    return tensor === undefined ? [] : tensorDifferences(tensor, want, tolerance);
  });
}

function tensorDifferences(got: WireTensor, want: WireTensor, { rtol, atol }: Tolerance): string[] {
  const head = (tensor: WireTensor): string => `${tensor.datatype} [${tensor.shape.join(', ')}]`;
  if (head(got) !== head(want)) return [`${want.name} is ${head(got)}, not ${head(want)}`];
  const elements = elementsOf(got);
  const wanted = elementsOf(want);
  if (elements.length !== wanted.length) return [`${want.name} has ${elements.length} elements, not ${wanted.length}`];
  const isFloat = want.datatype.startsWith('FP');
  return wanted.flatMap((expected, index) => {
    const element = elements[index];
    const isSame = Object.is(element, expected) || element === expected;
    const isClose = isFloat && Math.abs(Number(element) - Number(expected)) <= atol + rtol * Math.abs(Number(expected));
    return isSame || isClose ? [] : [`${want.name}[${index}] is ${String(element)}, not ${String(expected)}`];
  });
}
