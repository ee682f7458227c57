import { assert } from '../../protocol/errors.ts';
import { type Matrix, matrix } from './linear-algebra.ts';
import type { Random } from './random.ts';

/** A dense layer: out = in W + b, W row-major [inputs, outputs]. ReLU follows every layer but the last. */
export interface Layer {
  readonly inputs: number;
  readonly outputs: number;
  readonly weights: Float64Array;
  readonly biases: Float64Array;
}

export interface MlpOptions {
  /** Widths from input to output, for example [24, 32, 16, 1]. */
  readonly widths: readonly number[];
  readonly epochs: number;
  readonly learningRate: number;
  /** Decoupled weight decay (Loshchilov and Hutter, AdamW). */
  readonly weightDecay: number;
}

/** Adam's constants as published (Kingma and Ba, 2015). */
const BETA_1 = 0.9;
const BETA_2 = 0.999;
const EPSILON = 1e-8;

/**
 * Trains a perceptron on squared error with full-batch Adam; the step size falls linearly to a tenth. Deterministic:
 * the order of every sum is fixed and the only randomness is `random`, for He's initial weights.
 */
export function trainMlp(inputs: Matrix, targets: Float64Array, options: MlpOptions, random: Random): Layer[] {
  assert(targets.length === inputs.rows, 'a target for every row');
  const layers = initialLayers(options.widths, random);
  const parameters = layers.flatMap((layer) => [layer.weights, layer.biases]);
  const gradients = parameters.map((parameter) => new Float64Array(parameter.length));
  const first = parameters.map((parameter) => new Float64Array(parameter.length));
  const second = parameters.map((parameter) => new Float64Array(parameter.length));
  const workspace = layers.map((layer) => ({
    output: matrix(inputs.rows, layer.outputs),
    error: matrix(inputs.rows, layer.outputs),
  }));
  for (let epoch = 1; epoch <= options.epochs; epoch++) {
    forward(layers, inputs, workspace);
    backward(layers, inputs, targets, workspace, gradients);
    const rate = options.learningRate * (1 - (0.9 * (epoch - 1)) / options.epochs);
    const step = (rate * Math.sqrt(1 - BETA_2 ** epoch)) / (1 - BETA_1 ** epoch);
    for (const [index, parameter] of parameters.entries()) {
      const decay = index % 2 === 0 ? rate * options.weightDecay : 0;
      adam(parameter, gradients[index] ?? parameter, first[index] ?? parameter, second[index] ?? parameter, step, decay);
    }
  }
  return layers;
}

function initialLayers(widths: readonly number[], random: Random): Layer[] {
  return widths.slice(1).map((outputs, index) => {
    const inputs = widths[index] ?? 0;
    const weights = Float64Array.from({ length: inputs * outputs }, () => random.normal(0, Math.sqrt(2 / inputs)));
    return { inputs, outputs, weights, biases: new Float64Array(outputs) };
  });
}

type Workspace = readonly { readonly output: Matrix; readonly error: Matrix }[];

function forward(layers: readonly Layer[], inputs: Matrix, workspace: Workspace): void {
  let previous = inputs.data;
  for (const [index, layer] of layers.entries()) {
    const output = workspace[index]?.output.data ?? previous;
    const hidden = index < layers.length - 1;
    for (let row = 0; row < inputs.rows; row++) {
      const to = row * layer.outputs;
      for (let column = 0; column < layer.outputs; column++) output[to + column] = layer.biases[column] as number;
      for (let inner = 0; inner < layer.inputs; inner++) {
        const value = previous[row * layer.inputs + inner] as number;
        const from = inner * layer.outputs;
        for (let column = 0; column < layer.outputs; column++) {
          output[to + column] = (output[to + column] as number) + value * (layer.weights[from + column] as number);
        }
      }
      if (hidden) for (let column = to; column < to + layer.outputs; column++) output[column] = Math.max(0, output[column] as number);
    }
    previous = output;
  }
}

function backward(
  layers: readonly Layer[],
  inputs: Matrix,
  targets: Float64Array,
  workspace: Workspace,
  gradients: readonly Float64Array[],
): void {
  for (const gradient of gradients) gradient.fill(0);
  const last = workspace.at(-1);
  assert(last, 'a perceptron has layers');
  for (let row = 0; row < inputs.rows; row++) {
    last.error.data[row] = ((last.output.data[row] as number) - (targets[row] as number)) / inputs.rows;
  }
  for (let index = layers.length - 1; index >= 0; index--) {
    const layer = layers[index] as Layer;
    const error = (workspace[index] as Workspace[number]).error.data;
    const below = index === 0 ? inputs.data : (workspace[index - 1] as Workspace[number]).output.data;
    const errorBelow = index === 0 ? null : (workspace[index - 1] as Workspace[number]).error.data;
    layerGradient(layer, error, below, errorBelow, gradients[2 * index] as Float64Array, gradients[2 * index + 1] as Float64Array);
  }
}

/** Adds one layer's gradients and, where there is a layer below, writes that layer's error through its ReLU. */
function layerGradient(
  layer: Layer,
  error: Float64Array,
  below: Float64Array,
  errorBelow: Float64Array | null,
  weightGradient: Float64Array,
  biasGradient: Float64Array,
): void {
  const { inputs, outputs, weights } = layer;
  const rows = error.length / outputs;
  for (let row = 0; row < rows; row++) {
    const at = row * outputs;
    for (let column = 0; column < outputs; column++)
      biasGradient[column] = (biasGradient[column] as number) + (error[at + column] as number);
    for (let inner = 0; inner < inputs; inner++) {
      const value = below[row * inputs + inner] as number;
      // A silent ReLU neither passes its error down nor moves the weights above it.
      if (value === 0 && errorBelow !== null) {
        errorBelow[row * inputs + inner] = 0;
        continue;
      }
      let sum = 0;
      const from = inner * outputs;
      for (let column = 0; column < outputs; column++) {
        const mistake = error[at + column] as number;
        weightGradient[from + column] = (weightGradient[from + column] as number) + value * mistake;
        sum += (weights[from + column] as number) * mistake;
      }
      if (errorBelow !== null) errorBelow[row * inputs + inner] = sum;
    }
  }
}

function adam(
  parameter: Float64Array,
  gradient: Float64Array,
  first: Float64Array,
  second: Float64Array,
  step: number,
  decay: number,
): void {
  for (let index = 0; index < parameter.length; index++) {
    const slope = gradient[index] as number;
    const mean = BETA_1 * (first[index] as number) + (1 - BETA_1) * slope;
    const square = BETA_2 * (second[index] as number) + (1 - BETA_2) * slope * slope;
    first[index] = mean;
    second[index] = square;
    const value = parameter[index] as number;
    parameter[index] = value - (step * mean) / (Math.sqrt(square) + EPSILON) - decay * value;
  }
}
