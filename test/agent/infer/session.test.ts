import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { openSession } from '../../../agent/infer/session.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { shippedBundle } from '../../support/models.ts';
import { FLOAT, INT64, model, RELU, value } from '../bundles/tiny-onnx.ts';

const SESSION_FILE = resolve(import.meta.dirname, '../../../agent/infer/session.ts');

/** Opens a session in a process with this environment; prints the error's code and message, then whether ONNX Runtime was loaded. */
function openInProcess(environment: Readonly<Record<string, string>>): string[] {
  const script = `
    import { openSession } from ${JSON.stringify(SESSION_FILE)};
    try {
      openSession(new Uint8Array(1));
    } catch (error) {
      console.log(error.code + ': ' + error.message);
    }
    console.log(process.report.getReport().sharedObjects.some((file) => file.includes('onnxruntime')) ? 'loaded' : 'not loaded');
  `;
  const options = { encoding: 'utf8', env: { PATH: process.env['PATH'] ?? '', ...environment } } as const;
  return execFileSync(process.execPath, ['--input-type=module', '-e', script], options).trim().split('\n');
}

describe('openSession()', () => {
  test.each([
    ['is not set', {}],
    ['is 0', { ORT_DISABLE_TELEMETRY: '0' }],
    ['is true', { ORT_DISABLE_TELEMETRY: 'true' }],
  ])('does not even load ONNX Runtime while ORT_DISABLE_TELEMETRY %s', (_name, environment) => {
    expect(openInProcess(environment)).toEqual([
      'internal: Cannot load ONNX Runtime: ORT_DISABLE_TELEMETRY must be 1 in the environment of the process before it loads',
      'not loaded',
    ]);
  });

  test('loads it when ORT_DISABLE_TELEMETRY is 1', () => {
    expect(openInProcess({ ORT_DISABLE_TELEMETRY: '1' })).toEqual([
      expect.stringMatching(/^invalid_bundle: Cannot load the model: /),
      'loaded',
    ]);
  });

  test('tells names, datatypes and shapes of inputs and outputs, with -1 for a free dimension', () => {
    const session = openSession(readFileSync(join(shippedBundle('cd-scanner-a-product-x'), 'model.onnx')));
    const { inputs, outputs } = JSON.parse(readFileSync(join(shippedBundle('cd-scanner-a-product-x'), 'manifest.json'), 'utf8')) as {
      inputs: unknown;
      outputs: unknown;
    };
    expect(session.inputs).toEqual(inputs);
    expect(session.outputs).toEqual(outputs);
    session.release();
  });

  test('says what ONNX Runtime says of bytes that are no model', () => {
    for (const bytes of [new Uint8Array(0), new TextEncoder().encode('not a model'), RELU.subarray(0, RELU.byteLength - 9)]) {
      let error: unknown;
      try {
        openSession(bytes);
      } catch (thrown) {
        error = thrown;
      }
      expect(error).toBeInstanceOf(SetpointError);
      expect(error).toMatchObject({ code: 'invalid_bundle', message: expect.stringMatching(/^Cannot load the model: .{10}/) });
    }
  });

  test('takes a model from the middle of a larger buffer', () => {
    const pooled = Buffer.alloc(RELU.byteLength + 64, 0xff);
    pooled.set(RELU, 17);
    const session = openSession(pooled.subarray(17, 17 + RELU.byteLength));
    expect(session.inputs).toEqual([{ name: 'x', datatype: 'FP32', shape: [1] }]);
    session.release();
  });
});

describe('a session', () => {
  const input = (data: number[]): { x: { type: string; data: Float32Array; dims: number[]; location: 'cpu' } } => ({
    x: { type: 'float32', data: Float32Array.from(data), dims: [data.length], location: 'cpu' },
  });

  test('runs at once, and gives the outputs that were asked for in arrays of their own', () => {
    const session = openSession(RELU);
    const first = session.run(input([3]), { y: null });
    const second = session.run(input([-3]), { y: null });
    expect(first).toMatchObject({ y: { type: 'float32', dims: [1] } });
    expect([[...(first['y']!.data as Float32Array)], [...(second['y']!.data as Float32Array)]]).toEqual([[3], [0]]);
    session.release();
  });

  test('gives only what was asked for', () => {
    const two = model({
      nodes: [
        { op: 'Relu', inputs: ['x'], outputs: ['y'] },
        { op: 'Neg', inputs: ['x'], outputs: ['z'] },
      ],
      inputs: [value(11, 'x', FLOAT, [1])],
      outputs: [value(12, 'y', FLOAT, [1]), value(12, 'z', FLOAT, [1])],
    });
    const session = openSession(two);
    expect(Object.keys(session.run(input([1]), { z: null }))).toEqual(['z']);
    expect(Object.keys(session.run(input([1]), { y: null, z: null })).sort()).toEqual(['y', 'z']);
    session.release();
  });

  test('throws what ONNX Runtime says of feeds that do not fit, and runs again after', () => {
    const session = openSession(RELU);
    expect(() => session.run(input([1, 2]), { y: null })).toThrow(/invalid dimensions/i);
    expect(() => session.run({ x: { type: 'int64', data: BigInt64Array.of(1n), dims: [1], location: 'cpu' } }, { y: null })).toThrow(
      /type/i,
    );
    expect([...(session.run(input([1]), { y: null })['y']!.data as Float32Array)]).toEqual([1]);
    session.release();
  });

  test('may be released twice', () => {
    const session = openSession(RELU);
    session.release();
    expect(() => session.release()).not.toThrow();
  });

  test('names a datatype of its own for each input', () => {
    const session = openSession(
      model({
        nodes: [{ op: 'Cast', inputs: ['n'], outputs: ['y'], attributes: [[...castTo(FLOAT)]] }],
        inputs: [value(11, 'n', INT64, ['N', 2])],
        outputs: [value(12, 'y', FLOAT, ['N', 2])],
      }),
    );
    expect(session.inputs).toEqual([{ name: 'n', datatype: 'INT64', shape: [-1, 2] }]);
    session.release();
  });
});

/** Attribute `to` of Cast: name (1), i (3), type INT (20: 2). */
function castTo(type: number): number[] {
  return [0x0a, 2, 0x74, 0x6f, 0x18, type, 0xa0, 0x01, 2];
}
