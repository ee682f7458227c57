import { createHash } from 'node:crypto';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { writeBundle } from '../../agent/bundles/bundle.ts';
import { formatGolden, type GoldenCase, parseGolden } from '../../agent/bundles/golden.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import {
  bool,
  BOOL,
  bytes,
  ENDLESS,
  FLOAT,
  floats,
  graph,
  graphAttribute,
  int64s,
  INT64,
  model,
  number,
  tinyBundle,
  value,
} from '../agent/bundles/tiny-onnx.ts';

/** Small models, written by bytes, and bundles around them. */

/** The folder of a bundle that ships with the project. */
export function shippedBundle(name: string): string {
  return resolve(import.meta.dirname, '../../bench/bundles', name);
}

/** Features of the first golden case of a bundle: an input its model knows. */
export function goldenFeatures(bundle: string): Float32Array {
  const [first] = parseGolden(readFileSync(join(bundle, 'golden.json')), 'golden.json');
  const bytes = Uint8Array.from(first?.inputs[0]?.bytes ?? []);
  return new Float32Array(bytes.buffer);
}

function int64(name: string, shape: readonly number[], values: readonly (number | bigint)[]): WireTensor {
  return { name, datatype: 'INT64', shape, bytes: new Uint8Array(BigInt64Array.from(values, BigInt).buffer) };
}

function float32Initializer(name: string, shape: readonly number[], values: readonly number[]): number[] {
  const raw = new Uint8Array(Float32Array.from(values).buffer);
  return [...shape.flatMap((length) => number(1, length)), ...number(2, FLOAT), ...bytes(8, name), ...bytes(9, raw)];
}

/** prediction = f0 + f1 + `bias`, features [N, 2]. */
function sumModel(bias: number): Uint8Array {
  return model({
    nodes: [
      { op: 'MatMul', inputs: ['features', 'w'], outputs: ['sum'] },
      { op: 'Add', inputs: ['sum', 'b'], outputs: ['prediction'] },
    ],
    initializers: [float32Initializer('w', [2, 1], [1, 1]), float32Initializer('b', [1, 1], [bias])],
    inputs: [value(11, 'features', FLOAT, ['N', 2])],
    outputs: [value(12, 'prediction', FLOAT, ['N', 1])],
  });
}

const SUM_BASELINE = -1;

/** A prediction slot whose version tells what it adds: version `<bias>.0.0` answers f0 + f1 + bias. */
export function writeSumBundle(folder: string, bias: number): string {
  const cases = [floats('features', [1, 2], [1, 2])].map((input) => ({
    inputs: [input],
    outputs: [floats('prediction', [1, 1], [3 + bias])],
  }));
  writeBundle(
    folder,
    tinyBundle({
      model: sumModel(bias),
      cases,
      manifest: {
        name: 'sum',
        version: `${bias}.0.0`,
        kind: 'prediction',
        roles: { prediction: { output: 'prediction', unit: 'nm' } },
        fallback: { estimator: 'ewma', lambda: 0.5, baselineValue: SUM_BASELINE },
        inputs: [{ name: 'features', datatype: 'FP32', shape: [-1, 2] }],
        outputs: [{ name: 'prediction', datatype: 'FP32', shape: [-1, 1] }],
      },
    }),
  );
  return folder;
}

/** y = x + trips, one addition a trip: as slow as the caller likes. */
const COUNTING = model({
  nodes: [{ op: 'Loop', inputs: ['trips', 'go', 'x'], outputs: ['y'], attributes: [graphAttribute('body', countingBody())] }],
  initializers: [bool('go', true)],
  inputs: [value(11, 'trips', INT64, []), value(11, 'x', FLOAT, [1])],
  outputs: [value(12, 'y', FLOAT, [1])],
});

function countingBody(): number[] {
  return graph({
    nodes: [
      { op: 'Identity', inputs: ['going'], outputs: ['goes'] },
      { op: 'Add', inputs: ['v', 'one'], outputs: ['w'] },
    ],
    initializers: [float32Initializer('one', [1], [1])],
    inputs: [value(11, 'i', INT64, []), value(11, 'going', BOOL, []), value(11, 'v', FLOAT, [1])],
    outputs: [value(12, 'goes', BOOL, []), value(12, 'w', FLOAT, [1])],
  });
}

export const COUNTING_BASELINE = 7;

/**
 * @param version told apart in decisions; a bundle with another version has another id
 * @param trips of the golden vectors, which vetting runs some hundred times
 */
export function writeCountingBundle(folder: string, kind: 'tensors' | 'prediction', version = '1', trips = 3): string {
  const cases: GoldenCase[] = [{ inputs: countingInput(trips), outputs: [floats('y', [1], [2 + trips])] }];
  const guarded =
    kind === 'prediction'
      ? { roles: { prediction: { output: 'y' } }, fallback: { estimator: 'none', baselineValue: COUNTING_BASELINE } }
      : {};
  writeBundle(
    folder,
    tinyBundle({
      model: COUNTING,
      cases,
      manifest: {
        name: 'counting',
        version,
        kind,
        ...guarded,
        inputs: [
          { name: 'trips', datatype: 'INT64', shape: [] },
          { name: 'x', datatype: 'FP32', shape: [1] },
        ],
        outputs: [{ name: 'y', datatype: 'FP32', shape: [1] }],
      },
    }),
  );
  return folder;
}

export function countingInput(trips: number | bigint, x = 2): WireTensor[] {
  return [int64('trips', [], [trips]), floats('x', [1], [x])];
}

/** y is x, `size` times. */
const GROWING = model({
  nodes: [{ op: 'Expand', inputs: ['x', 'size'], outputs: ['y'] }],
  inputs: [value(11, 'x', FLOAT, [1]), value(11, 'size', INT64, [1])],
  outputs: [value(12, 'y', FLOAT, ['N'])],
});

export function writeGrowingBundle(folder: string): string {
  const cases: GoldenCase[] = [{ inputs: [floats('x', [1], [2]), int64('size', [1], [3])], outputs: [floats('y', [3], [2, 2, 2])] }];
  writeBundle(
    folder,
    tinyBundle({
      model: GROWING,
      cases,
      manifest: {
        name: 'growing',
        inputs: [
          { name: 'x', datatype: 'FP32', shape: [1] },
          { name: 'size', datatype: 'INT64', shape: [1] },
        ],
        outputs: [{ name: 'y', datatype: 'FP32', shape: [-1] }],
      },
    }),
  );
  return folder;
}

export function growingInput(size: number): WireTensor[] {
  return [floats('x', [1], [2]), int64('size', [1], [size])];
}

/** Never returns, whatever its input. */
export function writeEndlessBundle(folder: string): string {
  writeBundle(folder, tinyBundle({ model: ENDLESS, manifest: { name: 'endless' } }));
  return folder;
}

/** y is x, `count` times, whatever the input: 12 GB for 3e9. The golden vectors are a lie; nobody lives to compare them. */
export function writeHugeBundle(folder: string, count: number): string {
  const huge = model({
    nodes: [{ op: 'Expand', inputs: ['x', 'size'], outputs: ['y'] }],
    initializers: [int64s('size', [1], [count])],
    inputs: [value(11, 'x', FLOAT, [1])],
    outputs: [value(12, 'y', FLOAT, [count])],
  });
  const cases: GoldenCase[] = [{ inputs: [floats('x', [1], [2])], outputs: [floats('y', [1], [2])] }];
  const manifest = { name: 'huge', outputs: [{ name: 'y', datatype: 'FP32', shape: [count] }] };
  writeBundle(folder, tinyBundle({ model: huge, cases, manifest }));
  return folder;
}

/** y is x, `count` times, on a serving thread: a reply as large as is wanted. */
export function writeWideBundle(folder: string, count: number): string {
  const wide = model({
    nodes: [{ op: 'Expand', inputs: ['x', 'size'], outputs: ['y'] }],
    initializers: [int64s('size', [1], [count])],
    inputs: [value(11, 'x', FLOAT, [1])],
    outputs: [value(12, 'y', FLOAT, [count])],
  });
  const cases: GoldenCase[] = [{ inputs: [floats('x', [1], [2])], outputs: [floats('y', [count], Array<number>(count).fill(2))] }];
  const manifest = { name: 'wide', outputs: [{ name: 'y', datatype: 'FP32', shape: [count] }] };
  writeBundle(folder, tinyBundle({ model: wide, cases, manifest }));
  return folder;
}

/** A copy of a bundle folder with another fallback, and so with another id. */
export function copyBundle(from: string, to: string, fallback: Readonly<Record<string, unknown>>): string {
  cpSync(from, to, { recursive: true });
  const path = join(to, 'manifest.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8')) as { fallback: object };
  writeFileSync(path, `${JSON.stringify({ ...manifest, fallback: { ...manifest.fallback, ...fallback } }, null, 1)}\n`);
  return to;
}

/** A bundle whose golden vectors do not hold: everything is in its place, and vetting refuses it. */
export function writeWrongBundle(folder: string): string {
  const cases: GoldenCase[] = [{ inputs: [floats('features', [1, 2], [1, 2])], outputs: [floats('prediction', [1, 1], [99])] }];
  const files = new Map([
    ['model.onnx', sumModel(0)],
    ['golden.json', formatGolden(cases)],
  ]);
  writeSumBundle(folder, 666);
  const path = join(folder, 'manifest.json');
  const manifest = JSON.parse(readFileSync(path, 'utf8')) as Record<string, unknown>;
  for (const [name, content] of files) writeFileSync(join(folder, name), content);
  const listed = [...files].map(([name, content]) => ({
    path: name,
    size: content.byteLength,
    sha256: createHash('sha256').update(content).digest('hex'),
  }));
  writeFileSync(path, JSON.stringify({ ...manifest, files: listed }));
  return folder;
}
