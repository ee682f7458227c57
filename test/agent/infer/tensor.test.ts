import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { elementCount, toOrtTensor, toWireTensor } from '../../../agent/infer/tensor.ts';
import { DATATYPE_NAMES, DATATYPES, type Datatype, type WireTensor } from '../../../protocol/datatype.ts';
import { SetpointError } from '../../../protocol/errors.ts';

function errorOf(run: () => unknown): SetpointError {
  try {
    run();
  } catch (error) {
    if (error instanceof SetpointError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

function strings(...texts: readonly string[]): Uint8Array {
  return Uint8Array.from(
    Buffer.concat(
      texts.flatMap((text) => {
        const length = Buffer.alloc(4);
        length.writeUInt32LE(Buffer.byteLength(text));
        return [length, Buffer.from(text)];
      }),
    ),
  );
}

function wire(datatype: Datatype, shape: readonly number[], bytes: Uint8Array | readonly number[]): WireTensor {
  return { name: 'x', datatype, shape, bytes: Uint8Array.from(bytes) };
}

const fixed = DATATYPE_NAMES.filter((name) => name !== 'BYTES');

const anyTensor: fc.Arbitrary<WireTensor> = fc
  .tuple(fc.constantFrom(...DATATYPE_NAMES), fc.array(fc.nat(4), { maxLength: 3 }))
  .chain(([datatype, shape]) => {
    const count = elementCount(shape);
    const length = count * DATATYPES[datatype].bytes;
    const bytes =
      datatype === 'BYTES'
        ? fc.array(fc.string({ unit: 'binary' }), { minLength: count, maxLength: count }).map((texts) => strings(...texts))
        : fc.uint8Array({ minLength: length, maxLength: length });
    return bytes.map((content) => ({ name: 'x', datatype, shape, bytes: content }));
  });

test('elementCount() multiplies the dimensions; a scalar has one element', () => {
  expect([elementCount([]), elementCount([3]), elementCount([2, 3, 4]), elementCount([2, 0])]).toEqual([1, 3, 24, 0]);
});

describe('toOrtTensor()', () => {
  test.each<[Datatype, readonly number[], unknown]>([
    ['BOOL', [1, 0], Uint8Array.of(1, 0)],
    ['UINT8', [1, 255], Uint8Array.of(1, 255)],
    ['INT8', [1, 255], Int8Array.of(1, -1)],
    ['UINT16', [1, 2, 0, 128], Uint16Array.of(0x201, 0x8000)],
    ['INT16', [1, 2, 255, 255], Int16Array.of(0x201, -1)],
    ['FP16', [0, 0x3c, 0, 0xc0], Uint16Array.of(0x3c00, 0xc000)],
    ['UINT32', [1, 0, 0, 0, 0, 0, 0, 128], Uint32Array.of(1, 0x80000000)],
    ['INT32', [1, 0, 0, 0, 255, 255, 255, 255], Int32Array.of(1, -1)],
    ['UINT64', [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255], BigUint64Array.of(1n, 2n ** 64n - 1n)],
    ['INT64', [1, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255], BigInt64Array.of(1n, -1n)],
    ['FP32', [0, 0, 128, 63, 0, 0, 0, 192], Float32Array.of(1, -2)],
    ['FP64', [0, 0, 0, 0, 0, 0, 240, 63, 0, 0, 0, 0, 0, 0, 0, 192], Float64Array.of(1, -2)],
  ])('reads %s as little-endian elements', (datatype, bytes, data) => {
    expect(toOrtTensor(wire(datatype, [2], bytes))).toEqual({ type: DATATYPES[datatype].onnx, data, dims: [2], location: 'cpu' });
  });

  test('reads BYTES as texts', () => {
    expect(toOrtTensor(wire('BYTES', [2, 1], strings('', '웨이퍼')))).toMatchObject({ type: 'string', data: ['', '웨이퍼'], dims: [2, 1] });
  });

  test('copies: the frame may be overwritten after', () => {
    const tensor = wire('FP32', [1], [0, 0, 128, 63]);
    const { data } = toOrtTensor(tensor);
    tensor.bytes.fill(0xff);
    expect(data).toEqual(Float32Array.of(1));
  });

  test('reads a view at any address', () => {
    const memory = Uint8Array.from([9, 9, 9, 0, 0, 128, 63, 9]);
    expect(toOrtTensor({ name: 'x', datatype: 'FP32', shape: [], bytes: memory.subarray(3, 7) }).data).toEqual(Float32Array.of(1));
  });

  test.each(fixed)('refuses %s of one byte too few or too many, with the count that it takes', (datatype) => {
    const expected = 6 * DATATYPES[datatype].bytes;
    for (const length of [expected - 1, expected + 1, 0]) {
      const error = errorOf(() => toOrtTensor(wire(datatype, [2, 3], new Uint8Array(length))));
      expect([error.code, error.field]).toEqual(['invalid_field', 'x']);
      expect(error.message).toBe(`Cannot read tensor 'x': ${datatype} [2, 3] takes ${expected} bytes, ${length} were sent`);
    }
  });

  test.each([
    ['a length cut short', [1, 0, 0]],
    ['a text cut short', [2, 0, 0, 0, 97]],
    ['a length of 4 GiB', [255, 255, 255, 255, 97]],
    ['bytes that are not UTF-8', [1, 0, 0, 0, 0xff]],
  ])('refuses BYTES with %s', (_name, bytes) => {
    const error = errorOf(() => toOrtTensor(wire('BYTES', [1], bytes)));
    expect([error.code, error.message]).toEqual([
      'invalid_field',
      "Cannot read tensor 'x': its BYTES elements are not (uint32 length, UTF-8) pairs",
    ]);
  });

  test.each([
    ['fewer', strings('a'), 1],
    ['more', strings('a', 'b', 'c'), 3],
    ['no', new Uint8Array(0), 0],
  ])('refuses BYTES with %s elements than its shape holds', (_name, bytes, sent) => {
    expect(errorOf(() => toOrtTensor(wire('BYTES', [2], bytes))).message).toBe(
      `Cannot read tensor 'x': its shape holds 2 elements, ${sent} were sent`,
    );
  });
});

describe('toWireTensor()', () => {
  test('gives back every tensor that toOrtTensor() took', () => {
    fc.assert(
      fc.property(anyTensor, (tensor) => {
        expect(toWireTensor('x', toOrtTensor(tensor))).toEqual(tensor);
      }),
    );
  });

  test('gives the elements of a part of a larger array only', () => {
    const data = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    expect(toWireTensor('y', { type: 'float32', data, dims: [2], location: 'cpu' }).bytes).toEqual(
      new Uint8Array(Float32Array.of(1, 2).buffer),
    );
  });

  test('refuses an element type that no door carries', () => {
    const error = errorOf(() => toWireTensor('y', { type: 'bfloat16', data: Uint16Array.of(1), dims: [1], location: 'cpu' }));
    expect([error.code, error.field, error.message]).toEqual([
      'unsupported',
      'y',
      "Cannot send output 'y': element type bfloat16 is not supported",
    ]);
  });
});
