import { assert } from '../../protocol/errors.ts';

/** The ONNX operators (opset 17) that the bundles of the fab use, as they stand in the standard's operator list. */
export type Operator = 'Sub' | 'Div' | 'Mul' | 'Clip' | 'Relu' | 'MatMul' | 'Gemm' | 'ReduceSum';

export interface GraphNode {
  readonly operator: Operator;
  readonly inputs: readonly string[];
  readonly output: string;
}

/** An initializer. float32 values are the model; int64 values are axes. */
export interface Constant {
  readonly name: string;
  readonly shape: readonly number[];
  readonly values: Float32Array | BigInt64Array;
}

export interface Port {
  readonly name: string;
  /** The tensor is float32 [N, columns] with a free batch axis N. */
  readonly columns: number;
}

/** A model of one input and several outputs, in the order in which its nodes can run. */
export interface Graph {
  readonly name: string;
  readonly input: Port;
  readonly outputs: readonly Port[];
  readonly nodes: readonly GraphNode[];
  readonly constants: readonly Constant[];
}

/** Collects nodes and constants; every method returns the name of what it added. */
export class GraphBuilder {
  readonly input: Port;
  readonly #nodes: GraphNode[] = [];
  readonly #constants: Constant[] = [];

  constructor(input: Port) {
    this.input = input;
  }

  constant(name: string, shape: readonly number[], values: ArrayLike<number>): string {
    this.#constants.push({ name, shape, values: Float32Array.from(values) });
    return name;
  }

  axes(name: string, values: readonly bigint[]): string {
    this.#constants.push({ name, shape: [values.length], values: BigInt64Array.from(values) });
    return name;
  }

  node(operator: Operator, inputs: readonly string[], output: string): string {
    this.#nodes.push({ operator, inputs, output });
    return output;
  }

  build(name: string, outputs: readonly Port[]): Graph {
    return { name, input: this.input, outputs, nodes: this.#nodes, constants: this.#constants };
  }
}

interface Value {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

/**
 * Runs a graph in float64 on float32 rows, [N, columns]: the reference that the golden vectors come from. It shares no code
 * with ONNX Runtime, and gives the same bits on every machine, which a runtime's vector kernels do not.
 */
export function evaluateGraph(graph: Graph, rows: Float32Array): ReadonlyMap<string, Float64Array> {
  assert(rows.length % graph.input.columns === 0, 'the input has whole rows');
  const values = new Map<string, Value>();
  for (const { name, shape, values: data } of graph.constants) values.set(name, { shape, data: Float64Array.from(data, Number) });
  values.set(graph.input.name, { shape: [rows.length / graph.input.columns, graph.input.columns], data: Float64Array.from(rows) });
  for (const node of graph.nodes) {
    const inputs = node.inputs.map((name) => {
      const value = values.get(name);
      assert(value, `node ${node.output} runs after its input ${name}`);
      return value;
    });
    values.set(node.output, evaluateNode(node.operator, inputs));
  }
  return new Map(graph.outputs.map(({ name }) => [name, values.get(name)?.data ?? new Float64Array(0)]));
}

function evaluateNode(operator: Operator, inputs: readonly Value[]): Value {
  const [first, second, third] = inputs;
  assert(first, 'every operator has an input');
  if (operator === 'Relu') return { shape: first.shape, data: first.data.map((value) => Math.max(0, value)) };
  if (operator === 'ReduceSum') return rowSums(first);
  assert(second, `${operator} has a second input`);
  switch (operator) {
    case 'Sub':
      return elementwise(first, second, (left, right) => left - right);
    case 'Div':
      return elementwise(first, second, (left, right) => left / right);
    case 'Mul':
      return elementwise(first, second, (left, right) => left * right);
    case 'MatMul':
      return product(first, second);
    case 'Gemm':
      assert(third, 'Gemm has a bias');
      return elementwise(product(first, second), third, (left, right) => left + right);
    case 'Clip':
      return clip(first, second.data[0] ?? -Infinity, third?.data[0] ?? Infinity);
    default:
      return operator satisfies never;
  }
}

function clip(given: Value, low: number, high: number): Value {
  return { shape: given.shape, data: given.data.map((value) => Math.min(high, Math.max(low, value))) };
}

/** Broadcasts `right` over the rows of `left`. */
function elementwise(left: Value, right: Value, apply: (left: number, right: number) => number): Value {
  return { shape: left.shape, data: left.data.map((value, index) => apply(value, right.data[index % right.data.length] ?? 0)) };
}

function product(left: Value, right: Value): Value {
  const [rows = 0, inner = 0] = left.shape;
  const columns = right.shape[1] ?? 1;
  const data = new Float64Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      let sum = 0;
      for (let index = 0; index < inner; index++)
        sum += (left.data[row * inner + index] ?? 0) * (right.data[index * columns + column] ?? 0);
      data[row * columns + column] = sum;
    }
  }
  return { shape: [rows, columns], data };
}

function rowSums(given: Value): Value {
  const [rows = 0, columns = 0] = given.shape;
  const data = new Float64Array(rows);
  for (const [index, value] of given.data.entries()) data[Math.floor(index / columns)] = (data[Math.floor(index / columns)] ?? 0) + value;
  return { shape: [rows, 1], data };
}
