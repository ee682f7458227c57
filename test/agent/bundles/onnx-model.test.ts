import { readdirSync, readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { readOnnxModel } from '../../../agent/bundles/onnx-model.ts';
import { openSession } from '../../../agent/infer/session.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { hasShared, sharedPath } from '../../support/shared.ts';
import { bytes, ENDLESS, expanding, FLOAT, graph, graphAttribute, int64s, model, node, number, RELU, value, varint } from './tiny-onnx.ts';

function refusal(input: Uint8Array): string {
  try {
    readOnnxModel(input);
  } catch (thrown) {
    if (thrown instanceof SetpointError && thrown.code === 'invalid_bundle') return thrown.message;
    throw thrown;
  }
  return 'accepted';
}

const x = value(11, 'x', FLOAT, ['N', 3]);
const y = value(12, 'y', FLOAT, ['N', 3]);

describe('readOnnxModel()', () => {
  test('reads names, types, shapes, opsets and operators', () => {
    const read = readOnnxModel(model({ nodes: [{ op: 'Relu', inputs: ['x'], outputs: ['y'] }], inputs: [x], outputs: [y] }, 21));
    expect(read.irVersion).toBe(8);
    expect(read.opsets).toEqual([{ domain: '', version: 21 }]);
    expect(read.inputs).toEqual([{ name: 'x', kind: 'tensor', datatype: 'FP32', elementType: 'FP32', shape: [-1, 3] }]);
    expect(read.outputs.map(({ name }) => name)).toEqual(['y']);
    expect([...read.operators]).toEqual([[':Relu', 1]]);
    expect(read.nodeCount).toBe(1);
    expect(read.hasControlFlow).toBe(false);
  });

  test('leaves out inputs that are initializers, as in models of IR version 3', () => {
    const read = readOnnxModel(
      model({
        nodes: [{ op: 'Reshape', inputs: ['x', 'w'], outputs: ['y'] }],
        initializers: [int64s('w', [2], [-1, 3])],
        inputs: [x, value(11, 'w', 7, [2])],
        outputs: [y],
      }),
    );
    expect(read.inputs.map(({ name }) => name)).toEqual(['x']);
    expect(read.initializerBytes).toBe(16);
  });

  test('collects the locations of external data', () => {
    const weights = [...number(2, 1), ...bytes(8, 'w'), ...bytes(13, [...bytes(1, 'location'), ...bytes(2, '../etc')]), ...number(14, 1)];
    expect(readOnnxModel(model({ nodes: [], initializers: [weights] })).externalData).toEqual(['../etc']);
  });

  test('counts nodes of subgraphs and functions, and how deep they nest', () => {
    const inner = graph({ nodes: [{ op: 'Relu', inputs: [], outputs: [] }] });
    const outer = graph({ nodes: [{ op: 'If', inputs: [], outputs: [], attributes: [graphAttribute('then_branch', inner)] }] });
    const local = bytes(25, [...bytes(1, 'f'), ...bytes(7, node({ op: 'Sin', inputs: [], outputs: [] })), ...bytes(10, 'mine')]);
    const read = readOnnxModel(
      model({ nodes: [{ op: 'If', inputs: [], outputs: [], attributes: [graphAttribute('then_branch', outer)] }] }, 17, local),
    );
    expect(read.nodeCount).toBe(4);
    expect(read.subgraphDepth).toBe(2);
    expect(read.hasControlFlow).toBe(true);
    expect([...read.functions.keys()]).toEqual(['mine:f']);
  });

  test('finds operators whose time or memory the values decide', () => {
    expect(readOnnxModel(ENDLESS).unboundedOperators).toEqual([':Loop']);
    expect(readOnnxModel(expanding(3)).unboundedOperators).toEqual([]);
    const fromInput = model({
      nodes: [{ op: 'Expand', inputs: ['x', 'n'], outputs: ['y'] }],
      inputs: [x, value(11, 'n', 7, [1])],
      outputs: [y],
    });
    expect(readOnnxModel(fromInput).unboundedOperators).toEqual([':Expand']);
  });

  test('takes sizes copied from dimensions as bounded, and sizes computed from values as not', () => {
    const sized = (from: string): Uint8Array =>
      model({
        nodes: [
          { op: 'Shape', inputs: ['x'], outputs: ['dims'] },
          { op: 'Cast', inputs: ['x'], outputs: ['values'] },
          { op: 'Concat', inputs: [from, 'one'], outputs: ['size'] },
          { op: 'ConstantOfShape', inputs: ['size'], outputs: ['y'] },
        ],
        initializers: [int64s('one', [1], [1])],
        inputs: [x],
        outputs: [y],
      });
    expect(readOnnxModel(sized('dims')).unboundedOperators).toEqual([]);
    expect(readOnnxModel(sized('values')).unboundedOperators).toEqual([':ConstantOfShape']);
  });

  test.skipIf(!hasShared)('sees the same inputs and outputs as the engine in every case', () => {
    let compared = 0;
    for (const group of ['vm', 'onnx-backend']) {
      for (const name of readdirSync(sharedPath('onnx-cases', group))) {
        if (name.endsWith('.json') || name === 'test_identity_sequence') continue;
        const file = readFileSync(sharedPath('onnx-cases', group, name, 'model.onnx'));
        const read = readOnnxModel(file);
        const external = read.externalData.map((path) => ({ path, data: readFileSync(sharedPath('onnx-cases', group, name, path)) }));
        const session = openSession(file, external);
        const seen = (values: typeof read.inputs): unknown => values.map(({ name, datatype, shape }) => ({ name, datatype, shape }));
        expect(seen(read.inputs), name).toEqual(session.inputs);
        expect(seen(read.outputs), name).toEqual(session.outputs);
        session.release();
        compared += 1;
      }
    }
    expect(compared).toBeGreaterThan(25);
  });
});

describe('readOnnxModel() on hostile bytes', () => {
  test('refuses an empty file, because it has no graph', () => {
    expect(refusal(new Uint8Array(0))).toContain('it has no graph');
  });

  test('refuses every proper prefix of a model that cuts a field, and names the byte', () => {
    let refused = 0;
    for (let length = 0; length < ENDLESS.byteLength; length += 1) {
      const message = refusal(ENDLESS.subarray(0, length));
      if (message === 'accepted') continue;
      refused += 1;
      expect(message).toMatch(/^Cannot read the ONNX file: model\S* at byte \d+: /);
    }
    // The few that are accepted end between two fields of the model, after its graph.
    expect(refused).toBeGreaterThan(ENDLESS.byteLength - 10);
  });

  test('refuses a number longer than 10 bytes', () => {
    expect(refusal(new Uint8Array([8, ...Array<number>(11).fill(0x80), 1]))).toContain('longer than 10 bytes');
  });

  test('refuses a length that is negative as a 64-bit number', () => {
    expect(refusal(new Uint8Array([58, ...varint(-1n)]))).toContain('longer than 5 bytes');
  });

  test('refuses a length beyond the end', () => {
    expect(refusal(new Uint8Array([58, 100, 1]))).toContain('field 7 has 100 bytes, only 1 are left');
  });

  test('refuses field number 0, groups, and a known field of another wire type', () => {
    expect(refusal(new Uint8Array([2, 0]))).toContain('field number 0');
    expect(refusal(new Uint8Array([0x7b]))).toContain('wire type 3');
    expect(refusal(new Uint8Array(number(7, 1)))).toContain('field 7 has wire type 0, 2 is allowed');
  });

  test('refuses subgraphs nested deeper than 32 without using up the stack', () => {
    let inner = graph({ nodes: [{ op: 'Relu', inputs: [], outputs: [] }] });
    for (let depth = 0; depth < 200; depth += 1) {
      inner = graph({ nodes: [{ op: 'If', inputs: [], outputs: [], attributes: [graphAttribute('then_branch', inner)] }] });
    }
    expect(refusal(new Uint8Array(bytes(7, inner)))).toContain('nested deeper than 32');
  });

  test('refuses a name of more than 4096 bytes and one that is not UTF-8', () => {
    const named = (name: Uint8Array): Uint8Array => new Uint8Array(bytes(7, bytes(1, [...bytes(1, name), ...bytes(4, 'Relu')])));
    expect(refusal(named(new Uint8Array(5000).fill(97)))).toContain('4096 are allowed');
    expect(refusal(named(new Uint8Array([0xff])))).toContain('not UTF-8');
  });

  test('gives a typed error or a model for any change of a real model, and never anything else', () => {
    const change = fc.array(fc.tuple(fc.nat(ENDLESS.byteLength - 1), fc.nat(255)), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(change, fc.constantFrom(ENDLESS, RELU), (changes, original) => {
        const changed = original.slice();
        for (const [at, byte] of changes) changed[at % changed.byteLength] = byte;
        refusal(changed);
      }),
      { numRuns: 3000 },
    );
  });

  test('gives a typed error or a model for random bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (random) => void refusal(random)),
      { numRuns: 3000 },
    );
  });
});
