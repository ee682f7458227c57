import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openBundle } from '../../../agent/bundles/bundle.ts';
import { parseGolden } from '../../../agent/bundles/golden.ts';
import { Model, outputNumber, outputRow, tensorRows, vectorInput } from '../../../agent/infer/model.ts';
import type { OrtTensor } from '../../../agent/infer/session.ts';
import { toWireTensor } from '../../../agent/infer/tensor.ts';
import type { Datatype, WireTensor } from '../../../protocol/datatype.ts';
import { shippedBundle } from '../../support/models.ts';
import { floats, tinyBundle } from '../bundles/tiny-onnx.ts';
import { guardedManifest, PREDICTION_SPEC } from '../guard/guarded-manifest.ts';

interface Declared {
  readonly name?: string;
  readonly datatype?: Datatype;
  readonly shape: readonly number[];
}

function withInputs(...inputs: Declared[]): ReturnType<typeof guardedManifest> {
  return guardedManifest(
    PREDICTION_SPEC,
    inputs.map((input, at) => ({ name: `x${at}`, datatype: 'FP32', ...input })),
  );
}

function ort(data: OrtTensor['data'], dims: readonly number[], type = 'float32'): OrtTensor {
  return { type, data, dims, location: 'cpu' };
}

describe('vectorInput()', () => {
  test.each<[string, readonly number[], number, number]>([
    ['[N, 3]', [-1, 3], 3, 64],
    ['[1, 3]', [1, 3], 3, 1],
    ['[3]', [3], 3, 1],
    ['[N, 1024]', [-1, 1024], 1024, 64],
    ['[N, 1025]', [-1, 1025], 1025, 63],
    ['[N, 16384]', [-1, 16_384], 16_384, 4],
    ['[N, 70000]', [-1, 70_000], 70_000, 1],
  ])('takes %s as vectors, so many rows a run', (_name, shape, featureCount, capacityRows) => {
    expect(vectorInput(withInputs({ shape }), true)).toEqual({ name: 'x0', encoding: 'float32', featureCount, capacityRows });
    expect(vectorInput(withInputs({ shape }), false)?.capacityRows).toBe(1);
  });

  test('takes FP64 as float64', () => {
    expect(vectorInput(withInputs({ datatype: 'FP64', shape: [-1, 3] }), true)?.encoding).toBe('float64');
  });

  test.each<{ name: string; inputs: Declared[] }>([
    { name: 'two inputs', inputs: [{ shape: [-1, 3] }, { shape: [-1, 3] }] },
    { name: 'an input of integers', inputs: [{ datatype: 'INT64', shape: [-1, 3] }] },
    { name: 'an input of halves', inputs: [{ datatype: 'FP16', shape: [-1, 3] }] },
    { name: 'a free length', inputs: [{ shape: [-1, -1] }] },
    { name: 'a free length alone', inputs: [{ shape: [-1] }] },
    { name: 'no length', inputs: [{ shape: [-1, 0] }] },
    { name: 'two rows', inputs: [{ shape: [2, 3] }] },
    { name: 'three dimensions', inputs: [{ shape: [-1, 3, 1] }] },
    { name: 'a scalar', inputs: [{ shape: [] }] },
  ])('is null for $name', ({ inputs }) => {
    expect(vectorInput(withInputs(...inputs), true)).toBeNull();
  });
});

describe('a model', () => {
  const bundle = openBundle(shippedBundle('cd-scanner-a-product-x'));
  const cases = parseGolden(bundle.read(bundle.manifest.golden), 'golden.json');

  function load(isBatchable = true): Model {
    return new Model(bundle.manifest, isBatchable, bundle.read(bundle.manifest.model.path), []);
  }

  function elements(tensor: WireTensor): Float32Array {
    return new Float32Array(Uint8Array.from(tensor.bytes).buffer);
  }

  function place(model: Model, row: number, tensor: WireTensor): void {
    model.rows!.set(elements(tensor), row * model.vector!.featureCount);
  }

  const predictions = cases.map(({ outputs }) => elements(outputs.find(({ name }) => name === 'prediction')!)[0]!);

  test('gives each row of a batch its own golden outputs, whatever the size of the batch', () => {
    const model = load();
    expect([model.vector?.capacityRows, model.rows?.length]).toEqual([64, 64 * 24]);
    for (const count of [1, 2, 7, 64, 3]) {
      for (let row = 0; row < count; row++) place(model, row, cases[(row * 3) % cases.length]!.inputs[0]!);
      const outputs = model.runRows(count, false);
      for (let row = 0; row < count; row++) {
        expect(outputNumber(outputs, 'prediction', row, count)).toBeCloseTo(predictions[(row * 3) % cases.length]!, 3);
        expect(outputNumber(outputs, 'gsi', row, count)).not.toBeNaN();
      }
    }
    model.release();
  });

  test('keeps what it answered: the next run does not overwrite it', () => {
    const model = load();
    place(model, 0, cases[0]!.inputs[0]!);
    const first = model.runRows(1, true);
    place(model, 0, cases[1]!.inputs[0]!);
    model.runRows(1, true);
    expect(outputNumber(first, 'prediction', 0, 1)).toBeCloseTo(predictions[0]!, 3);
    model.release();
  });

  test('gives the role outputs, and every output when asked', () => {
    const manifest = { ...bundle.manifest, roles: { prediction: { output: 'prediction' } }, guard: {} };
    const model = new Model(manifest, true, bundle.read(manifest.model.path), []);
    place(model, 0, cases[0]!.inputs[0]!);
    expect(Object.keys(model.runRows(1, false))).toEqual(['prediction']);
    expect(Object.keys(model.runRows(1, true)).sort()).toEqual(['gsi', 'prediction', 'reference']);
    model.release();
  });

  test('runs named tensors as they came', () => {
    const model = load();
    const outputs = model.runTensors(cases[2]!.inputs);
    expect(Object.keys(outputs).sort()).toEqual(['gsi', 'prediction', 'reference']);
    expect(elements(toWireTensor('prediction', outputs['prediction']!))[0]).toBeCloseTo(predictions[2]!, 3);
    expect(() => model.runTensors([floats('features', [1, 2], [1, 2])])).toThrow(/invalid dimensions/i);
    expect(() => model.runTensors([floats('features', [1, 24], [1])])).toThrow('takes 96 bytes, 4 were sent');
    model.release();
  });

  test('asserts that a batch fits', () => {
    const model = load();
    expect(() => model.runRows(65, false)).toThrow('Assertion failed: 65 rows do not fit the batch');
    expect(() => model.runRows(0, false)).toThrow('Assertion failed');
    model.release();
  });

  test('takes a vector without a batch axis, one at a time', () => {
    const tiny = tinyBundle();
    const model = new Model(tiny.manifest, true, tiny.read('model.onnx'), []);
    expect(model.vector).toEqual({ name: 'x', encoding: 'float32', featureCount: 1, capacityRows: 1 });
    model.rows![0] = 5;
    // A bundle without roles is asked for every output.
    expect(outputNumber(model.runRows(1, false), 'y', 0, 1)).toBe(5);
    model.release();
  });

  test('has no rows when its inputs are no vector', () => {
    const { manifest } = tinyBundle();
    const model = new Model(
      { ...manifest, inputs: [{ name: 'x', datatype: 'FP32', shape: [-1] }] },
      true,
      readFileSync(join(shippedBundle('cd-scanner-b-product-x'), 'model.onnx')),
      [],
    );
    expect([model.vector, model.rows]).toEqual([null, null]);
    model.release();
  });
});

describe('outputNumber()', () => {
  test('is the first element of the row', () => {
    const outputs = { y: ort(Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]), s: ort(Float64Array.of(7.5), []) };
    expect([0, 1, 2].map((row) => outputNumber(outputs, 'y', row, 3))).toEqual([1, 3, 5]);
    expect(outputNumber(outputs, 'y', 0, 1)).toBe(1);
    expect(outputNumber(outputs, 's', 0, 1)).toBe(7.5);
  });

  test.each<[string, OrtTensor, number]>([
    ['int64', ort(BigInt64Array.of(-7n), [1], 'int64'), -7],
    ['uint8', ort(Uint8Array.of(200), [1], 'uint8'), 200],
    ['bool', ort(Uint8Array.of(1), [1], 'bool'), 1],
  ])('reads %s as a number', (_name, tensor, expected) => {
    expect(outputNumber({ y: tensor }, 'y', 0, 1)).toBe(expected);
  });

  test.each<[string, OrtTensor | undefined, number, number]>([
    ['there is no such output', undefined, 0, 1],
    ['the output is text', ort(['1'], [1], 'string'), 0, 1],
    ['the output is empty', ort(new Float32Array(0), [0], 'float32'), 0, 1],
    ['the output has fewer elements than there are rows', ort(Float32Array.of(1), [1]), 0, 2],
    ['the output does not divide into rows', ort(Float32Array.of(1, 2, 3), [3]), 1, 2],
    ['the row is beyond the output', ort(Float32Array.of(1, 2), [2]), 2, 2],
  ])('is NaN when %s', (_name, tensor, row, rows) => {
    expect(outputNumber(tensor === undefined ? {} : { y: tensor }, 'y', row, rows)).toBeNaN();
    expect(outputNumber({}, undefined, row, rows)).toBeNaN();
  });
});

describe('outputRow()', () => {
  test('cuts the row out of a batch, in memory of its own', () => {
    const data = Float32Array.of(1, 2, 3, 4, 5, 6);
    const row = outputRow(ort(data, [3, 2]), 1, 3);
    data.fill(0);
    expect(row).toEqual(ort(Float32Array.of(3, 4), [1, 2]));
  });

  test('cuts texts and whole integers, too', () => {
    expect(outputRow(ort(['a', 'b'], [2], 'string'), 1, 2)).toEqual(ort(['b'], [1], 'string'));
    expect(outputRow(ort(BigInt64Array.of(1n, 2n), [2, 1], 'int64'), 0, 2)).toEqual(ort(BigInt64Array.of(1n), [1, 1], 'int64'));
  });

  test('is the tensor itself for a run of one row, and when the first axis does not count rows', () => {
    const tensor = ort(Float32Array.of(1, 2, 3), [3]);
    expect(outputRow(tensor, 0, 1)).toBe(tensor);
    expect(outputRow(tensor, 1, 2)).toBe(tensor);
    const scalar = ort(Float32Array.of(1), []);
    expect(outputRow(scalar, 1, 2)).toBe(scalar);
  });
});

describe('tensorRows()', () => {
  test('cuts a tensor into tensors of one row, as views', () => {
    const tensor = floats('x', [3, 2], [1, 2, 3, 4, 5, 6]);
    const rows = tensorRows(tensor, 3);
    expect(rows).toEqual([floats('x', [1, 2], [1, 2]), floats('x', [1, 2], [3, 4]), floats('x', [1, 2], [5, 6])]);
    expect(rows.every(({ bytes }) => bytes.buffer === tensor.bytes.buffer)).toBe(true);
  });

  test('cuts texts where they end', () => {
    const bytes = Uint8Array.from([1, 0, 0, 0, 97, 0, 0, 0, 0, 2, 0, 0, 0, 98, 99, 1, 0, 0, 0, 100]);
    const rows = tensorRows({ name: 's', datatype: 'BYTES', shape: [2, 2], bytes }, 2);
    expect(rows.map((row) => [row.shape, [...row.bytes]])).toEqual([
      [[1, 2], [...bytes.subarray(0, 9)]],
      [[1, 2], [...bytes.subarray(9)]],
    ]);
  });
});
