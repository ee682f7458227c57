import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { elementCount } from '../infer/tensor.ts';

/** Compares tensors as they travel, element by element. Pure. */
export interface Difference {
  /** What differs, or null. */
  readonly message: string | null;
  /** Largest |got - want| of the finite floats compared; 0 for other types. */
  readonly maxDifference: number;
}

export function describeDifference(got: WireTensor, want: WireTensor, rtol: number, atol: number): Difference {
  const label = `'${want.name}'`;
  if (got.datatype !== want.datatype) return refusal(`${label} is ${got.datatype}, ${want.datatype} is expected`);
  if (got.shape.length !== want.shape.length || got.shape.some((length, index) => length !== want.shape[index])) {
    return refusal(`${label} has shape [${got.shape.join(', ')}], [${want.shape.join(', ')}] is expected`);
  }
  if (want.datatype === 'FP16' || want.datatype === 'FP32' || want.datatype === 'FP64') return compareFloats(got, want, rtol, atol);
  const at = firstDifferentByte(got.bytes, want.bytes);
  if (at === -1) return { message: null, maxDifference: 0 };
  const { bytes } = DATATYPES[want.datatype];
  return refusal(bytes === 0 ? `${label} has a different text at byte ${at}` : `${label} differs at element ${Math.floor(at / bytes)}`);
}

function refusal(message: string): Difference {
  return { message, maxDifference: Infinity };
}

function firstDifferentByte(got: Uint8Array, want: Uint8Array): number {
  const length = Math.min(got.byteLength, want.byteLength);
  for (let index = 0; index < length; index += 1) if (got[index] !== want[index]) return index;
  return got.byteLength === want.byteLength ? -1 : length;
}

function compareFloats(got: WireTensor, want: WireTensor, rtol: number, atol: number): Difference {
  const count = elementCount(want.shape);
  const gotAt = floatReader(got);
  const wantAt = floatReader(want);
  let maxDifference = 0;
  let message: string | null = null;
  for (let index = 0; index < count; index += 1) {
    const a = gotAt(index);
    const b = wantAt(index);
    if (Object.is(a, b) || a === b) continue;
    const difference = Math.abs(a - b);
    const isClose = Number.isFinite(a) && Number.isFinite(b) && difference <= atol + rtol * Math.abs(b);
    maxDifference = Math.max(maxDifference, Number.isNaN(difference) ? Infinity : difference);
    if (!isClose && message === null) {
      message = `'${want.name}' is ${a} at element ${index}, ${b} is expected (allowed difference ${atol} + ${rtol} x |${b}|)`;
    }
  }
  return { message, maxDifference };
}

/** Reads element `index` of a float tensor as a number. */
function floatReader(tensor: WireTensor): (index: number) => number {
  const { bytes } = tensor;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (tensor.datatype === 'FP64') return (index) => view.getFloat64(index * 8, true);
  if (tensor.datatype === 'FP32') return (index) => view.getFloat32(index * 4, true);
  return (index) => float16ToNumber(view.getUint16(index * 2, true));
}

/** IEEE 754 binary16: 1 sign, 5 exponent (bias 15) and 10 fraction bits. */
export function float16ToNumber(bits: number): number {
  const sign = (bits & 0x8000) === 0 ? 1 : -1;
  const exponent = (bits >>> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction === 0 ? sign * Infinity : Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
