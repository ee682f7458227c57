import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import type * as OnnxRuntime from 'onnxruntime-node';
import { beforeAll, describe, expect, test } from 'vitest';
import { type BuiltBundle, buildBundle, HELD_OUT_ROWS, HELD_OUT_SEED, RECIPES } from '../../../bench/fab/bundles.ts';
import { FabTool } from '../../../bench/fab/process.ts';
import { bundleFolder, TOOLS, type ToolSpec } from '../../../bench/fab/tools.ts';
import { accuracy, collectCampaign } from '../../../bench/fab/train.ts';
import { type Manifest, parseManifest } from '../../../protocol/manifest.ts';

const { InferenceSession, Tensor } = createRequire(import.meta.url)('onnxruntime-node') as typeof OnnxRuntime;

const shipped = join(import.meta.dirname, '../../../bench/bundles');

function fileOf(spec: ToolSpec, name: string): Buffer {
  return readFileSync(join(shipped, bundleFolder(spec.slot), name));
}

function manifestOf(spec: ToolSpec): Manifest {
  return parseManifest(fileOf(spec, 'manifest.json'));
}

type Run = (rows: Float32Array) => Promise<Record<string, Float32Array>>;

async function loadModel(spec: ToolSpec): Promise<Run> {
  const session = await InferenceSession.create(fileOf(spec, 'model.onnx'));
  return async (rows) => {
    const results = await session.run({ features: new Tensor('float32', rows, [rows.length / 24, 24]) });
    return Object.fromEntries(Object.entries(results).map(([name, value]) => [name, value.data as Float32Array]));
  };
}

interface GoldenTensor {
  readonly name: string;
  readonly datatype: string;
  readonly shape: readonly number[];
  readonly data: string;
}
interface Golden {
  readonly format: string;
  readonly cases: readonly { readonly inputs: readonly GoldenTensor[]; readonly outputs: readonly GoldenTensor[] }[];
}

function floatsOf(tensor: GoldenTensor): Float32Array {
  const raw = Buffer.from(tensor.data, 'base64');
  return Float32Array.from({ length: raw.length / 4 }, (_, index) => raw.readFloatLE(index * 4));
}

describe.each(TOOLS)('the bundle of $slot', (spec) => {
  test('has a manifest that the agent accepts, with every other file by size and SHA-256', () => {
    const manifest = manifestOf(spec);
    const others = readdirSync(join(shipped, bundleFolder(spec.slot))).filter((name) => name !== 'manifest.json');
    expect(manifest.files.map((file) => file.path).toSorted()).toEqual(others.toSorted());
    for (const file of manifest.files) {
      const bytes = fileOf(spec, file.path);
      expect(file.size).toBe(bytes.length);
      expect(file.sha256).toBe(createHash('sha256').update(bytes).digest('hex'));
    }
  });

  test('has golden vectors, eight of one row and one of four, that ONNX Runtime reproduces within 1e-4', async () => {
    const golden = JSON.parse(fileOf(spec, 'golden.json').toString()) as Golden;
    expect(golden.format).toBe('setpoint.golden.v1');
    expect(golden.cases.map((one) => one.inputs[0]!.shape)).toEqual([...Array.from({ length: 8 }, () => [1, 24]), [4, 24]]);
    const run = await loadModel(spec);
    for (const { inputs, outputs } of golden.cases) {
      const got = await run(floatsOf(inputs[0]!));
      expect(outputs.map((output) => output.name)).toEqual(Object.keys(got));
      for (const output of outputs) {
        expect(output).toMatchObject({ datatype: 'FP32', shape: [inputs[0]!.shape[0], 1] });
        for (const [index, want] of floatsOf(output).entries()) {
          expect(Math.abs(got[output.name]![index]! - want)).toBeLessThanOrEqual(1e-4 + 1e-4 * Math.abs(want));
        }
      }
    }
  });

  test('predicts wafers of another life of the tool with R2 above 0.9', async () => {
    if (RECIPES[spec.slot]!.prediction === null) return;
    const heldOut = collectCampaign(spec, HELD_OUT_ROWS, spec.seed + HELD_OUT_SEED);
    const { prediction } = await (await loadModel(spec))(Float32Array.from(heldOut.features.data));
    const { r2, rmse } = accuracy(Float64Array.from(prediction!), heldOut.values);
    expect(r2).toBeGreaterThan(0.9);
    const { metrics } = manifestOf(spec).lineage;
    expect(metrics!['r2']).toBeCloseTo(r2, 4);
    expect(metrics!['rmse']).toBeCloseTo(rmse, 4);
  });
});

describe('the bundles', () => {
  let rebuilt: BuiltBundle;
  const [scannerA, scannerB] = TOOLS;
  beforeAll(() => {
    rebuilt = buildBundle(scannerA!);
  });

  test('are what make-bundles.ts writes, byte for byte', () => {
    for (const [name, bytes] of rebuilt.files) expect(Buffer.from(bytes).equals(fileOf(scannerA!, name)), name).toBe(true);
    for (const [name, bytes] of buildBundle(scannerB!).files) expect(Buffer.from(bytes).equals(fileOf(scannerB!, name)), name).toBe(true);
    expect(rebuilt.bundleId).toBe(createHash('sha256').update(fileOf(scannerA!, 'manifest.json')).digest('hex'));
  });

  test('have an index of similarity that ordinary wafers pass and a wafer with two contradicting sensors does not', async () => {
    const run = await loadModel(scannerA!);
    const limit = manifestOf(scannerA!).guard.gsiThreshold!;
    const heldOut = collectCampaign(scannerA!, 200, 77);
    const ordinary = (await run(Float32Array.from(heldOut.features.data)))['gsi']!;
    expect(ordinary.filter((gsi) => gsi > limit).length).toBeLessThanOrEqual(2);
    const strange = Float32Array.from(heldOut.features.data.subarray(0, 24));
    strange[3] = scannerA!.sensors[3]!.nominal + 15 * scannerA!.sensors[3]!.spread;
    expect((await run(strange))['gsi']![0]).toBeGreaterThan(limit);
  });

  test('have a perceptron that beats its linear reference, since the process is not linear', async () => {
    const heldOut = collectCampaign(scannerA!, 400, 78);
    const { prediction, reference } = await (await loadModel(scannerA!))(Float32Array.from(heldOut.features.data));
    const better = accuracy(Float64Array.from(prediction!), heldOut.values).rmse;
    expect(better).toBeLessThan(0.9 * accuracy(Float64Array.from(reference!), heldOut.values).rmse);
  });
});

/** Mean of the last 400 wafers and root mean square distance from the target, with and without the model in the loop. */
async function playLoop(spec: ToolSpec, isClosed: boolean): Promise<{ readonly bias: number; readonly rms: number }> {
  const run = await loadModel(spec);
  const correction = manifestOf(spec).roles.correction!;
  const shift = correction.form === 'offset' ? spec.baseline : 0;
  const tool = new FabTool(spec, { seed: 21 });
  // Starts away from the right setting, so that the loop has something to remove.
  const settings = spec.modules.map(() => spec.baseline + spec.step * 2);
  const distances: number[] = [];
  for (let count = 0; count < 500; count++) {
    const module = tool.nextModuleIndex;
    const wafer = tool.run(settings[module]!, count * 1000);
    if (isClosed) settings[module] = shift + (await run(wafer.features))[correction.output]![0]!;
    if (count >= 100) distances.push(wafer.trueValue - spec.target);
  }
  const bias = distances.reduce((sum, distance) => sum + distance, 0) / distances.length;
  const rms = Math.sqrt(distances.reduce((sum, distance) => sum + distance ** 2, 0) / distances.length);
  return { bias, rms };
}

describe.each(TOOLS.filter((spec) => RECIPES[spec.slot]!.correction !== null))('the loop of $slot', (spec) => {
  test('converges to the target: the noise that nobody can foresee is left, the drift and the offset are not', async () => {
    const closed = await playLoop(spec, true);
    const open = await playLoop(spec, false);
    const unforeseen = Math.hypot(spec.processNoise, spec.interaction, ...Object.values(spec.effects));
    expect(closed.rms).toBeLessThan(1.5 * unforeseen);
    expect(Math.abs(closed.bias)).toBeLessThan(unforeseen);
    expect(open.rms).toBeGreaterThan(2 * closed.rms);
  });
});
