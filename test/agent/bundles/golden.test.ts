import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compareTensors, formatGolden, parseGolden } from '../../../agent/bundles/golden.ts';
import { numberToFloat16 } from '../../../agent/bundles/rows.ts';
import { float16ToNumber } from '../../../agent/bundles/tensor-compare.ts';
import { readTensorProto } from '../../../agent/bundles/tensor-proto.ts';
import { readTestDataSet } from '../../../agent/bundles/test-data.ts';
import { encodeTexts } from '../../../agent/bundles/vet-inputs.ts';
import type { WireTensor } from '../../../protocol/datatype.ts';
import { hasShared, sharedPath } from '../../support/shared.ts';
import { bytes, floats, number, RELU_CASE, varint } from './tiny-onnx.ts';

const text = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));

describe('golden.json', () => {
  test('has exactly these bytes', () => {
    expect(new TextDecoder().decode(formatGolden([RELU_CASE]))).toBe(
      '{"format":"setpoint.golden.v1","cases":[{"inputs":[{"name":"x","datatype":"FP32","shape":[1],"data":"AAAAQA=="}],' +
        '"outputs":[{"name":"y","datatype":"FP32","shape":[1],"data":"AAAAQA=="}]}]}\n',
    );
  });

  test('is read back as it was written', () => {
    const strings: WireTensor = { name: 's', datatype: 'BYTES', shape: [2], bytes: encodeTexts(['', 'µm']) };
    const cases = [{ inputs: [strings, floats('x', [2, 0], [])], outputs: [floats('y', [], [1])] }];
    expect(parseGolden(formatGolden(cases), 'golden.json')).toEqual(cases);
  });

  test('is refused with the key where it is wrong', () => {
    const tensor = { name: 'x', datatype: 'FP32', shape: [1], data: 'AAAAQA==' };
    const one = (changed: object): Uint8Array =>
      text({ format: 'setpoint.golden.v1', cases: [{ inputs: [{ ...tensor, ...changed }], outputs: [tensor] }] });
    expect(parseGolden(one({}), 'g')).toHaveLength(1);
    expect(() => parseGolden(one({ shape: [2] }), 'g')).toThrow("tensor 'x': FP32 [2] takes 8 bytes, it has 4");
    expect(() => parseGolden(one({ shape: [-1] }), 'g')).toThrow('cases.0.inputs.0.shape.0');
    expect(() => parseGolden(one({ datatype: 'FP8' }), 'g')).toThrow('cases.0.inputs.0.datatype');
    expect(() => parseGolden(one({ data: '*' }), 'g')).toThrow('cases.0.inputs.0.data');
    expect(() => parseGolden(one({ extra: 1 }), 'g')).toThrow('cases.0.inputs.0');
    expect(() => parseGolden(one({ datatype: 'BYTES' }), 'g')).toThrow('pairs of uint32 length and text');
    expect(() => parseGolden(text({ format: 'setpoint.golden.v1', cases: [] }), 'g')).toThrow('cases');
    expect(() => parseGolden(text({ format: 'setpoint.golden.v1', cases: [{ inputs: [tensor], outputs: [] }] }), 'g')).toThrow(
      'cases.0.outputs',
    );
    expect(() => parseGolden(new Uint8Array([0xff]), 'g')).toThrow('not UTF-8 JSON');
  });
});

describe('compareTensors()', () => {
  const y = (...values: number[]): WireTensor => floats('y', [values.length], values);

  test('takes floats within atol + rtol * |want|', () => {
    expect(compareTensors(y(100.5), y(100), 0.005, 0)).toBeNull();
    expect(compareTensors(y(100.75), y(100), 0.005, 0)).toBe(
      "'y' is 100.75 at element 0, 100 is expected (allowed difference 0 + 0.005 x |100|)",
    );
    expect(compareTensors(y(0.25), y(0), 0, 0.25)).toBeNull();
  });

  test('takes NaN for NaN and an infinity for itself only', () => {
    expect(compareTensors(y(NaN, Infinity), y(NaN, Infinity), 0, 0)).toBeNull();
    expect(compareTensors(y(NaN), y(1), 1, 1)).not.toBeNull();
    expect(compareTensors(y(1), y(NaN), 1, 1)).not.toBeNull();
    expect(compareTensors(y(-Infinity), y(Infinity), 1, 1)).not.toBeNull();
    expect(compareTensors(y(1), y(Infinity), 1, 1)).not.toBeNull();
  });

  test('takes integers, bools and strings only when equal', () => {
    const of = (datatype: WireTensor['datatype'], ...raw: number[]): WireTensor => ({
      name: 'y',
      datatype,
      shape: [1],
      bytes: new Uint8Array(raw),
    });
    expect(compareTensors(of('INT16', 1, 0), of('INT16', 1, 0), 1, 1)).toBeNull();
    expect(compareTensors(of('INT16', 2, 0), of('INT16', 1, 0), 1, 1)).toBe("'y' differs at element 0");
    expect(compareTensors(of('BOOL', 0), of('BOOL', 1), 1, 1)).not.toBeNull();
    const word = (value: string): WireTensor => ({ name: 'y', datatype: 'BYTES', shape: [1], bytes: encodeTexts([value]) });
    expect(compareTensors(word('ab'), word('ab'), 0, 0)).toBeNull();
    expect(compareTensors(word('ab'), word('ac'), 1, 1)).toBe("'y' has a different text at byte 5");
  });

  test('tells types and shapes apart', () => {
    expect(compareTensors(floats('y', [1, 2], [1, 2]), floats('y', [2], [1, 2]), 1, 1)).toBe("'y' has shape [1, 2], [2] is expected");
    expect(compareTensors({ ...y(1), datatype: 'INT32' }, y(1), 1, 1)).toContain('is INT32, FP32 is expected');
  });

  test('reads float16', () => {
    expect([0x0000, 0x8000, 0x0001, 0x3c00, 0xc000, 0x7bff, 0x7c00, 0xfc00].map(float16ToNumber)).toEqual([
      0,
      -0,
      5.960464477539063e-8,
      1,
      -2,
      65504,
      Infinity,
      -Infinity,
    ]);
    expect(float16ToNumber(0x7e00)).toBeNaN();
    fc.assert(
      fc.property(fc.nat(0xffff), (bits) => Number.isNaN(float16ToNumber(bits)) || numberToFloat16(float16ToNumber(bits)) === bits),
    );
    // Ties go to the even neighbour: 2049 lies between 2048 and 2050.
    expect(float16ToNumber(numberToFloat16(2049))).toBe(2048);
    expect(float16ToNumber(numberToFloat16(65519))).toBe(65504);
    expect(float16ToNumber(numberToFloat16(65520))).toBe(Infinity);
  });
});

describe('readTensorProto()', () => {
  const proto = (code: number, length: number, ...rest: number[]): Uint8Array =>
    new Uint8Array([...number(1, length), ...number(2, code), ...rest]);
  const read = (file: Uint8Array): WireTensor => readTensorProto(file, 't.pb');

  test('reads raw data', () => {
    expect(read(proto(1, 1, ...bytes(8, 'x'), ...bytes(9, [0, 0, 128, 63])))).toEqual(floats('x', [1], [1]));
  });

  test('reads each typed field, packed or not', () => {
    expect([...read(proto(3, 2, ...number(5, -1n), ...number(5, 5))).bytes]).toEqual([255, 5]);
    expect([...read(proto(3, 2, ...bytes(5, [...varint(-1n), ...varint(5)]))).bytes]).toEqual([255, 5]);
    expect([...read(proto(10, 1, ...number(5, 0x3c00))).bytes]).toEqual([0, 0x3c]);
    expect([...read(proto(9, 1, ...number(5, 1))).bytes]).toEqual([1]);
    expect([...read(proto(7, 1, ...number(7, -2n))).bytes]).toEqual([254, 255, 255, 255, 255, 255, 255, 255]);
    expect([...read(proto(12, 1, ...number(11, 0xffffffff))).bytes]).toEqual([255, 255, 255, 255]);
    expect([...read(proto(13, 1, ...number(11, 2n ** 64n - 1n))).bytes]).toEqual(Array(8).fill(255));
    expect([...read(proto(1, 1, ...bytes(4, [0, 0, 128, 63]))).bytes]).toEqual([0, 0, 128, 63]);
    expect([...read(proto(11, 1, ...bytes(10, [0, 0, 0, 0, 0, 0, 240, 63]))).bytes]).toEqual([0, 0, 0, 0, 0, 0, 240, 63]);
    expect([...read(proto(8, 2, ...bytes(6, 'a'), ...bytes(6, ''))).bytes]).toEqual([1, 0, 0, 0, 97, 0, 0, 0, 0]);
  });

  test('refuses a count that is not the shape, unknown types and external data', () => {
    expect(() => read(proto(1, 2, ...bytes(9, [0, 0, 0, 0])))).toThrow('it has 1 elements, its shape [2] holds 2');
    expect(() => read(proto(16, 1, ...bytes(9, [0, 0])))).toThrow('bfloat16 is not supported');
    expect(() => read(proto(1, 1, ...number(14, 1)))).toThrow('external data is not allowed');
    expect(() => read(new Uint8Array([...number(1, -1n), ...number(2, 1)]))).toThrow('dimension -1 is out of range');
  });
});

describe('readTestDataSet()', () => {
  test('names tensors by position where they have no name, in the order of case.json where there is one', () => {
    const folder = mkdtempSync(join(tmpdir(), 'setpoint-test-'));
    const tensor = (value: number): Uint8Array => new Uint8Array([...number(1, 1), ...number(2, 2), ...bytes(9, [value])]);
    const set = join(folder, 'test_data_set_0');
    const files = { 'input_0.pb': tensor(1), 'input_1.pb': tensor(2), 'output_0.pb': tensor(3) };
    writeSet(set, files);
    const names = { inputs: ['a', 'b'], outputs: ['y', 'z'] };
    expect(readTestDataSet(set, names).inputs.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(readTestDataSet(set, names).outputs.map(({ name }) => name)).toEqual(['y']);
    writeFileSync(join(folder, 'case.json'), '{"input_pb_order":["b","a"],"output_pb_order":["z"],"note":"x"}');
    expect(readTestDataSet(set, names).inputs.map(({ name }) => name)).toEqual(['b', 'a']);
    expect(readTestDataSet(set, names).outputs.map(({ name }) => name)).toEqual(['z']);
    expect(() => readTestDataSet(set, { ...names, inputs: ['a'] })).toThrow("'b', which is no input of the model; a are");
    expect(() => readTestDataSet(folder, names)).toThrow('it has 0 files input_0.pb');
  });

  test.skipIf(!hasShared)('reads strings, integers and floats of a real case', () => {
    const set = readTestDataSet(sharedPath('onnx-cases/vm/phm16_mixed_float_string_int64/test_data_set_0'), {
      inputs: ['features', 'stage', 'chamber'],
      outputs: ['removal_rate'],
    });
    expect(set.inputs.map(({ datatype, shape }) => [datatype, ...shape])).toEqual([
      ['FP32', 12, 91],
      ['BYTES', 12, 1],
      ['INT64', 12, 1],
    ]);
  });
});

function writeSet(folder: string, files: Readonly<Record<string, Uint8Array>>): void {
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
}
