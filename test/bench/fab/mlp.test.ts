import { expect, test } from 'vitest';
import { matrix } from '../../../bench/fab/linear-algebra.ts';
import { type Layer, trainMlp } from '../../../bench/fab/mlp.ts';
import { Random } from '../../../bench/fab/random.ts';

const random = new Random(11);
const inputs = matrix(
  200,
  2,
  Float64Array.from({ length: 400 }, () => random.between(-1, 1)),
);
/** x y: a product, which no linear model fits (its best R2 is 0). */
const products = Float64Array.from({ length: 200 }, (_, row) => inputs.data[2 * row]! * inputs.data[2 * row + 1]!);
const options = { widths: [2, 16, 8, 1], epochs: 300, learningRate: 0.02, weightDecay: 0 };

test('trainMlp() learns a product of two inputs', () => {
  const layers = trainMlp(inputs, products, options, new Random(1));
  let squares = 0;
  let variance = 0;
  for (const [row, product] of products.entries()) {
    squares += (answer(layers, [inputs.data[2 * row]!, inputs.data[2 * row + 1]!]) - product) ** 2;
    variance += product ** 2;
  }
  expect(1 - squares / variance).toBeGreaterThan(0.97);
});

test('trainMlp() gives the same weights for the same seed', () => {
  const short = { ...options, epochs: 20 };
  expect(trainMlp(inputs, products, short, new Random(1))).toEqual(trainMlp(inputs, products, short, new Random(1)));
});

test('one step of Adam moves every weight that has a slope by the learning rate, against the slope', () => {
  const [before] = trainMlp(inputs, products, { widths: [2, 1], epochs: 0, learningRate: 0.01, weightDecay: 0 }, new Random(1));
  const [after] = trainMlp(inputs, products, { widths: [2, 1], epochs: 1, learningRate: 0.01, weightDecay: 0 }, new Random(1));
  for (let index = 0; index < 2; index++) {
    let slope = 0;
    for (let row = 0; row < 200; row++) {
      const guess = before!.weights[0]! * inputs.data[2 * row]! + before!.weights[1]! * inputs.data[2 * row + 1]!;
      slope += (guess - products[row]!) * inputs.data[2 * row + index]!;
    }
    expect(after!.weights[index]! - before!.weights[index]!).toBeCloseTo(-0.01 * Math.sign(slope), 6);
  }
});

function answer(layers: readonly Layer[], input: readonly number[]): number {
  let values = [...input];
  for (const [index, layer] of layers.entries()) {
    values = Array.from(layer.biases, (bias, column) =>
      values.reduce((sum, value, row) => sum + value * layer.weights[row * layer.outputs + column]!, bias),
    );
    if (index < layers.length - 1) values = values.map((value) => Math.max(0, value));
  }
  return values[0]!;
}
