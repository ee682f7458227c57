import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { vectorInput } from '../../../agent/infer/model.ts';
import { checkTensors, placeVector, tensorsOf } from '../../../agent/serve/inputs.ts';
import type { Datatype, WireTensor } from '../../../protocol/datatype.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { type Features, REASONS } from '../../../protocol/frames.ts';
import { floats } from '../bundles/tiny-onnx.ts';
import { guardedManifest, policyOf, PREDICTION_SPEC } from '../guard/guarded-manifest.ts';

const policy = policyOf(PREDICTION_SPEC);

function vectorOf(datatype: 'FP32' | 'FP64'): NonNullable<ReturnType<typeof vectorInput>> {
  return vectorInput(guardedManifest(PREDICTION_SPEC, [{ name: 'features', datatype, shape: [-1, 3] }]), true)!;
}

function bytesOf(array: Float32Array | Float64Array): Uint8Array {
  // An odd address: frames are views of an arena.
  const memory = new Uint8Array(array.byteLength + 1);
  memory.set(new Uint8Array(array.buffer), 1);
  return memory.subarray(1);
}

const f32 = (...numbers: readonly number[]): Features => ({ encoding: 'float32', bytes: bytesOf(Float32Array.from(numbers)) });
const f64 = (...numbers: readonly number[]): Features => ({ encoding: 'float64', bytes: bytesOf(Float64Array.from(numbers)) });
const tensors = (...list: readonly WireTensor[]): Features => ({ encoding: 'tensors', tensors: list });

describe('placeVector()', () => {
  const UNTOUCHED = 9;

  function place(features: Features, datatype: 'FP32' | 'FP64' = 'FP32', row = 1): { reasons: number; rows: number[] } {
    const rows = datatype === 'FP32' ? new Float32Array(9).fill(UNTOUCHED) : new Float64Array(9).fill(UNTOUCHED);
    return { reasons: placeVector(features, vectorOf(datatype), rows, row, policy), rows: [...rows] };
  }

  test.each<[string, Features, 'FP32' | 'FP64', number[]]>([
    ['float32 into float32', f32(1, 2.5, -3), 'FP32', [1, 2.5, -3]],
    ['float64 into float64', f64(1, 0.1, -3), 'FP64', [1, 0.1, -3]],
    ['float64 into float32, rounded', f64(1, 0.1, -3), 'FP32', [1, Math.fround(0.1), -3]],
    ['float32 into float64, exactly', f32(1, 0.1, -3), 'FP64', [1, Math.fround(0.1), -3]],
    ['a tensor of one row', tensors(floats('features', [1, 3], [4, 5, 6])), 'FP32', [4, 5, 6]],
    ['a tensor of one dimension', tensors(floats('features', [3], [4, 5, 6])), 'FP32', [4, 5, 6]],
  ])('puts %s into its row, and nowhere else', (_name, features, datatype, expected) => {
    const around = [UNTOUCHED, UNTOUCHED, UNTOUCHED];
    expect(place(features, datatype, 0)).toEqual({ reasons: 0, rows: [...expected, ...around, ...around] });
    expect(place(features, datatype, 1)).toEqual({ reasons: 0, rows: [...around, ...expected, ...around] });
    expect(place(features, datatype, 2)).toEqual({ reasons: 0, rows: [...around, ...around, ...expected] });
  });

  test.each<[string, Features]>([
    ['no elements', f32()],
    ['an element too few', f32(1, 2)],
    ['an element too many', f32(1, 2, 3, 4)],
    ['bytes that are no whole element', { encoding: 'float32', bytes: new Uint8Array(13) }],
    ['as many bytes as three float32, called float64', { encoding: 'float64', bytes: new Uint8Array(12) }],
    ['no tensor', tensors()],
    ['two tensors', tensors(floats('features', [1, 3], [1, 2, 3]), floats('other', [1, 3], [1, 2, 3]))],
    ['a tensor of another name', tensors(floats('other', [1, 3], [1, 2, 3]))],
    ['a tensor of another datatype', tensors({ name: 'features', datatype: 'INT32', shape: [1, 3], bytes: new Uint8Array(12) })],
    ['a tensor of two rows', tensors(floats('features', [2, 3], [1, 2, 3, 4, 5, 6]))],
    ['a tensor that lies on its side', tensors(floats('features', [3, 1], [1, 2, 3]))],
    ['a tensor of three dimensions', tensors(floats('features', [1, 1, 3], [1, 2, 3]))],
  ])('gives input_count for %s, and leaves the row as it was', (_name, features) => {
    expect(place(features)).toEqual({ reasons: REASONS.input_count, rows: Array<number>(9).fill(UNTOUCHED) });
  });

  test.each<[string, Features, 'FP32' | 'FP64']>([
    ['NaN', f32(1, Number.NaN, 3), 'FP32'],
    ['an infinity', f64(1, 2, -Infinity), 'FP64'],
    ['a float64 beyond float32', f64(1, 1e300, 3), 'FP32'],
  ])('gives input_not_finite for %s', (_name, features, datatype) => {
    expect(place(features, datatype).reasons).toBe(REASONS.input_not_finite);
  });

  test('gives input_range for a feature outside its range', () => {
    const ranged = policyOf({ ...PREDICTION_SPEC, features: [{ name: 'a', max: 1 }, { name: 'b' }, { name: 'c' }] });
    expect(placeVector(f32(2, 0, 0), vectorOf('FP32'), new Float32Array(3), 0, ranged)).toBe(REASONS.input_range);
  });

  test('gives the model what was sent, to the bit', () => {
    fc.assert(
      fc.property(fc.array(fc.float({ noDefaultInfinity: true, noNaN: true }), { minLength: 3, maxLength: 3 }), (numbers) => {
        expect(place(f32(...numbers)).rows.slice(3, 6)).toEqual(numbers);
        expect(place(f32(...numbers), 'FP64').rows.slice(3, 6)).toEqual(numbers);
      }),
    );
  });
});

interface Declared {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: readonly number[];
}

describe('tensorsOf()', () => {
  const manifest = (...inputs: Declared[]): ReturnType<typeof guardedManifest> => guardedManifest(PREDICTION_SPEC, inputs);
  const x = { name: 'x', datatype: 'FP32', shape: [-1, 3] } as const;
  const n = { name: 'n', datatype: 'INT64', shape: [] } as const;
  const scalar: WireTensor = { name: 'n', datatype: 'INT64', shape: [], bytes: new Uint8Array(8) };

  function messageOf(run: () => unknown): [string, string | null, string] {
    try {
      run();
    } catch (error) {
      if (error instanceof SetpointError) return [error.code, error.field, error.message];
      throw error;
    }
    throw new Error('nothing was thrown');
  }

  test('gives the tensors back as they came, in any order', () => {
    const sent = [scalar, floats('x', [2, 3], [1, 2, 3, 4, 5, 6])];
    expect(tensorsOf(tensors(...sent), manifest(x, n))).toEqual(sent);
  });

  test.each<[readonly number[], Features, WireTensor]>([
    [[-1, 3], f32(1, 2, 3), floats('x', [1, 3], [1, 2, 3])],
    [[3], f32(1, 2, 3), floats('x', [3], [1, 2, 3])],
    [[-1, -1, 3], f32(1, 2, 3), floats('x', [1, 1, 3], [1, 2, 3])],
  ])('makes one row of a vector for an input of %j', (shape, features, expected) => {
    expect(tensorsOf(features, manifest({ ...x, shape }))).toEqual([{ ...expected, bytes: expect.anything() as unknown }]);
  });

  test.each<[string, Features, Declared[], string, string]>([
    ['a tensor that is missing', tensors(scalar), [x, n], 'features.x', "input 'x' takes FP32 [-1, 3], it is missing"],
    ['no tensors', tensors(), [x], 'features.x', "input 'x' takes FP32 [-1, 3], it is missing"],
    [
      'another datatype',
      tensors({ name: 'x', datatype: 'FP64', shape: [1, 3], bytes: new Uint8Array(24) }),
      [x],
      'features.x',
      "input 'x' takes FP32 [-1, 3], FP64 was sent",
    ],
    ['another length', tensors(floats('x', [1, 2], [1, 2])), [x], 'features.x', "input 'x' takes FP32 [-1, 3], [1, 2] was sent"],
    ['another rank', tensors(floats('x', [3], [1, 2, 3])), [x], 'features.x', "input 'x' takes FP32 [-1, 3], [3] was sent"],
    ['a tensor too many', tensors(floats('x', [1, 3], [1, 2, 3]), scalar), [x], 'features', "it has no input 'n'"],
    ['a vector for two inputs', f32(1, 2, 3), [x, n], 'features', 'it takes 2 named tensors, a vector was sent'],
    ['a vector of float64 for FP32', f64(1, 2, 3), [x], 'features.x', "input 'x' takes FP32 [-1, 3], FP64 was sent"],
    ['a vector of another length', f32(1, 2), [x], 'features.x', "input 'x' takes FP32 [-1, 3], [1, 2] was sent"],
    ['a vector for a scalar', f32(1), [{ ...x, shape: [] }], 'features.x', "input 'x' takes FP32 [], [1] was sent"],
  ])('refuses %s, naming it and what the model takes', (_name, features, inputs, field, message) => {
    expect(messageOf(() => tensorsOf(features, manifest(...inputs)))).toEqual(['invalid_field', field, `Cannot run the model: ${message}`]);
  });
});

describe('checkTensors()', () => {
  const of = (datatype: Datatype, ...bytes: readonly number[]): WireTensor => ({
    name: 'x',
    datatype,
    shape: [1],
    bytes: Uint8Array.from([7, ...bytes]).subarray(1),
  });
  const fine = floats('y', [2], [1, 2]);

  test.each<[string, WireTensor]>([
    ['FP16 NaN', of('FP16', 0x00, 0x00, 0x01, 0x7e)],
    ['FP16 infinity', of('FP16', 0x00, 0x7c)],
    ['FP16 minus infinity', of('FP16', 0x00, 0xfc)],
    ['FP32 NaN', floats('x', [2], [1, Number.NaN])],
    ['FP32 infinity', floats('x', [2], [-Infinity, 1])],
    ['FP64 NaN', of('FP64', 0, 0, 0, 0, 0, 0, 0xf8, 0x7f)],
    ['FP64 minus infinity', of('FP64', 0, 0, 0, 0, 0, 0, 0xf0, 0xff)],
  ])('gives input_not_finite for %s, wherever it is', (_name, tensor) => {
    expect(checkTensors([tensor])).toBe(REASONS.input_not_finite);
    expect(checkTensors([fine, tensor, fine])).toBe(REASONS.input_not_finite);
  });

  test.each<[string, WireTensor]>([
    ['the largest FP16', of('FP16', 0xff, 0x7b)],
    ['the smallest FP16', of('FP16', 0x01, 0x80)],
    ['the largest FP32', of('FP32', 0xff, 0xff, 0x7f, 0x7f)],
    ['the largest FP64', of('FP64', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xef, 0x7f)],
    ['integers of any bits', of('INT64', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f)],
    ['texts', of('BYTES', 0xff, 0xff, 0xff, 0x7f)],
    ['nothing', of('FP32')],
  ])('gives 0 for %s', (_name, tensor) => {
    expect(checkTensors([fine, tensor])).toBe(0);
  });
});
