import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { readOnnxModel } from '../../../agent/bundles/onnx-model.ts';
import { SCAN_LIMITS, scanModel } from '../../../agent/bundles/onnx-scan.ts';
import { openSession } from '../../../agent/infer/session.ts';
import { hasShared, sharedPath } from '../../support/shared.ts';
import { bytes, FLOAT, graph, graphAttribute, model, node, RELU, value, type Node } from './tiny-onnx.ts';

const request = { domains: ['ai.onnx.ml'], externalData: [], modelBytes: 100 };
const x = value(11, 'x', FLOAT, [1]);
const y = value(12, 'y', FLOAT, [1]);

function findings(file: Uint8Array, given: Partial<typeof request> = {}): readonly string[] {
  return scanModel(readOnnxModel(file), { ...request, ...given }).findings;
}

function withNodes(...nodes: Node[]): Uint8Array {
  return model({ nodes, inputs: [x], outputs: [y] });
}

describe('scanModel()', () => {
  test('finds nothing in a plain model', () => {
    expect(scanModel(readOnnxModel(RELU), request)).toEqual({ findings: [], isUnbounded: false, unboundedOperators: [] });
  });

  test('refuses an operator of a domain that is not allowed, and takes it where it is', () => {
    const file = withNodes({ op: 'FusedMatMul', inputs: ['x', 'x'], outputs: ['y'], domain: 'com.microsoft' });
    expect(findings(file)).toEqual([
      'operator com.microsoft:FusedMatMul (1 times) is of a domain that is not allowed; ai.onnx, ai.onnx.ml are allowed',
    ]);
    expect(findings(file, { domains: ['com.microsoft'] })).toEqual([]);
  });

  test('finds a foreign operator inside a subgraph', () => {
    const inner = graph({ nodes: [{ op: 'Bad', inputs: [], outputs: ['y'], domain: 'evil' }], outputs: [y] });
    const file = withNodes({ op: 'If', inputs: ['x'], outputs: ['y'], attributes: [graphAttribute('then_branch', inner)] });
    expect(findings(file)[0]).toContain('evil:Bad');
  });

  test('takes calls of model-local functions, but not a few that unfold to millions of nodes or to themselves', () => {
    const local = (name: string, ...calls: string[]): number[] =>
      bytes(25, [
        ...bytes(1, name),
        ...calls.flatMap((op) => bytes(7, node({ op, inputs: ['x'], outputs: ['y'], domain: 'mine' }))),
        ...bytes(10, 'mine'),
      ]);
    const call = { nodes: [{ op: 'f0', inputs: ['x'], outputs: ['y'], domain: 'mine' }], inputs: [x], outputs: [y] };
    expect(findings(model(call, 17, local('f0')))).toEqual([]);
    const doubling = Array.from({ length: 30 }, (_, level) =>
      local(`f${level}`, ...(level === 29 ? [] : [`f${level + 1}`, `f${level + 1}`])),
    );
    expect(findings(model(call, 17, doubling.flat()))[0]).toMatch(/nodes, 20000 are allowed/);
    expect(findings(model(call, 17, local('f0', 'f0')))[0]).toContain('endless nodes');
  });

  test('draws the line at the newest opsets that the engine loads', () => {
    const at = (opset: number): Uint8Array =>
      model({ nodes: [{ op: 'Relu', inputs: ['x'], outputs: ['y'] }], inputs: [x], outputs: [y] }, opset);
    expect(findings(at(26))).toEqual([]);
    expect(() => openSession(at(26)).release()).not.toThrow();
    expect(findings(at(27))).toEqual(['the model asks for opset 27 of ai.onnx, 26 is the newest supported']);
    expect(() => openSession(at(27))).toThrow('till opset 26');
  });

  test('refuses too many nodes, too deep subgraphs and too many bytes', () => {
    const relu = { op: 'Relu', inputs: ['x'], outputs: ['y'] };
    expect(findings(withNodes(...Array.from({ length: SCAN_LIMITS.maxNodes }, () => relu)))).toEqual([]);
    expect(findings(withNodes(...Array.from({ length: SCAN_LIMITS.maxNodes + 1 }, () => relu)))).toEqual([
      'the model has 20001 nodes, 20000 are allowed',
    ]);
    let inner = graph({ nodes: [relu] });
    for (let depth = 0; depth < 8; depth += 1)
      inner = graph({ nodes: [{ op: 'If', inputs: [], outputs: [], attributes: [graphAttribute('then_branch', inner)] }] });
    expect(findings(withNodes({ op: 'If', inputs: [], outputs: ['y'], attributes: [graphAttribute('then_branch', inner)] }))).toEqual([
      'subgraphs are nested 9 deep, 8 are allowed',
    ]);
    expect(findings(RELU, { modelBytes: SCAN_LIMITS.maxModelBytes + 1 })[0]).toContain('bytes');
  });

  test('refuses inputs that no door carries, and more than 64 of them', () => {
    const bfloat16 = model({ nodes: [], inputs: [value(11, 'x', 16, [1])], outputs: [y] });
    expect(findings(bfloat16)).toEqual(['input "x" has element type bfloat16, which no door carries']);
    const many = model({ nodes: [], inputs: Array.from({ length: 65 }, (_, index) => value(11, `x${index}`, FLOAT, [1])), outputs: [y] });
    expect(findings(many)).toEqual(['the model has 65 inputs, 1 to 64 are allowed']);
    expect(findings(model({ nodes: [], inputs: [x, x], outputs: [y] }))).toEqual(['input "x" is declared twice']);
  });

  test.skipIf(!hasShared)('refuses sequences and external data that is not listed', () => {
    const file = (...parts: string[]): Uint8Array => readFileSync(sharedPath('onnx-cases', ...parts, 'model.onnx'));
    expect(findings(file('onnx-backend', 'test_identity_sequence'))[0]).toBe('input "x" is a sequence, only tensors are allowed');
    expect(findings(file('negative', 'external_data_traversal'))[0]).toContain('"../../../../etc/hostname"; no external file is listed');
    expect(findings(file('vm', 'phm16_mlp_external_data'))[0]).toContain('"model.weights.bin"');
    expect(findings(file('vm', 'phm16_mlp_external_data'), { externalData: ['model.weights.bin'] as never })).toEqual([]);
  });
});
