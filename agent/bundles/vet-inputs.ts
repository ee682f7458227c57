import { DATATYPES, type Datatype, type WireTensor } from '../../protocol/datatype.ts';
import type { TensorSchema } from '../../protocol/manifest.ts';
import { elementCount } from '../infer/tensor.ts';

/** The inputs a vetting makes up: extremes, rows cut from batches, and batches stacked from rows. Pure. */

const EXTREME_FLOATS: Readonly<Record<string, readonly [FP16: number, FP32: number, FP64: bigint]>> = {
  NaN: [0x7e00, 0x7fc00000, 0x7ff8000000000000n],
  '+Inf': [0x7c00, 0x7f800000, 0x7ff0000000000000n],
  '-Inf': [0xfc00, 0xff800000, 0xfff0000000000000n],
  'the largest number': [0x7bff, 0x7f7fffff, 0x7fefffffffffffffn],
  'the smallest number': [0xfbff, 0xff7fffff, 0xffefffffffffffffn],
  zero: [0, 0, 0n],
  'the smallest denormal': [1, 1, 1n],
};

/** -1 is all bits; the top bit alone is the smallest signed number, all others the largest. */
const EXTREME_INTEGERS: Readonly<Record<string, (bits: bigint) => bigint>> = {
  '0': () => 0n,
  '1': () => 1n,
  '-1': (bits) => 2n ** bits - 1n,
  'the smallest integer': (bits) => 2n ** (bits - 1n),
  'the largest integer': (bits) => 2n ** (bits - 1n) - 1n,
};

const EXTREME_TEXTS: Readonly<Record<string, string>> = { 'empty texts': '', 'long texts': 'x'.repeat(1024) };

export interface ExtremeInputs {
  /** What the inputs hold, for messages. */
  readonly label: string;
  readonly inputs: readonly WireTensor[];
}

/**
 * Inputs shaped as `inputs`, each variant with all floats, all integers or all texts set to one extreme. Integers stay as they
 * are where `isUnbounded`: a trip count of 2^63 takes for ever by definition, and such a model runs only where a deadline
 * outside the process ends it.
 */
export function extremeInputs(inputs: readonly WireTensor[], isUnbounded: boolean): ExtremeInputs[] {
  const variants: ExtremeInputs[] = [];
  const add = (label: string, fill: (tensor: WireTensor) => WireTensor): void => {
    const changed = inputs.map(fill);
    if (changed.some((tensor, index) => tensor !== inputs[index])) variants.push({ label, inputs: changed });
  };
  for (const [label, bits] of Object.entries(EXTREME_FLOATS)) add(label, (tensor) => fillFloats(tensor, bits));
  if (!isUnbounded) for (const [label, bitsOf] of Object.entries(EXTREME_INTEGERS)) add(label, (tensor) => fillIntegers(tensor, bitsOf));
  for (const [label, text] of Object.entries(EXTREME_TEXTS)) add(label, (tensor) => fillTexts(tensor, text));
  return variants;
}

export function isFloat(datatype: Datatype): boolean {
  return datatype === 'FP16' || datatype === 'FP32' || datatype === 'FP64';
}

function fillFloats(tensor: WireTensor, [half, single, double]: readonly [number, number, bigint]): WireTensor {
  if (!isFloat(tensor.datatype)) return tensor;
  return filled(tensor, tensor.datatype === 'FP16' ? BigInt(half) : tensor.datatype === 'FP32' ? BigInt(single) : double);
}

function fillIntegers(tensor: WireTensor, bitsOf: (bits: bigint) => bigint): WireTensor {
  if (isFloat(tensor.datatype) || tensor.datatype === 'BYTES') return tensor;
  if (tensor.datatype === 'BOOL') return filled(tensor, bitsOf(8n) & 1n);
  return filled(tensor, bitsOf(BigInt(DATATYPES[tensor.datatype].bytes * 8)));
}

/** Every element set to the bit pattern `bits`. */
function filled(tensor: WireTensor, bits: bigint): WireTensor {
  const width = DATATYPES[tensor.datatype].bytes;
  const pattern = new Uint8Array(8);
  new DataView(pattern.buffer).setBigUint64(0, BigInt.asUintN(64, bits), true);
  const bytes = new Uint8Array(tensor.bytes.byteLength);
  for (let at = 0; at < bytes.byteLength; at += width) bytes.set(pattern.subarray(0, width), at);
  return { ...tensor, bytes };
}

function fillTexts(tensor: WireTensor, text: string): WireTensor {
  if (tensor.datatype !== 'BYTES') return tensor;
  const element = encodeTexts([text]);
  const count = elementCount(tensor.shape);
  const bytes = new Uint8Array(element.byteLength * count);
  for (let index = 0; index < count; index += 1) bytes.set(element, index * element.byteLength);
  return { ...tensor, bytes };
}

/** BYTES elements as they travel: (uint32 length, UTF-8) each. */
export function encodeTexts(texts: readonly string[]): Uint8Array {
  const chunks = texts.map((text) => {
    const encoded = new TextEncoder().encode(text);
    const element = new Uint8Array(4 + encoded.byteLength);
    new DataView(element.buffer).setUint32(0, encoded.byteLength, true);
    element.set(encoded, 4);
    return element;
  });
  return new Uint8Array(Buffer.concat(chunks));
}

/** Whether every tensor has a free first axis, so that rows might be independent. */
export function hasFreeFirstAxis(tensors: readonly TensorSchema[]): boolean {
  return tensors.every(({ shape }) => shape[0] === -1);
}

/** Cuts tensors that share their first dimension into rows of one, at most `maxRows`; none where they do not share it. */
export function splitRows(tensors: readonly WireTensor[], maxRows: number): WireTensor[][] {
  const count = tensors[0]?.shape[0];
  if (count === undefined || tensors.some(({ shape }) => shape[0] !== count)) return [];
  const columns = tensors.map((tensor) => rowsOf(tensor, Math.min(count, maxRows)));
  return Array.from({ length: Math.min(count, maxRows) }, (_, row) => columns.map((column) => column[row] as WireTensor));
}

function rowsOf(tensor: WireTensor, maxRows: number): WireTensor[] {
  const [count = 0, ...rest] = tensor.shape;
  const perRow = elementCount(rest);
  const view = new DataView(tensor.bytes.buffer, tensor.bytes.byteOffset, tensor.bytes.byteLength);
  const rows: WireTensor[] = [];
  let at = 0;
  for (let row = 0; row < Math.min(count, maxRows); row += 1) {
    let end = at + perRow * DATATYPES[tensor.datatype].bytes;
    if (tensor.datatype === 'BYTES') for (let index = 0; index < perRow; index += 1) end += 4 + view.getUint32(end, true);
    rows.push({ ...tensor, shape: [1, ...rest], bytes: tensor.bytes.subarray(at, end) });
    at = end;
  }
  return rows;
}

/** One batch of rows; null where their shapes differ beyond the first axis. */
export function stackRows(rows: readonly (readonly WireTensor[])[]): WireTensor[] | null {
  const [first] = rows;
  if (first === undefined) return null;
  const stacked: WireTensor[] = [];
  for (const [column, head] of first.entries()) {
    const cells = rows.map((row) => row[column] as WireTensor);
    const rest = head.shape.slice(1);
    if (cells.some((cell) => cell.shape.slice(1).join() !== rest.join())) return null;
    const bytes = new Uint8Array(Buffer.concat(cells.map((cell) => cell.bytes)));
    stacked.push({ ...head, shape: [rows.length, ...rest], bytes });
  }
  return stacked;
}

/** The row with its floats set to NaN; the same row where it has none. */
export function poisonedRow(row: readonly WireTensor[]): readonly WireTensor[] {
  const bits = EXTREME_FLOATS['NaN'];
  return bits === undefined ? row : row.map((tensor) => fillFloats(tensor, bits));
}
