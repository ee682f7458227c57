import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MANIFEST_FILE, MANIFEST_FORMAT, type Manifest, parseManifest } from '../protocol/manifest.ts';
import { evaluateGraph, type Graph, GraphBuilder, type Port } from './fab/graph.ts';
import { encodeModel } from './fab/onnx-writer.ts';
import { Random } from './fab/random.ts';

/**
 * The model of the benches: scaler, clip and a perceptron 86-64-32-1 with random weights, the size of a published virtual
 * metrology model. Random weights cost what trained ones do, and are the same on every machine.
 */
export const FEATURE_COUNT = 86;
const HIDDEN = [64, 32] as const;

/** The MLP alone, or with the reference model and the similarity index of automatic virtual metrology in one graph. */
export const VARIANTS = ['mlp', 'avm'] as const;
export type Variant = (typeof VARIANTS)[number];

const INPUT: Port = { name: 'features', columns: FEATURE_COUNT };
const MODEL_FILE = 'model.onnx';
const GOLDEN_FILE = 'golden.json';
const CLIP_DEVIATIONS = 8;
const SEEDS = { scale: 1, weights: 2, requests: 3, golden: 4 } as const;

/** Requests stay within this many deviations, and the valid ranges are twice as wide: no request meets the fallback. */
const REQUEST_DEVIATIONS = 3;
const RANGE_DEVIATIONS = 6;

interface Scale {
  readonly means: Float32Array;
  readonly deviations: Float32Array;
}

function scale(): Scale {
  const random = new Random(SEEDS.scale);
  return {
    means: Float32Array.from({ length: FEATURE_COUNT }, () => random.between(-100, 100)),
    deviations: Float32Array.from({ length: FEATURE_COUNT }, () => random.between(0.1, 10)),
  };
}

/** `rows` plausible feature vectors in a row, float32. */
export function featureRows(rows: number, seed: number = SEEDS.requests): Float32Array {
  const random = new Random(seed);
  const { means, deviations } = scale();
  return Float32Array.from({ length: rows * FEATURE_COUNT }, (_, index) => {
    const column = index % FEATURE_COUNT;
    const deviation = Math.min(REQUEST_DEVIATIONS, Math.max(-REQUEST_DEVIATIONS, random.normal()));
    return (means[column] ?? 0) + (deviations[column] ?? 0) * deviation;
  });
}

export function benchGraph(variant: Variant): Graph {
  const random = new Random(SEEDS.weights);
  const builder = new GraphBuilder(INPUT);
  const { means, deviations } = scale();
  const low = builder.constant('low', [], [-CLIP_DEVIATIONS]);
  const high = builder.constant('high', [], [CLIP_DEVIATIONS]);
  builder.node('Sub', [INPUT.name, builder.constant('means', [FEATURE_COUNT], means)], 'centred');
  builder.node('Div', ['centred', builder.constant('deviations', [FEATURE_COUNT], deviations)], 'scaled');
  builder.node('Clip', ['scaled', low, high], 'clipped');
  const dense = (from: string, inputs: number, outputs: number, to: string): string => {
    const weights = Array.from({ length: inputs * outputs }, () => random.normal(0, Math.sqrt(1 / inputs)));
    const weightsName = builder.constant(`${to}_weights`, [inputs, outputs], weights);
    return builder.node('Gemm', [from, weightsName, builder.constant(`${to}_biases`, [outputs], new Float32Array(outputs))], to);
  };
  const first = builder.node('Relu', [dense('clipped', FEATURE_COUNT, HIDDEN[0], 'dense_1')], 'hidden_1');
  const second = builder.node('Relu', [dense(first, HIDDEN[0], HIDDEN[1], 'dense_2')], 'hidden_2');
  dense(second, HIDDEN[1], 1, 'prediction');
  const outputs: Port[] = [{ name: 'prediction', columns: 1 }];
  if (variant === 'avm') {
    dense('clipped', FEATURE_COUNT, 1, 'reference');
    dense('clipped', FEATURE_COUNT, FEATURE_COUNT, 'whitened');
    builder.node('Mul', ['whitened', 'whitened'], 'squared');
    builder.node('ReduceSum', ['squared', builder.axes('columns', [1n])], 'gsi');
    outputs.push({ name: 'reference', columns: 1 }, { name: 'gsi', columns: 1 });
  }
  return builder.build(`bench_${variant}`, outputs);
}

/** Far above what random weights give, so that the guard computes every index and every one passes. */
const GUARDS: Readonly<Record<Variant, Manifest['guard']>> = {
  mlp: { predictionRange: [-1000, 1000] },
  avm: {
    predictionRange: [-1000, 1000],
    reliance: { trainingMean: 0, trainingStandardDeviation: 20, threshold: 0.5 },
    gsiThreshold: 10_000,
  },
};

const VALUE_UNIT = 'nm';

function manifestOf(variant: Variant, graph: Graph, model: Uint8Array, golden: Uint8Array): Manifest {
  const { means, deviations } = scale();
  const free = ({ name, columns }: Port) => ({ name, datatype: 'FP32' as const, shape: [-1, columns] });
  const reach = (index: number): number => RANGE_DEVIATIONS * (deviations[index] ?? 0);
  return {
    format: MANIFEST_FORMAT,
    name: `bench/${variant}`,
    version: '1.0.0',
    description: 'random weights: made by bench/bench-bundle.ts to be timed, predicts nothing',
    kind: 'prediction',
    features: Array.from(means, (mean, index) => ({ name: `f${index}`, min: mean - reach(index), max: mean + reach(index) })),
    roles: {
      prediction: { output: 'prediction', unit: VALUE_UNIT },
      ...(variant === 'avm' ? { reference: { output: 'reference' }, gsi: { output: 'gsi' } } : {}),
    },
    guard: GUARDS[variant],
    fallback: { estimator: 'ewma', lambda: 0.3, baselineValue: 0, staleAfterRuns: 200, threadBy: ['equipmentId', 'product', 'recipeId'] },
    lineage: {},
    tolerance: { rtol: 1e-4, atol: 1e-3 },
    domains: [],
    model: { path: MODEL_FILE, externalData: [] },
    golden: GOLDEN_FILE,
    inputs: [free(graph.input)],
    outputs: graph.outputs.map(free),
    files: [
      { path: MODEL_FILE, size: model.length, sha256: sha256(model) },
      { path: GOLDEN_FILE, size: golden.length, sha256: sha256(golden) },
    ],
  };
}

const GOLDEN_CASES = 4;

function goldenOf(graph: Graph): Uint8Array {
  const rows = featureRows(GOLDEN_CASES, SEEDS.golden);
  const cases = Array.from({ length: GOLDEN_CASES }, (_, index) => {
    const row = rows.slice(index * FEATURE_COUNT, (index + 1) * FEATURE_COUNT);
    const answers = evaluateGraph(graph, row);
    return {
      inputs: [goldenTensor(graph.input, row)],
      outputs: graph.outputs.map((port) => goldenTensor(port, Float32Array.from(answers.get(port.name) ?? []))),
    };
  });
  return jsonBytes({ format: 'setpoint.golden.v1', cases });
}

function goldenTensor({ name, columns }: Port, values: Float32Array) {
  return { name, datatype: 'FP32', shape: [values.length / columns, columns], data: Buffer.from(floatBytes(values)).toString('base64') };
}

/** Little-endian, whatever the machine. */
export function floatBytes(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array(values.length * 4);
  const view = new DataView(bytes.buffer);
  values.forEach((value, index) => view.setFloat32(index * 4, value, true));
  return bytes;
}

/** Writes the bundle's files into `folder` and returns the path of its model. */
export function writeBenchBundle(folder: string, variant: Variant): string {
  const graph = benchGraph(variant);
  const model = encodeModel(graph);
  const golden = goldenOf(graph);
  const manifest = jsonBytes(manifestOf(variant, graph, model, golden));
  parseManifest(manifest);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, MODEL_FILE), model);
  writeFileSync(join(folder, GOLDEN_FILE), golden);
  writeFileSync(join(folder, MANIFEST_FILE), manifest);
  return join(folder, MODEL_FILE);
}

function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}
