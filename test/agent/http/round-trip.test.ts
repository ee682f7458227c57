import { describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { DATATYPE_NAMES, type Datatype } from '../../../protocol/datatype.ts';
import { bytesOfJson, jsonOfTensor, parseExactly } from '../../../agent/http/json-data.ts';
import { binaryBody, blobOf, FakeServices, infer, jsonOf, wire } from './fake-services.ts';

const bits = (count: number) => fc.integer({ min: 0, max: 2 ** count - 1 });
const signed = (count: number) => fc.integer({ min: -(2 ** (count - 1)), max: 2 ** (count - 1) - 1 });
const finite = { noNaN: true, noDefaultInfinity: true };

const VALUES: Readonly<Record<Exclude<Datatype, 'BYTES'>, fc.Arbitrary<number | bigint>>> = {
  BOOL: bits(1),
  UINT8: bits(8),
  UINT16: bits(16),
  UINT32: bits(32),
  UINT64: fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  INT8: signed(8),
  INT16: signed(16),
  INT32: signed(32),
  INT64: fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  FP16: bits(16),
  FP32: fc.float(finite),
  FP64: fc.double(finite),
};

function wireStrings(texts: readonly string[]): Uint8Array {
  return new Uint8Array(
    Buffer.concat(
      texts.flatMap((text) => {
        const bytes = Buffer.from(text);
        const length = Buffer.alloc(4);
        length.writeUInt32LE(bytes.length);
        return [length, bytes];
      }),
    ),
  );
}

function tensorBytes(datatype: Datatype): fc.Arbitrary<{ count: number; bytes: Uint8Array }> {
  if (datatype === 'BYTES') {
    return fc
      .array(fc.string({ unit: 'grapheme' }), { maxLength: 20 })
      .map((texts) => ({ count: texts.length, bytes: wireStrings(texts) }));
  }
  return fc.array(VALUES[datatype], { maxLength: 40 }).map((values) => ({ count: values.length, bytes: wire(datatype, values) }));
}

describe('a tensor goes to JSON text and back bit for bit', () => {
  test.each(DATATYPE_NAMES.filter((name) => name !== 'FP16'))('%s', (datatype) => {
    fc.assert(
      fc.property(tensorBytes(datatype), ({ count, bytes }) => {
        const text = jsonOfTensor({ name: 'x', datatype, shape: [count], bytes });
        expect(bytesOfJson(parseExactly(text), datatype, [count], 'x')).toEqual(bytes);
      }),
    );
  });
});

describe('a tensor goes through a binary request and its binary answer bit for bit', () => {
  test.each(DATATYPE_NAMES)('%s', (datatype) => {
    fc.assert(
      fc.property(tensorBytes(datatype), ({ count, bytes }) => {
        const inputs = [{ name: 'x', shape: [count], datatype, parameters: { binary_data_size: bytes.length } }];
        const { body, length } = binaryBody({ inputs, parameters: { binary_data_output: true } }, bytes);
        const reply = infer(new FakeServices(), `echo/${datatype}`, body, length);
        expect(blobOf(reply)).toEqual(bytes);
        expect(jsonOf(reply).outputs[0].shape).toEqual([count]);
      }),
    );
  });
});

function nest(flat: readonly unknown[], [length, ...inner]: readonly number[]): unknown[] {
  if (length === undefined || inner.length === 0) {
    return [...flat];
  }
  const size = inner.reduce((product, dimension) => product * dimension, 1);
  return Array.from({ length }, (_, index) => nest(flat.slice(index * size, (index + 1) * size), inner));
}

test('nested data equals flat data for every shape', () => {
  const shapes = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(shapes, (shape) => {
      const count = shape.reduce((product, dimension) => product * dimension, 1);
      fc.pre(count <= 4096);
      const flat = Array.from({ length: count }, (_, index) => index);
      expect(bytesOfJson(nest(flat, shape), 'INT32', shape, 'x')).toEqual(bytesOfJson(flat, 'INT32', shape, 'x'));
    }),
  );
});
