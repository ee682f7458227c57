import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { afterAll } from 'vitest';
import { createBundle } from '../../agent/bundles/create.ts';
import { readTestDataSet } from '../../agent/bundles/test-data.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import type { BundleSpec, Manifest, TensorSchema } from '../../protocol/manifest.ts';
import { hasShared, sharedJson, sharedPath } from './shared.ts';
import type { Tolerance } from './wire.ts';

/** One case of ../shared/onnx-cases, as its case.json has it. */
export interface OnnxCase extends Tolerance {
  readonly case: string;
  readonly group: 'vm' | 'onnx-backend' | 'negative';
  readonly path: string;
  /** 'ok' where onnxruntime 1.30 runs it on the CPU; absent in the groups that do not say. */
  readonly ort130_status?: string;
  readonly inputs: readonly { readonly name: string; readonly type?: string }[];
  readonly outputs: readonly { readonly name: string; readonly type?: string }[];
}

/** The cases of a group; none where ../shared is missing. */
export function onnxCases(group: OnnxCase['group']): OnnxCase[] {
  if (!hasShared) return [];
  return (sharedJson('onnx-cases/index.json') as OnnxCase[]).filter((one) => one.group === group);
}

export function modelPath(one: OnnxCase): string {
  return sharedPath('onnx-cases', one.path, 'model.onnx');
}

/** The inputs of a case and the outputs it must give. */
export function goldenOf(one: OnnxCase): { readonly inputs: readonly WireTensor[]; readonly outputs: readonly WireTensor[] } {
  const names = (values: OnnxCase['inputs']): string[] => values.map(({ name }) => name);
  return readTestDataSet(goldenPath(one), { inputs: names(one.inputs), outputs: names(one.outputs) });
}

function goldenPath(one: OnnxCase): string {
  return sharedPath('onnx-cases', one.path, 'test_data_set_0');
}

/** A folder that is removed when all tests of the file, or of the describe block that asks for it, have ended. */
export function sharedDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'setpoint-test-'));
  afterAll(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface TestBundle {
  /** Path of the ONNX file. */
  readonly model: string;
  /** Folder of an ONNX test data set; null makes rows up. */
  readonly golden: string | null;
  /** Where the bundle goes. */
  readonly folder: string;
  /** Adds to or replaces the smallest spec, that of kind 'tensors'. */
  readonly spec: Partial<BundleSpec>;
}

export async function createTestBundle({ model, golden, folder, spec }: TestBundle): Promise<string> {
  const file = `${folder}.spec.json`;
  mkdirSync(dirname(folder), { recursive: true });
  writeFileSync(file, JSON.stringify({ name: basename(folder), version: '1', kind: 'tensors', ...spec }));
  await createBundle({ model, spec: file, golden, output: folder, rows: null, external: [], file: null });
  return folder;
}

/** As createTestBundle, for a case with its golden vectors and its tolerance. */
export async function createCaseBundle(one: OnnxCase, folder: string, spec: Partial<BundleSpec> = {}): Promise<string> {
  const { rtol, atol } = one;
  return await createTestBundle({ model: modelPath(one), golden: goldenPath(one), folder, spec: { tolerance: { rtol, atol }, ...spec } });
}

export interface HandMadeBundle {
  readonly name: string;
  readonly model: Uint8Array;
  readonly inputs: readonly TensorSchema[];
  readonly outputs: readonly TensorSchema[];
  /** Golden inputs and outputs; every file a bundle needs is there and every digest is right. */
  readonly golden: { readonly inputs: readonly WireTensor[]; readonly outputs: readonly WireTensor[] };
  /** What the manifest gives beside; it may well be wrong. */
  readonly manifest?: Partial<Manifest>;
}

/** Writes a bundle folder by hand: what `setpoint bundle create` would refuse to make, with nothing wrong around the model. */
export function writeBundleByHand(folder: string, { name, model, inputs, outputs, golden, manifest: given }: HandMadeBundle): string {
  const encode = (tensors: readonly WireTensor[]): object[] =>
    tensors.map(({ bytes, ...head }) => ({ ...head, data: Buffer.from(bytes).toString('base64') }));
  const cases = [{ inputs: encode(golden.inputs), outputs: encode(golden.outputs) }];
  const files = new Map<string, Uint8Array>([
    ['model.onnx', model],
    ['golden.json', Buffer.from(JSON.stringify({ format: 'setpoint.golden.v1', cases }))],
  ]);
  const manifest: Manifest = {
    format: 'setpoint.bundle.v1',
    name,
    version: '1',
    kind: 'tensors',
    roles: {},
    guard: {},
    lineage: {},
    tolerance: { rtol: 1e-4, atol: 1e-5 },
    domains: ['ai.onnx.ml'],
    model: { path: 'model.onnx', externalData: [] },
    golden: 'golden.json',
    inputs: inputs.map((input) => ({ ...input, shape: [...input.shape] })),
    outputs: outputs.map((output) => ({ ...output, shape: [...output.shape] })),
    files: [...files].map(([path, bytes]) => ({
      path,
      size: bytes.byteLength,
      sha256: createHash('sha256').update(bytes).digest('hex'),
    })),
    ...given,
  };
  mkdirSync(folder, { recursive: true });
  for (const [path, bytes] of files) writeFileSync(join(folder, path), bytes);
  writeFileSync(join(folder, 'manifest.json'), JSON.stringify(manifest));
  return folder;
}
