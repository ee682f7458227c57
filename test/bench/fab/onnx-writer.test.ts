import { createRequire } from 'node:module';
import type * as OnnxRuntime from 'onnxruntime-node';
import { describe, expect, test } from 'vitest';
import { evaluateGraph, type Graph, GraphBuilder } from '../../../bench/fab/graph.ts';
import { encodeModel } from '../../../bench/fab/onnx-writer.ts';

const { InferenceSession, Tensor } = createRequire(import.meta.url)('onnxruntime-node') as typeof OnnxRuntime;

/** Every operator once: two inputs, two outputs. */
function everyOperator(): Graph {
  const builder = new GraphBuilder({ name: 'x', columns: 2 });
  builder.node('Sub', ['x', builder.constant('mean', [2], [1, 2])], 'centred');
  builder.node('Div', ['centred', builder.constant('scale', [2], [2, 4])], 'z');
  builder.node('Clip', ['z', builder.constant('low', [], [-1]), builder.constant('high', [], [1])], 'clipped');
  builder.node(
    'Gemm',
    ['clipped', builder.constant('w', [2, 3], [1, -1, 0.5, 2, 0, -3]), builder.constant('b', [3], [0.1, 0.2, 0.3])],
    'sum',
  );
  builder.node('Relu', ['sum'], 'hidden');
  builder.node('MatMul', ['z', builder.constant('t', [2, 2], [1, 2, 3, 4])], 'projected');
  builder.node('Mul', ['projected', 'projected'], 'squares');
  builder.node('ReduceSum', ['squares', builder.axes('axis', [1n])], 'total');
  return builder.build('every operator', [
    { name: 'hidden', columns: 3 },
    { name: 'total', columns: 1 },
  ]);
}

describe('encodeModel()', () => {
  test('writes the bytes of onnx.proto3', () => {
    const builder = new GraphBuilder({ name: 'x', columns: 2 });
    builder.node('Mul', ['x', builder.constant('c', [1], [2])], 'y');
    const bytes = encodeModel(builder.build('g', [{ name: 'y', columns: 2 }]));
    expect(Buffer.from(bytes).toString('hex')).toBe(
      [
        '0808', // ir_version 8
        '120c736574706f696e742d666162', // producer_name
        '3a51', // graph, 81 bytes
        '0a11', // node
        '0a0178', // input x
        '0a0163', // input c
        '120179', // output y
        '1a0179', // name y
        '22034d756c', // op_type Mul
        '120167', // graph name
        '2a0d', // initializer
        '0801', // dims 1
        '1001', // FLOAT
        '420163', // name c
        '4a0400000040', // raw_data 2.0
        '5a14', // input
        '0a0178',
        '120f0a0d080112090a03', // type, tensor_type, FLOAT, shape, dim
        '12014e', // dim_param N
        '0a020802', // dim_value 2
        '6214',
        '0a0179',
        '120f0a0d080112090a03',
        '12014e',
        '0a020802',
        '4202', // opset_import
        '1011', // version 17
      ].join(''),
    );
  });

  test.each([1, 3])('gives a model that ONNX Runtime runs as evaluateGraph() does, on %i rows', async (rows) => {
    const graph = everyOperator();
    const session = await InferenceSession.create(encodeModel(graph));
    const input = Float32Array.from({ length: 2 * rows }, (_, index) => 1.7 * index - 2);
    const got = await session.run({ x: new Tensor('float32', input, [rows, 2]) });
    const want = evaluateGraph(graph, input);
    expect([...session.outputNames]).toEqual(['hidden', 'total']);
    expect(got['hidden']!.dims).toEqual([rows, 3]);
    expect(got['total']!.dims).toEqual([rows, 1]);
    for (const name of session.outputNames) {
      const values = got[name]!.data as Float32Array;
      for (const [index, value] of values.entries()) expect(value).toBeCloseTo(want.get(name)![index]!, 4);
    }
  });
});

describe('evaluateGraph()', () => {
  test('gives what the operators mean', () => {
    const answers = evaluateGraph(everyOperator(), Float32Array.from([3, -6]));
    // z = [1, -2]; clipped = [1, -1]; Gemm = [-0.9, -0.8, 3.8]; projected = [-5, -6].
    const hidden = [...answers.get('hidden')!];
    expect(hidden[0]).toBe(0);
    expect(hidden[1]).toBe(0);
    expect(hidden[2]).toBeCloseTo(3.8, 6);
    expect([...answers.get('total')!]).toEqual([61]);
  });

  test('refuses half a row', () => {
    expect(() => evaluateGraph(everyOperator(), Float32Array.from([1]))).toThrow('whole rows');
  });
});
