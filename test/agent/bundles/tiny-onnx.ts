import { createHash } from 'node:crypto';
import type { WireTensor } from '../../../protocol/datatype.ts';
import { assembleBundle, type Bundle } from '../../../agent/bundles/bundle.ts';
import { formatGolden, type GoldenCase } from '../../../agent/bundles/golden.ts';

/** Writes ONNX files by hand, so that tests can have models that no exporter would make. */
export function varint(value: bigint | number): number[] {
  let rest = BigInt.asUintN(64, BigInt(value));
  const bytes: number[] = [];
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  return [...bytes, Number(rest)];
}

export function number(field: number, value: bigint | number): number[] {
  return [...varint(field * 8), ...varint(value)];
}

export function bytes(field: number, content: readonly number[] | Uint8Array | string): number[] {
  const raw = typeof content === 'string' ? [...Buffer.from(content)] : [...content];
  return [...varint(field * 8 + 2), ...varint(raw.length), ...raw];
}

export const FLOAT = 1;
export const INT64 = 7;
export const BOOL = 9;

export function value(field: number, name: string, type: number, shape: readonly (number | string)[]): number[] {
  const dimensions = shape.flatMap((length) => bytes(1, typeof length === 'string' ? bytes(2, length) : number(1, length)));
  return bytes(field, [...bytes(1, name), ...bytes(2, bytes(1, [...number(1, type), ...bytes(2, dimensions)]))]);
}

export interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly domain?: string;
  readonly attributes?: readonly number[][];
}

export function node({ op, inputs, outputs, domain, attributes = [] }: Node): number[] {
  return [
    ...inputs.flatMap((name) => bytes(1, name)),
    ...outputs.flatMap((name) => bytes(2, name)),
    ...bytes(4, op),
    ...attributes.flatMap((attribute) => bytes(5, attribute)),
    ...(domain === undefined ? [] : bytes(7, domain)),
  ];
}

/** An attribute that holds a graph. */
export function graphAttribute(name: string, graph: readonly number[]): number[] {
  return [...bytes(1, name), ...bytes(6, graph), ...number(20, 5)];
}

export function int64s(name: string, shape: readonly number[], values: readonly (bigint | number)[]): number[] {
  const raw = Buffer.alloc(values.length * 8);
  values.forEach((one, index) => raw.writeBigInt64LE(BigInt(one), index * 8));
  return [...shape.flatMap((length) => number(1, length)), ...number(2, INT64), ...bytes(8, name), ...bytes(9, raw)];
}

export function bool(name: string, isTrue: boolean): number[] {
  return [...number(2, BOOL), ...bytes(8, name), ...bytes(9, [isTrue ? 1 : 0])];
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly initializers?: readonly number[][];
  readonly inputs?: readonly number[][];
  readonly outputs?: readonly number[][];
}

export function graph({ nodes, initializers = [], inputs = [], outputs = [] }: Graph): number[] {
  return [
    ...nodes.flatMap((one) => bytes(1, node(one))),
    ...bytes(2, 'g'),
    ...initializers.flatMap((one) => bytes(5, one)),
    ...inputs.flat(),
    ...outputs.flat(),
  ];
}

export function model(given: Graph, opset = 17, extra: readonly number[] = []): Uint8Array {
  return new Uint8Array([...number(1, 8), ...bytes(7, graph(given)), ...bytes(8, [...bytes(1, ''), ...number(2, opset)]), ...extra]);
}

const x = value(11, 'x', FLOAT, [1]);

/** y = Relu(x), x [1]. */
export const RELU = model({ nodes: [{ op: 'Relu', inputs: ['x'], outputs: ['y'] }], inputs: [x], outputs: [value(12, 'y', FLOAT, [1])] });

/** A loop whose trip count is 2^62: never returns. */
export const ENDLESS = model({
  nodes: [{ op: 'Loop', inputs: ['trips', 'go', 'x'], outputs: ['y'], attributes: [graphAttribute('body', loopBody())] }],
  initializers: [int64s('trips', [], [2n ** 62n]), bool('go', true)],
  inputs: [x],
  outputs: [value(12, 'y', FLOAT, [1])],
});

function loopBody(): number[] {
  return graph({
    nodes: [
      { op: 'Identity', inputs: ['going'], outputs: ['goes'] },
      { op: 'Add', inputs: ['v', 'v'], outputs: ['w'] },
    ],
    inputs: [value(11, 'i', INT64, []), value(11, 'going', BOOL, []), value(11, 'v', FLOAT, [1])],
    outputs: [value(12, 'goes', BOOL, []), value(12, 'w', FLOAT, [1])],
  });
}

/** Expands one number to `count`: 12 GB for 3e9. */
export function expanding(count: number): Uint8Array {
  return model({
    nodes: [{ op: 'Expand', inputs: ['x', 'size'], outputs: ['y'] }],
    initializers: [int64s('size', [1], [count])],
    inputs: [x],
    outputs: [value(12, 'y', FLOAT, [count])],
  });
}

export function floats(name: string, shape: readonly number[], values: readonly number[]): WireTensor {
  return { name, datatype: 'FP32', shape, bytes: new Uint8Array(new Float32Array(values).buffer) };
}

export const RELU_CASE: GoldenCase = { inputs: [floats('x', [1], [2])], outputs: [floats('y', [1], [2])] };

export interface TinyBundle {
  readonly model?: Uint8Array;
  readonly cases?: readonly GoldenCase[];
  readonly manifest?: Readonly<Record<string, unknown>>;
}

/** A bundle in memory around a model that takes x [1] and gives y [1]. */
export function tinyBundle({ model: modelBytes = RELU, cases = [RELU_CASE], manifest = {} }: TinyBundle = {}): Bundle {
  const files = new Map([
    ['model.onnx', modelBytes],
    ['golden.json', formatGolden(cases)],
  ]);
  const value = {
    format: 'setpoint.bundle.v1',
    name: 'tiny',
    version: '1',
    kind: 'tensors',
    model: { path: 'model.onnx', externalData: [] },
    golden: 'golden.json',
    inputs: [{ name: 'x', datatype: 'FP32', shape: [1] }],
    outputs: [{ name: 'y', datatype: 'FP32', shape: [1] }],
    files: [...files].map(([path, content]) => ({
      path,
      size: content.byteLength,
      sha256: createHash('sha256').update(content).digest('hex'),
    })),
    ...manifest,
  };
  return assembleBundle(new TextEncoder().encode(JSON.stringify(value)), files, 'tiny bundle');
}
