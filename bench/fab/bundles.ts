import { createHash } from 'node:crypto';
import { assert } from '../../protocol/errors.ts';
import { MANIFEST_FILE, MANIFEST_FORMAT, type Manifest, parseManifest } from '../../protocol/manifest.ts';
import { evaluateGraph, type Graph } from './graph.ts';
import { columnMoments } from './linear-algebra.ts';
import { OUTPUTS, type Recipe, type TrainedModel, trainModel } from './models.ts';
import { encodeModel } from './onnx-writer.ts';
import type { ToolSpec } from './tools.ts';
import { accuracy, type Campaign, collectCampaign, moments } from './train.ts';

/** The files of one bundle by their names, and its id: the SHA-256 of the manifest's bytes, in hexadecimal. */
export interface BuiltBundle {
  readonly bundleId: string;
  readonly files: ReadonlyMap<string, Uint8Array>;
}

const VERSION = '1.0.0';
const MODEL_FILE = 'model.onnx';
const GOLDEN_FILE = 'golden.json';

/** 1,200 labelled wafers: the order of the training sets in the field (600 to 2,000), and seconds to train on. */
const TRAINING_ROWS = 1200;
/** Enough for R2 to two digits. */
export const HELD_OUT_ROWS = 600;
/** The held-out campaign is another life of the same tool. */
export const HELD_OUT_SEED = 5000;

const GOLDEN_SINGLES = 8;
const GOLDEN_BATCH = 4;

/** What each slot's bundle answers; README.md says why each is there. */
export const RECIPES: Readonly<Record<string, Recipe>> = {
  'cd/scanner-a/product-x': { prediction: 'mlp', reference: true, similarity: true, correction: null },
  'cd/scanner-b/product-x': { prediction: 'ridge', reference: false, similarity: false, correction: null },
  'thickness/cmp-1/product-x': { prediction: null, reference: false, similarity: false, correction: 'setting' },
  'depth/etch-1/product-y': { prediction: 'mlp', reference: false, similarity: true, correction: 'offset' },
};

/** Trains, encodes and describes the bundle of one tool. The same spec gives the same bytes on every machine. */
export function buildBundle(spec: ToolSpec): BuiltBundle {
  const recipe = RECIPES[spec.slot];
  assert(recipe, `slot ${spec.slot} has a recipe`);
  const campaign = collectCampaign(spec, TRAINING_ROWS, spec.seed);
  const heldOut = collectCampaign(spec, HELD_OUT_ROWS, spec.seed + HELD_OUT_SEED);
  const trained = trainModel(spec, recipe, campaign);
  const model = encodeModel(trained.graph);
  const golden = jsonBytes(goldenVectors(trained.graph, Float32Array.from(heldOut.features.data)), 0);
  const manifest = jsonBytes(describe(spec, recipe, trained, campaign, heldOut, { model, golden }), 2);
  parseManifest(manifest);
  return {
    bundleId: sha256(manifest),
    files: new Map([
      [MANIFEST_FILE, manifest],
      [MODEL_FILE, model],
      [GOLDEN_FILE, golden],
    ]),
  };
}

function describe(
  spec: ToolSpec,
  recipe: Recipe,
  trained: TrainedModel,
  campaign: Campaign,
  heldOut: Campaign,
  files: { readonly model: Uint8Array; readonly golden: Uint8Array },
): Manifest {
  const { graph } = trained;
  const free = (port: { readonly name: string; readonly columns: number }) => ({
    name: port.name,
    datatype: 'FP32' as const,
    shape: [-1, port.columns],
  });
  return {
    format: MANIFEST_FORMAT,
    name: spec.slot,
    version: VERSION,
    description: `${spec.parameter} of ${spec.stepId} on ${spec.equipmentId} for ${spec.product}: a model of the simulated fab in bench/fab`,
    kind: kindOf(recipe),
    features: featureRanges(spec, campaign),
    roles: rolesOf(spec, recipe),
    guard: guardOf(spec, recipe, trained, campaign),
    fallback: fallbackOf(spec, recipe),
    lineage: {
      data: `${TRAINING_ROWS} simulated wafers of a campaign with seed ${spec.seed}, tested on ${HELD_OUT_ROWS} of seed ${spec.seed + HELD_OUT_SEED}`,
      trainer: 'bench/fab/make-bundles.ts',
      metrics: metricsOf(recipe, graph, heldOut),
      parameters: { prediction: recipe.prediction ?? 'none', correction: recipe.correction ?? 'none', seed: spec.seed },
    },
    tolerance: { rtol: 1e-4, atol: 1e-4 },
    domains: [],
    model: { path: MODEL_FILE, externalData: [] },
    golden: GOLDEN_FILE,
    inputs: [free(graph.input)],
    outputs: graph.outputs.map(free),
    files: [
      { path: MODEL_FILE, size: files.model.length, sha256: sha256(files.model) },
      { path: GOLDEN_FILE, size: files.golden.length, sha256: sha256(files.golden) },
    ],
  };
}

function kindOf(recipe: Recipe): Manifest['kind'] {
  if (recipe.prediction === null) return 'correction';
  return recipe.correction === null ? 'prediction' : 'prediction+correction';
}

/** A feature further from its training mean than this many deviations is a broken sensor, not an unusual wafer. */
const RANGE_DEVIATIONS = 15;

function featureRanges(spec: ToolSpec, campaign: Campaign): Manifest['features'] {
  const { means, deviations } = columnMoments(campaign.features);
  return spec.sensors.map((sensor, index) => {
    const mean = means[index] ?? 0;
    const reach = RANGE_DEVIATIONS * (deviations[index] ?? 1);
    return { name: sensor.name, unit: sensor.unit, min: rounded(mean - reach), max: rounded(mean + reach) };
  });
}

function rolesOf(spec: ToolSpec, recipe: Recipe): Manifest['roles'] {
  return {
    ...(recipe.prediction === null ? {} : { prediction: { output: OUTPUTS.prediction, unit: spec.valueUnit } }),
    ...(recipe.reference ? { reference: { output: OUTPUTS.reference } } : {}),
    ...(recipe.similarity ? { gsi: { output: OUTPUTS.gsi } } : {}),
    ...(recipe.correction === null ? {} : { correction: { output: OUTPUTS.correction, unit: spec.settingUnit, form: recipe.correction } }),
  };
}

/** E_L: 3 % of the mean, the example of the AVM patent. */
const MAXIMAL_ERROR_FRACTION = 0.03;
/** A prediction further from the campaign's mean than this many deviations is not believed. */
const PREDICTION_DEVIATIONS = 8;

function guardOf(spec: ToolSpec, recipe: Recipe, trained: TrainedModel, campaign: Campaign): Manifest['guard'] {
  const { mean, deviation } = moments(campaign.values);
  const reach = PREDICTION_DEVIATIONS * deviation;
  return {
    ...(recipe.prediction === null ? {} : { predictionRange: [rounded(mean - reach), rounded(mean + reach)] as [number, number] }),
    ...(recipe.reference
      ? {
          reliance: {
            trainingMean: rounded(mean),
            trainingStandardDeviation: rounded(deviation),
            maximalErrorFraction: MAXIMAL_ERROR_FRACTION,
          },
        }
      : {}),
    ...(trained.gsiThreshold === null ? {} : { gsiThreshold: rounded(trained.gsiThreshold) }),
    ...(recipe.correction === null
      ? {}
      : {
          correction: {
            baseline: spec.baseline,
            window: [spec.window[0], spec.window[1]] as [number, number],
            step: spec.step,
            totalOffset: spec.totalOffset,
          },
        }),
  };
}

/** The weight that production CMP and lithography controllers use: 0.3 (Wan and McLoone 2018; Yi, Sang and Zhao 2005). */
const LAMBDA = 0.3;
/** Estimates older than 200 runs have missed about 40 measurements: metrology has stopped. */
const STALE_AFTER_RUNS = 200;

function fallbackOf(spec: ToolSpec, recipe: Recipe): NonNullable<Manifest['fallback']> {
  return {
    estimator: 'ewma',
    lambda: LAMBDA,
    processGain: spec.nominalGain,
    target: spec.target,
    ...(recipe.prediction === null ? {} : { baselineValue: spec.target }),
    staleAfterRuns: STALE_AFTER_RUNS,
    threadBy: ['equipmentId', 'moduleId', 'product', 'recipeId'],
  };
}

function metricsOf(recipe: Recipe, graph: Graph, heldOut: Campaign): Record<string, number> {
  if (recipe.prediction === null) return {};
  const outputs = evaluateGraph(graph, Float32Array.from(heldOut.features.data));
  const { r2, rmse } = accuracy(outputs.get(OUTPUTS.prediction) ?? new Float64Array(0), heldOut.values);
  return { r2: rounded(r2), rmse: rounded(rmse) };
}

interface GoldenTensor {
  readonly name: string;
  readonly datatype: 'FP32';
  readonly shape: readonly number[];
  readonly data: string;
}

interface GoldenVectors {
  readonly format: 'setpoint.golden.v1';
  readonly cases: readonly { readonly inputs: readonly GoldenTensor[]; readonly outputs: readonly GoldenTensor[] }[];
}

/** Eight cases of one row and one of four, on wafers that training never saw, answered by the reference evaluation. */
function goldenVectors(graph: Graph, rows: Float32Array): GoldenVectors {
  const { columns } = graph.input;
  const sizes = [...Array.from({ length: GOLDEN_SINGLES }, () => 1), GOLDEN_BATCH];
  let offset = 0;
  const cases = sizes.map((size) => {
    const input = rows.subarray(offset * columns, (offset + size) * columns);
    offset += size;
    const answers = evaluateGraph(graph, input);
    return {
      inputs: [goldenTensor(graph.input, input)],
      outputs: graph.outputs.map((port) => goldenTensor(port, Float32Array.from(answers.get(port.name) ?? []))),
    };
  });
  return { format: 'setpoint.golden.v1', cases };
}

function goldenTensor(port: { readonly name: string; readonly columns: number }, values: Float32Array): GoldenTensor {
  const raw = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) raw.writeFloatLE(value, index * 4);
  return { name: port.name, datatype: 'FP32', shape: [values.length / port.columns, port.columns], data: raw.toString('base64') };
}

/** Six digits: what a person reads and every machine agrees on. */
function rounded(value: number): number {
  return Number(value.toPrecision(6));
}

function jsonBytes(value: unknown, indent: number): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value, null, indent)}\n`);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
