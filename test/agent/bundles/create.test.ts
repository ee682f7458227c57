import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { createBundle, type CreateRequest, type CreateResult } from '../../../agent/bundles/create.ts';
import { parseGolden } from '../../../agent/bundles/golden.ts';
import { encodeNumbers, generateRows, parseRows, type RowInput } from '../../../agent/bundles/rows.ts';
import { vetBundle } from '../../../agent/bundles/vet.ts';
import { hasShared, sharedJson, sharedPath } from '../../support/shared.ts';
import { FLOAT, model, RELU, value } from './tiny-onnx.ts';

function scratch(): string {
  return mkdtempSync(join(tmpdir(), 'setpoint-test-'));
}

async function create(given: Partial<CreateRequest> & { modelBytes?: Uint8Array; specText?: string }): Promise<CreateResult> {
  const folder = scratch();
  const request = {
    model: join(folder, 'm.onnx'),
    spec: join(folder, 's.yaml'),
    output: join(folder, 'out'),
    golden: null,
    rows: null,
    external: [],
    file: null,
  };
  writeFileSync(request.model, given.modelBytes ?? RELU);
  writeFileSync(request.spec, given.specText ?? "name: tiny\nversion: '1'\nkind: tensors\n");
  const { modelBytes: _bytes, specText: _text, ...rest } = given;
  return await createBundle({ ...request, ...rest });
}

const ROWS_OF_2 = model({
  nodes: [
    { op: 'Neg', inputs: ['x'], outputs: ['y'] },
    { op: 'ReduceSum', inputs: ['y'], outputs: ['sum'] },
  ],
  inputs: [value(11, 'x', FLOAT, ['N', 2])],
  outputs: [value(12, 'y', FLOAT, ['N', 2]), value(12, 'sum', FLOAT, [1, 1])],
});
const PREDICTION = `
name: tiny
version: '1'
kind: prediction
features: [{ name: a, min: 10, max: 20 }, { name: b }]
roles: { prediction: { output: sum } }
fallback: { estimator: none, baselineValue: 0 }
`;

describe('createBundle()', () => {
  test('fills in what the model says, makes up rows inside the valid ranges, and computes their outputs', async () => {
    const { bundle, goldenCases, goldenSource } = await create({ modelBytes: ROWS_OF_2, specText: PREDICTION });
    expect(bundle.manifest.inputs).toEqual([{ name: 'x', datatype: 'FP32', shape: [-1, 2] }]);
    expect([goldenCases, goldenSource]).toEqual([4, 'made-up rows']);
    const cases = parseGolden(bundle.read('golden.json'), 'golden.json');
    for (const { inputs, outputs } of cases) {
      const [a = 0, b = 0] = new Float32Array(inputs[0]!.bytes.slice().buffer);
      expect([a >= 10 && a <= 20, b >= 0 && b <= 1]).toEqual([true, true]);
      expect([...new Float32Array(outputs[0]!.bytes.slice().buffer)]).toEqual([-a, -b]);
    }
  });

  test('gives the same bundle again, and does nothing when it is there', async () => {
    const output = join(scratch(), 'out');
    const first = await create({ output });
    const second = await create({ output });
    expect([first.wasWritten, second.wasWritten]).toEqual([true, false]);
    expect(second.bundle.bundleId).toBe(first.bundle.bundleId);
    await expect(create({ output, specText: "name: tiny\nversion: '2'\nkind: tensors\n" })).rejects.toThrow(
      'something else is already there',
    );
  });

  test('refuses roles and features that do not fit the model, and names what does', async () => {
    const wrong = PREDICTION.replace('output: sum', 'output: z');
    await expect(create({ modelBytes: ROWS_OF_2, specText: wrong })).rejects.toThrow(
      "roles.prediction.output: 'z' is no output of the model; y, sum are",
    );
    const wide = PREDICTION.replace('output: sum', 'output: y');
    await expect(create({ modelBytes: ROWS_OF_2, specText: wide })).rejects.toThrow(
      "roles.prediction.output: must be FP32 or FP64 with one element a row: 'y' is FP32 [-1, 2]",
    );
    const outside = PREDICTION.replace('fallback:', 'guard: { predictionRange: [5, 6] }\nfallback:');
    await expect(create({ modelBytes: ROWS_OF_2, specText: outside })).rejects.toThrow('fallback.baselineValue');
    const short = PREDICTION.replace(', { name: b }', '');
    await expect(create({ modelBytes: ROWS_OF_2, specText: short })).rejects.toThrow("features: 1 are given, input 'x' [-1, 2] takes 2");
    const twice = PREDICTION.replace('{ name: b }', '{ name: a }');
    await expect(create({ modelBytes: ROWS_OF_2, specText: twice })).rejects.toThrow("features: 'a' is given twice");
  });

  test('refuses a spec that is not YAML, or has unknown keys', async () => {
    await expect(create({ specText: 'name: [' })).rejects.toThrow('Cannot read spec');
    await expect(create({ specText: "name: a\nversion: '1'\nkind: tensors\nmodell: x\n" })).rejects.toThrow('modell');
    await expect(create({ spec: '/nowhere.yaml' })).rejects.toThrow('Cannot read /nowhere.yaml: there is no such file');
  });

  test('takes rows of a CSV file by column name', async () => {
    const rows = join(scratch(), 'rows.csv');
    writeFileSync(rows, 'wafer,b,a\nW1,2,11\nW2,3.5,12\n');
    const { bundle } = await create({ modelBytes: ROWS_OF_2, specText: PREDICTION, rows });
    const cases = parseGolden(bundle.read('golden.json'), 'golden.json');
    expect(cases.map(({ inputs }) => [...new Float32Array(inputs[0]!.bytes.slice().buffer)])).toEqual([
      [11, 2],
      [12, 3.5],
    ]);
  });

  test('leaves nothing behind when the model does not run', async () => {
    const reshape = model({
      nodes: [{ op: 'MatMul', inputs: ['x', 'z'], outputs: ['y'] }],
      inputs: [value(11, 'x', FLOAT, ['N', 'K']), value(11, 'z', FLOAT, [7, 2])],
      outputs: [value(12, 'y', FLOAT, ['N', 2])],
    });
    const folder = scratch();
    await expect(create({ modelBytes: reshape, output: join(folder, 'out') })).rejects.toThrow('golden case 0 does not run: ');
    expect(readdirSync(folder)).toEqual([]);
  });

  test.skipIf(!hasShared)('takes external data from beside the model, or from where it is told', async () => {
    const source = sharedPath('onnx-cases/vm/phm16_mlp_external_data');
    const golden = join(source, 'test_data_set_0');
    const specText = "name: mlp\nversion: '1'\nkind: tensors\ntolerance: { rtol: 0.0001, atol: 0.001 }\n";
    const beside = await create({ model: join(source, 'model.onnx'), specText, golden });
    expect(beside.bundle.manifest.model.externalData).toEqual(['model.weights.bin']);
    const modelBytes = readFileSync(join(source, 'model.onnx'));
    const told = await create({ modelBytes, specText, golden, external: [join(source, 'model.weights.bin')] });
    expect(told.bundle.bundleId).toBe(beside.bundle.bundleId);
    expect((await vetBundle(told.bundle)).isBatchable).toBe(true);
    await expect(create({ modelBytes, specText })).rejects.toThrow('model.weights.bin: there is no such file');
    const escaping = sharedPath('onnx-cases/negative/external_data_traversal/model.onnx');
    await expect(create({ model: escaping })).rejects.toThrow('which is not a plain path inside the bundle');
  });

  test.skipIf(!hasShared)('makes bundles of real cases from their test data, and they vet', async () => {
    for (const path of [
      'vm/phm16_avm_multi_output',
      'vm/phm16_mixed_float_string_int64',
      'onnx-backend/test_loop11',
      'onnx-backend/test_cast_FLOAT_to_FLOAT16',
    ]) {
      const { rtol, atol } = sharedJson('onnx-cases', path, 'case.json') as { rtol: number; atol: number };
      const specText = `name: case\nversion: '1'\nkind: tensors\ntolerance: { rtol: ${rtol}, atol: ${atol} }\n`;
      const { bundle } = await create({
        model: sharedPath('onnx-cases', path, 'model.onnx'),
        golden: sharedPath('onnx-cases', path, 'test_data_set_0'),
        specText,
      });
      const report = await vetBundle(bundle);
      expect([report.isUnbounded, report.isBatchable], path).toEqual([path.includes('loop'), path.startsWith('vm')]);
    }
  });

  test.skipIf(!hasShared)('refuses test data that are not what the model computes', async () => {
    const ridge = sharedPath('onnx-cases/vm/phm16_ridge_f32/model.onnx');
    const golden = sharedPath('onnx-cases/vm/phm16_mlp_f32/test_data_set_0');
    await expect(create({ model: ridge, golden })).rejects.toThrow(
      /Cannot accept the golden vectors: output 'removal_rate' is .* is expected/,
    );
  });
});

describe('rows', () => {
  const inputs: RowInput[] = [
    { name: 'x', datatype: 'FP32', shape: [-1, 2] },
    { name: 'tool', datatype: 'BYTES', shape: [-1, 1] },
    { name: 'n', datatype: 'INT64', shape: [2] },
  ];

  test('made up are the same every time, and no two alike', () => {
    const rows = generateRows(inputs, [], 4);
    expect(rows).toEqual(generateRows(inputs, [], 4));
    expect(new Set(rows.map(([x]) => Buffer.from(x!.bytes).toString('hex'))).size).toBe(4);
    expect(rows[0]!.map(({ shape }) => shape)).toEqual([[1, 2], [1, 1], [2]]);
  });

  test('of a CSV file may hold quoted texts', () => {
    const text = 'x[0],x[1],tool,n[0],n[1]\r\n1,2,"a,""b""",3,-4\r\n';
    const [row] = parseRows(text, inputs, [], 'f.csv');
    expect(new TextDecoder().decode(row![1]!.bytes.subarray(4))).toBe('a,"b"');
    expect(row![2]!.bytes).toEqual(encodeNumbers('INT64', [3, -4]));
  });

  test('of a CSV file are refused with line and column', () => {
    const header = 'x[0],x[1],tool,n[0],n[1]\n';
    expect(() => parseRows(`${header}1,two,a,3,4`, inputs, [], 'f.csv')).toThrow(
      'line 2, column x[1]: "two" is not a number that FP32 holds',
    );
    expect(() => parseRows(`${header}1,2,a,3.5,4`, inputs, [], 'f.csv')).toThrow('column n[0]: "3.5" is not a number that INT64 holds');
    expect(() => parseRows(`${header}1,2,a,3`, inputs, [], 'f.csv')).toThrow('line 2, column n[1]: it is missing');
    expect(() => parseRows('x[0]\n1', inputs, [], 'f.csv')).toThrow("it has no column 'x[1]'");
    expect(() => parseRows(header, inputs, [], 'f.csv')).toThrow('it has 0 rows');
  });
});
