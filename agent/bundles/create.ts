import { realpathSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import {
  BUNDLE_LIMITS,
  findUnfitRole,
  MANIFEST_FILE,
  MANIFEST_FORMAT,
  parseBundleSpec,
  type BundleSpec,
  type Manifest,
} from '../../protocol/manifest.ts';
import { compilePolicy } from '../guard/policy.ts';
import { assembleBundle, packBundle, sha256, writeBundle, type Bundle } from './bundle.ts';
import { readBounded } from './disk.ts';
import { formatGolden, type GoldenCase } from './golden.ts';
import { readOnnxModel, type OnnxModel } from './onnx-model.ts';
import type { OnnxValue } from './onnx-value.ts';
import { featureInput, generateRows, parseRows, type RowInput } from './rows.ts';
import { describeDifference } from './tensor-compare.ts';
import { readTestDataSet } from './test-data.ts';
import { runCases, scanBytes } from './vet.ts';

/** Makes a bundle from what an operator has: a model, a spec, and test data, rows or nothing for the golden vectors. */
export interface CreateRequest {
  readonly model: string;
  readonly spec: string;
  readonly output: string;
  /** ONNX test data folder. */
  readonly golden: string | null;
  /** CSV file of input rows. */
  readonly rows: string | null;
  /** External data files that do not lie beside the model. */
  readonly external: readonly string[];
  /** Also writes the single-file form here. */
  readonly file: string | null;
}

export interface CreateResult {
  readonly bundle: Bundle;
  /** False where the same bundle was already there. */
  readonly wasWritten: boolean;
  readonly goldenSource: string;
  readonly goldenCases: number;
  readonly goldenMaxDifference: number;
}

const MODEL_FILE = 'model.onnx';
const GOLDEN_FILE = 'golden.json';
const MAX_SPEC_BYTES = 4 * 1024 * 1024;
const MAX_CSV_BYTES = 16 * 1024 * 1024;
const GENERATED_ROWS = 4;
/** As bundlePath of the manifest; told here so that the message names the model's own words. */
const PLAIN_PATH = /^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/;

/** @throws SetpointError not_found, invalid_bundle or invalid_config */
export async function createBundle(request: CreateRequest): Promise<CreateResult> {
  const spec = readSpec(request.spec);
  const modelBytes = readGiven(request.model, BUNDLE_LIMITS.fileBytes);
  const { externalData } = readOnnxModel(modelBytes);
  for (const location of externalData) checkLocation(location, request.model);
  const { model } = scanBytes(modelBytes, { domains: spec.domains, externalData }, `model ${request.model}`);
  const external = externalData.map((location) => ({ path: location, data: readExternal(location, request) }));
  const inputs = model.inputs.map(tensorSchemaOf);
  checkSpec(spec, model, inputs);

  const { given, source } = goldenCases(request, spec, model, inputs);
  const label = `model ${request.model}`;
  const computed = await runCases({ model: modelBytes, external, cases: given, label });
  const cases = given.map((one, index) => (one.outputs.length > 0 ? one : { ...one, outputs: computed[index]?.outputs ?? [] }));
  const goldenMaxDifference = largestDifference(cases, computed, spec);

  const files = new Map<string, Uint8Array>([[MODEL_FILE, modelBytes]]);
  for (const { path, data } of external) files.set(path, data);
  files.set(GOLDEN_FILE, formatGolden(cases));
  const manifestBytes = formatManifest(spec, model, files, externalData);
  const bundle = assembleBundle(manifestBytes, files, request.output);
  // Limits that contradict each other are told here, not when an agent refuses the bundle.
  compilePolicy(bundle.manifest);
  const wasWritten = writeBundle(request.output, bundle);
  if (request.file !== null) packBundle(bundle, request.file);
  return { bundle, wasWritten, goldenSource: source, goldenCases: cases.length, goldenMaxDifference };
}

/** An operator may well point at a link; what a bundle holds may not be one. */
function readGiven(path: string, maxBytes: number): Uint8Array {
  let target: string;
  try {
    target = realpathSync(path);
  } catch (cause) {
    throw new SetpointError('not_found', `Cannot read ${path}: there is no such file`, { field: path, remedy: 'check the path', cause });
  }
  return readBounded(target, maxBytes, path);
}

function readSpec(path: string): BundleSpec {
  const text = new TextDecoder().decode(readGiven(path, MAX_SPEC_BYTES));
  let value: unknown;
  try {
    value = parseYaml(text);
  } catch (cause) {
    const [line] = messageOf(cause).split('\n');
    throw new SetpointError('invalid_bundle', `Cannot read spec ${path}: ${line ?? 'it is not YAML'}`, { field: path, cause });
  }
  return parseBundleSpec(value, `spec ${path}`);
}

function checkLocation(location: string, source: string): void {
  const isTaken = [MODEL_FILE, GOLDEN_FILE, MANIFEST_FILE].includes(location);
  if (PLAIN_PATH.test(location) && location.length <= 255 && !isTaken) return;
  const why = isTaken ? 'is the name of another file of the bundle' : 'is not a plain path inside the bundle';
  throw new SetpointError(
    'invalid_bundle',
    `Cannot accept model ${source}: external data lies in ${JSON.stringify(location.slice(0, 255))}, which ${why}`,
    {
      field: 'model.externalData',
      remedy: 'save the model again with its external data in one file beside it',
    },
  );
}

function readExternal(location: string, request: CreateRequest): Uint8Array {
  const named = request.external.find((path) => basename(path) === basename(location));
  return readGiven(named ?? join(dirname(request.model), location), BUNDLE_LIMITS.fileBytes);
}

function tensorSchemaOf(value: OnnxValue): RowInput {
  // The scan has refused models with other element types.
  return { name: value.name, datatype: value.datatype ?? 'FP32', shape: value.shape };
}

function checkSpec(spec: BundleSpec, model: OnnxModel, inputs: readonly RowInput[]): void {
  const unfit = findUnfitRole(spec, model.outputs.map(tensorSchemaOf));
  if (unfit !== null) refuseSpec(unfit.path, unfit.message);
  if (spec.features === undefined) return;
  const input = featureInput(inputs);
  if (input === null) refuseSpec('features', 'the model has no float input to take them');
  const length = input.shape.at(-1);
  if (length !== -1 && length !== spec.features.length) {
    refuseSpec('features', `${spec.features.length} are given, input '${input.name}' [${input.shape.join(', ')}] takes ${length}`);
  }
  const featureNames = spec.features.map(({ name }) => name);
  const twice = featureNames.find((name, index) => featureNames.indexOf(name) !== index);
  if (twice !== undefined) refuseSpec('features', `'${twice}' is given twice`);
}

function refuseSpec(path: string, why: string): never {
  throw new SetpointError('invalid_bundle', `Cannot accept the spec: ${path}: ${why}`, { field: path, remedy: 'correct the spec' });
}

function goldenCases(
  request: CreateRequest,
  spec: BundleSpec,
  model: OnnxModel,
  inputs: readonly RowInput[],
): { given: GoldenCase[]; source: string } {
  const names = { inputs: inputs.map(({ name }) => name), outputs: model.outputs.map(({ name }) => name) };
  if (request.golden !== null) return { given: [readTestDataSet(request.golden, names)], source: 'ONNX test data' };
  const features = spec.features ?? [];
  const asCases = (rows: ReturnType<typeof generateRows>): GoldenCase[] => rows.map((row) => ({ inputs: row, outputs: [] }));
  if (request.rows !== null) {
    const text = new TextDecoder().decode(readGiven(request.rows, MAX_CSV_BYTES));
    return { given: asCases(parseRows(text, inputs, features, request.rows)), source: 'rows of a file' };
  }
  return { given: asCases(generateRows(inputs, features, GENERATED_ROWS)), source: 'made-up rows' };
}

/** @throws SetpointError invalid_bundle where a given output is not what the model computes */
function largestDifference(cases: readonly GoldenCase[], computed: readonly GoldenCase[], { tolerance }: BundleSpec): number {
  let largest = 0;
  for (const [index, { outputs }] of cases.entries()) {
    for (const want of outputs) {
      const got = computed[index]?.outputs.find(({ name }) => name === want.name);
      const difference = got === undefined ? null : describeDifference(got, want, tolerance.rtol, tolerance.atol);
      if (difference === null || difference.message !== null) {
        throw new SetpointError(
          'invalid_bundle',
          `Cannot accept the golden vectors: output ${difference?.message ?? `'${want.name}' is missing`}`,
          {
            field: 'golden',
            remedy: 'give the outputs of this very model, or a larger tolerance in the spec',
          },
        );
      }
      largest = Math.max(largest, difference.maxDifference);
    }
  }
  return largest;
}

function formatManifest(
  spec: BundleSpec,
  model: OnnxModel,
  files: ReadonlyMap<string, Uint8Array>,
  externalData: readonly string[],
): Uint8Array {
  const manifest: Manifest = {
    format: MANIFEST_FORMAT,
    ...spec,
    model: { path: MODEL_FILE, externalData: [...externalData] },
    golden: GOLDEN_FILE,
    inputs: model.inputs.map((value) => ({ ...tensorSchemaOf(value), shape: [...value.shape] })),
    outputs: model.outputs.map((value) => ({ ...tensorSchemaOf(value), shape: [...value.shape] })),
    files: [...files].map(([path, bytes]) => ({ path, size: bytes.byteLength, sha256: sha256(bytes).toString('hex') })),
  };
  return new TextEncoder().encode(`${JSON.stringify(manifest, null, 1)}\n`);
}
