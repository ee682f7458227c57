import type { Datatype } from '../../protocol/datatype.ts';

/** How one element of a fixed-size datatype goes between a JSON value and its little-endian bytes. */
export interface ElementCodec {
  /** For messages: what a JSON value may be. */
  readonly allowed: string;
  /** Writes a JSON value (integers beyond 2^53 may be bigints); false when the datatype has no such value. */
  readonly write: (view: DataView, offset: number, value: unknown) => boolean;
  /** The element as JSON text, null when JSON has no such number (NaN, Infinity). */
  readonly read: (view: DataView, offset: number) => string | null;
}

export type FixedDatatype = Exclude<Datatype, 'BYTES' | 'FP16'>;

type Setter = (view: DataView, offset: number, value: number) => void;
type Getter = (view: DataView, offset: number) => number;

function integer(low: number, high: number, set: Setter, get: Getter): ElementCodec {
  return {
    allowed: `an integer from ${low} to ${high}`,
    write(view, offset, value) {
      if (typeof value !== 'number' || !Number.isInteger(value) || value < low || value > high) {
        return false;
      }
      set(view, offset, value);
      return true;
    },
    read: (view, offset) => String(get(view, offset)),
  };
}

function integer64(low: bigint, high: bigint, set: (view: DataView, offset: number, value: bigint) => void): ElementCodec {
  const isSigned = low < 0n;
  return {
    allowed: `an integer from ${low} to ${high}, beyond 2^53 as plain digits in a JSON part of at most 256 KiB`,
    write(view, offset, value) {
      if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) {
        return false;
      }
      const exact = BigInt(value as bigint | number);
      if (exact < low || exact > high) {
        return false;
      }
      set(view, offset, exact);
      return true;
    },
    read: (view, offset) => String(isSigned ? view.getBigInt64(offset, true) : view.getBigUint64(offset, true)),
  };
}

function float(allowed: string, fits: (value: number) => boolean, set: Setter, get: Getter): ElementCodec {
  return {
    allowed,
    write(view, offset, value) {
      const number = typeof value === 'bigint' ? Number(value) : value;
      if (typeof number !== 'number' || !fits(number)) {
        return false;
      }
      set(view, offset, number);
      return true;
    },
    read(view, offset) {
      const value = get(view, offset);
      if (!Number.isFinite(value)) {
        return null;
      }
      return Object.is(value, -0) ? '-0' : String(value);
    },
  };
}

const boolean: ElementCodec = {
  allowed: 'true or false',
  write(view, offset, value) {
    if (typeof value !== 'boolean') {
      return false;
    }
    view.setUint8(offset, value ? 1 : 0);
    return true;
  },
  read: (view, offset) => (view.getUint8(offset) === 0 ? 'false' : 'true'),
};

/**
 * One codec per datatype that JSON carries element by element. Integers are exact in both directions, a float is written with
 * the digits of its exact double value, so what is written reads back bit for bit.
 */
export const ELEMENTS: Readonly<Record<FixedDatatype, ElementCodec>> = {
  BOOL: boolean,
  UINT8: integer(
    0,
    0xff,
    (view, offset, value) => view.setUint8(offset, value),
    (view, offset) => view.getUint8(offset),
  ),
  UINT16: integer(
    0,
    0xffff,
    (view, offset, value) => view.setUint16(offset, value, true),
    (view, offset) => view.getUint16(offset, true),
  ),
  UINT32: integer(
    0,
    0xffff_ffff,
    (view, offset, value) => view.setUint32(offset, value, true),
    (view, offset) => view.getUint32(offset, true),
  ),
  UINT64: integer64(0n, 2n ** 64n - 1n, (view, offset, value) => view.setBigUint64(offset, value, true)),
  INT8: integer(
    -0x80,
    0x7f,
    (view, offset, value) => view.setInt8(offset, value),
    (view, offset) => view.getInt8(offset),
  ),
  INT16: integer(
    -0x8000,
    0x7fff,
    (view, offset, value) => view.setInt16(offset, value, true),
    (view, offset) => view.getInt16(offset, true),
  ),
  INT32: integer(
    -0x8000_0000,
    0x7fff_ffff,
    (view, offset, value) => view.setInt32(offset, value, true),
    (view, offset) => view.getInt32(offset, true),
  ),
  INT64: integer64(-(2n ** 63n), 2n ** 63n - 1n, (view, offset, value) => view.setBigInt64(offset, value, true)),
  FP32: float(
    'a number within the range of FP32',
    (value) => Number.isFinite(Math.fround(value)),
    (view, offset, value) => view.setFloat32(offset, value, true),
    (view, offset) => view.getFloat32(offset, true),
  ),
  FP64: float(
    'a number within the range of FP64',
    Number.isFinite,
    (view, offset, value) => view.setFloat64(offset, value, true),
    (view, offset) => view.getFloat64(offset, true),
  ),
};
