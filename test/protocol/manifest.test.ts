import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { SetpointError } from '../../protocol/errors.ts';
import { BUNDLE_LIMITS, MANIFEST_FORMAT, parseBundleSpec, parseManifest } from '../../protocol/manifest.ts';

type Fields = Readonly<Record<string, unknown>>;

const SHA = '0'.repeat(64);
const FILES = [
  { path: 'model.onnx', size: 10, sha256: SHA },
  { path: 'golden.json', size: 10, sha256: SHA },
];
const OUTPUTS = ['y', 'u', 'r', 'g'].map((name) => ({ name, datatype: 'FP32', shape: [-1, 1] }));

/** A manifest of kind 'tensors', the least there is. */
const LEAST: Fields = {
  format: MANIFEST_FORMAT,
  name: 'tiny',
  version: '1',
  kind: 'tensors',
  model: { path: 'model.onnx', externalData: [] },
  golden: 'golden.json',
  inputs: [{ name: 'x', datatype: 'FP32', shape: [-1, 3] }],
  outputs: OUTPUTS,
  files: FILES,
};

/** A manifest with every role and limit there is. */
const FULL: Fields = {
  ...LEAST,
  kind: 'prediction+correction',
  features: [{ name: 'a', unit: 'nm', min: 0, max: 1 }, { name: 'b' }, { name: 'c' }],
  roles: {
    prediction: { output: 'y', unit: 'nm' },
    correction: { output: 'u', unit: 'mJ/cm2', form: 'offset' },
    reference: { output: 'r' },
    gsi: { output: 'g' },
  },
  guard: {
    predictionRange: [0, 100],
    reliance: { trainingMean: 45, trainingStandardDeviation: 1, maximalErrorFraction: 0.03 },
    gsiThreshold: 9,
    correction: { baseline: 5, window: [0, 10], step: 1, totalOffset: 4 },
  },
  fallback: { estimator: 'double-ewma', lambda: 0.3, driftLambda: 0.1, processGain: -0.9, target: 45, baselineValue: 45 },
  lineage: { trainedFrom: '2026-01-01', metrics: { rmse: 0.1 }, parameters: { trees: 10, method: 'x', isPruned: true } },
};

function bytesOf(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

function parse(fields: Fields): ReturnType<typeof parseManifest> {
  return parseManifest(bytesOf(fields));
}

function errorOf(run: () => unknown): SetpointError {
  try {
    run();
  } catch (error) {
    if (error instanceof SetpointError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** FULL with the value at a dotted path replaced; undefined removes it. */
function changed(path: string, value: unknown, base: Fields = FULL): Fields {
  const copy = structuredClone(base) as Record<string, unknown>;
  const keys = path.split('.');
  const last = keys.pop()!;
  const parent = keys.reduce((inner, key) => inner[key] as Record<string, unknown>, copy);
  if (value === undefined) delete parent[last];
  else parent[last] = value;
  return copy;
}

describe('parseManifest()', () => {
  test('takes the least manifest, with its defaults', () => {
    expect(parse(LEAST)).toEqual({
      ...LEAST,
      roles: {},
      guard: {},
      lineage: {},
      tolerance: { rtol: 1e-4, atol: 1e-5 },
      domains: ['ai.onnx.ml'],
    });
  });

  test('takes the fullest manifest as it is', () => {
    expect(parse(FULL)).toMatchObject(FULL);
  });

  test('takes every bundle that ships', () => {
    const folder = resolve(import.meta.dirname, '../../bench/bundles');
    const names = readdirSync(folder);
    expect(names.length).toBeGreaterThanOrEqual(4);
    for (const name of names) expect(parseManifest(readFileSync(join(folder, name, 'manifest.json'))).format).toBe(MANIFEST_FORMAT);
  });

  test.each([
    ['text that is not JSON', new TextEncoder().encode('{'), 'it is not UTF-8 JSON'],
    ['nothing', new Uint8Array(0), 'it is not UTF-8 JSON'],
    ['JSON that is not UTF-8', Uint8Array.of(0x22, 0xff, 0x22), 'it is not UTF-8 JSON'],
    [
      'too many bytes',
      new Uint8Array(BUNDLE_LIMITS.manifestBytes + 1),
      `it has ${BUNDLE_LIMITS.manifestBytes + 1} bytes, ${BUNDLE_LIMITS.manifestBytes} are allowed`,
    ],
  ])('refuses %s', (_name, bytes, why) => {
    expect(errorOf(() => parseManifest(bytes))).toMatchObject({
      code: 'invalid_bundle',
      field: 'manifest.json',
      message: `Cannot read manifest.json: ${why}`,
    });
  });

  test.each<[string, unknown, string]>([
    ['format', 'setpoint.bundle.v2', 'format'],
    ['unknown', 1, '(top level)'],
    ['name', '', 'name'],
    ['version', '1 2', 'version'],
    ['version', '-1', 'version'],
    ['kind', 'guess', 'kind'],
    ['inputs', [], 'inputs'],
    ['inputs', [{ name: 'x', datatype: 'FP8', shape: [] }], 'inputs.0.datatype'],
    ['inputs', [{ name: 'x', datatype: 'FP32', shape: [-2] }], 'inputs.0.shape.0'],
    ['inputs', [{ name: 'x', datatype: 'FP32', shape: [1.5] }], 'inputs.0.shape.0'],
    ['inputs', [{ name: 'x', datatype: 'FP32', shape: Array(9).fill(1) }], 'inputs.0.shape'],
    ['outputs', [], 'outputs'],
    ['files', FILES.slice(1), 'files'],
    ['model', { path: '../model.onnx', externalData: [] }, 'model.path'],
    ['model', { path: 'model.onnx', externalData: ['/etc/passwd'] }, 'model.externalData.0'],
    ['golden', '.hidden', 'golden'],
    ['golden', 'a//b', 'golden'],
    ['golden', String.raw`a\b`, 'golden'],
    ['files', [...FILES, { path: 'c', size: -1, sha256: SHA }], 'files.2.size'],
    ['files', [...FILES, { path: 'c', size: 1, sha256: 'A'.repeat(64) }], 'files.2.sha256'],
    ['features', [{ name: 'a', min: Number.NaN }], 'features.0.min'],
    ['guard.predictionRange', [5, 5], 'guard.predictionRange'],
    ['guard.reliance.threshold', 0.5, 'guard.reliance'],
    ['guard.reliance.maximalErrorFraction', undefined, 'guard.reliance'],
    ['guard.reliance.trainingStandardDeviation', 0, 'guard.reliance.trainingStandardDeviation'],
    ['guard.gsiThreshold', 0, 'guard.gsiThreshold'],
    ['guard.correction.step', 0, 'guard.correction.step'],
    ['fallback.lambda', 1.01, 'fallback.lambda'],
    ['fallback.lambda', 0, 'fallback.lambda'],
    ['fallback.threadBy', ['wafer'], 'fallback.threadBy.0'],
    ['tolerance', { rtol: -1, atol: 0 }, 'tolerance.rtol'],
    ['domains', ['evil.domain'], 'domains.0'],
    ['roles.correction.form', undefined, 'roles.correction.form'],
  ])('refuses %s = %j, naming %s', (path, value, field) => {
    const error = errorOf(() => parse(changed(path, value)));
    expect([error.code, error.field]).toEqual(['invalid_bundle', field]);
    expect(error.message.startsWith(`Cannot accept manifest.json: ${field}`)).toBe(true);
  });

  test.each<[string, Fields, string]>([
    [
      'a prediction without its role',
      changed('roles.prediction', undefined),
      "roles.prediction is required for kind 'prediction+correction'",
    ],
    [
      'a correction without its role',
      changed('roles.correction', undefined),
      "roles.correction is required for kind 'prediction+correction'",
    ],
    [
      'a correction without limits',
      changed('guard.correction', undefined),
      "guard.correction is required for kind 'prediction+correction'",
    ],
    ['a role that the kind has not', changed('kind', 'prediction'), "roles.correction is not allowed for kind 'prediction'"],
    ['no fallback', changed('fallback', undefined), "fallback is required for kind 'prediction+correction'"],
    ['tensors with a fallback', { ...LEAST, fallback: { estimator: 'none' } }, "fallback is not allowed for kind 'tensors'"],
    ['tensors with a role', { ...LEAST, roles: { gsi: { output: 'g' } } }, "roles are not allowed for kind 'tensors'"],
    [
      'a prediction without a baseline',
      changed('fallback.baselineValue', undefined),
      'fallback.baselineValue is required where the slot predicts',
    ],
    ['a reliance without a reference', changed('roles.reference', undefined), 'guard.reliance needs roles.prediction and roles.reference'],
    ['a GSI threshold without a GSI', changed('roles.gsi', undefined), 'guard.gsiThreshold needs roles.gsi'],
    ['an EWMA without a weight', changed('fallback.lambda', undefined), 'fallback.lambda is required for an EWMA estimator'],
    [
      'a double EWMA without its second weight',
      changed('fallback.driftLambda', undefined),
      'fallback.driftLambda is required for the double EWMA',
    ],
    [
      'a correction by a gain of 0',
      changed('fallback.processGain', 0),
      'fallback.processGain must be given and not 0 where the slot corrects',
    ],
    ['a correction without a target', changed('fallback.target', undefined), 'fallback.target is required where the slot corrects'],
    [
      'a role of an output that is not there',
      changed('roles.gsi.output', 'z'),
      "roles.gsi.output 'z' is no output of the model; y, u, r, g are",
    ],
    [
      'a role of an output of halves',
      changed('outputs', [{ name: 'y', datatype: 'FP16', shape: [-1, 1] }, ...OUTPUTS.slice(1)]),
      "roles.prediction.output must be FP32 or FP64 with one element a row: 'y' is FP16 [-1, 1]",
    ],
    [
      'a role of an output of two numbers a row',
      changed('outputs', [...OUTPUTS.slice(0, 3), { name: 'g', datatype: 'FP64', shape: [-1, 2] }]),
      "roles.gsi.output must be FP32 or FP64 with one element a row: 'g' is FP64 [-1, 2]",
    ],
  ])('refuses %s', (_name, fields, message) => {
    const error = errorOf(() => parse(fields));
    expect([error.code, error.message]).toEqual(['invalid_bundle', `Cannot accept manifest.json: ${message}`]);
    expect(message.startsWith(error.field!)).toBe(true);
  });

  test('takes role outputs of one element, with or without an axis of rows', () => {
    for (const shape of [[-1, 1], [-1], [1], [1, 1], [], [-1, 1, 1]]) {
      const outputs = [{ name: 'y', datatype: 'FP64', shape }, ...OUTPUTS.slice(1)];
      expect(parse(changed('outputs', outputs)).outputs[0]?.shape).toEqual(shape);
    }
  });
});

describe('parseBundleSpec()', () => {
  const spec = { name: 'tiny', version: '1', kind: 'tensors' };

  test('takes what an operator writes, and names its source when it refuses', () => {
    expect(parseBundleSpec(spec, 'spec.json')).toMatchObject({ ...spec, roles: {}, guard: {} });
    expect(errorOf(() => parseBundleSpec({ ...spec, format: MANIFEST_FORMAT }, 'spec.json')).message).toMatch(
      /^Cannot accept spec\.json: /,
    );
    expect(errorOf(() => parseBundleSpec(null, 'spec.json')).field).toBe('(top level)');
  });

  test('follows the same rules as a manifest', () => {
    expect(errorOf(() => parseBundleSpec({ ...spec, kind: 'prediction' }, 'spec.json')).message).toBe(
      "Cannot accept spec.json: roles.prediction is required for kind 'prediction'",
    );
  });
});
