import { compilePolicy, type GuardPolicy } from '../../../agent/guard/policy.ts';
import { bundleSpecSchema, findContradiction, MANIFEST_FORMAT, manifestSchema, type Manifest } from '../../../protocol/manifest.ts';

/** A whole manifest around what a guard test is about; it passes the same checks as one from disk. */
export function guardedManifest(spec: Readonly<Record<string, unknown>>, inputs?: unknown): Manifest {
  const sha256 = '0'.repeat(64);
  const manifest = manifestSchema.parse({
    name: 'etch-depth',
    version: '1',
    format: MANIFEST_FORMAT,
    model: { path: 'model.onnx', externalData: [] },
    golden: 'golden.json',
    inputs: inputs ?? [{ name: 'features', datatype: 'FP32', shape: [-1, 3] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 1] }],
    files: [
      { path: 'model.onnx', size: 1, sha256 },
      { path: 'golden.json', size: 1, sha256 },
    ],
    ...spec,
  });
  const defect = findContradiction(bundleSpecSchema.strip().parse(manifest));
  if (defect !== null) throw new Error(`${defect.path} ${defect.message}`);
  return manifest;
}

/** A slot that predicts and corrects with every limit there is. */
export const FULL_SPEC = {
  kind: 'prediction+correction',
  features: [{ name: 'pressure', min: 0, max: 10 }, { name: 'flow' }, { name: 'power', max: 0.1 }],
  roles: {
    prediction: { output: 'y' },
    correction: { output: 'u', form: 'setting' },
    reference: { output: 'r' },
    gsi: { output: 'g' },
  },
  guard: {
    predictionRange: [50, 100],
    reliance: { trainingMean: 73.1, trainingStandardDeviation: 6.65, maximalErrorFraction: 0.1 },
    gsiThreshold: 9,
    correction: { baseline: 5, window: [0, 10], step: 2, totalOffset: 4 },
  },
  fallback: {
    estimator: 'ewma',
    lambda: 0.3,
    processGain: 2,
    target: 75,
    baselineValue: 74,
    staleAfterRuns: 50,
    staleAfterSeconds: 3600,
    outlierDistance: 10,
  },
} as const;

export const PREDICTION_SPEC = {
  kind: 'prediction',
  roles: { prediction: { output: 'y' } },
  fallback: { estimator: 'none', baselineValue: 74 },
} as const;

export const CORRECTION_SPEC = {
  kind: 'correction',
  roles: { correction: { output: 'u', form: 'offset' } },
  guard: { correction: { baseline: 5, window: [0, 10] } },
  fallback: { estimator: 'none' },
} as const;

export function policyOf(spec: Readonly<Record<string, unknown>>, inputs?: unknown): GuardPolicy {
  return compilePolicy(guardedManifest(spec, inputs));
}
