import { assert } from '../../protocol/errors.ts';
import { at, columnMoments, eigenSymmetric, gram, type Matrix, matrix, ridgeWeights } from './linear-algebra.ts';
import { type Layer, trainMlp } from './mlp.ts';
import { FabTool } from './process.ts';
import { Random } from './random.ts';
import type { ToolSpec } from './tools.ts';

/** Labelled wafers of one tool, as a qualification campaign leaves them. */
export interface Campaign {
  /** Features of the wafers, as the float32 values that a controller would send. */
  readonly features: Matrix;
  /** Measured value of each wafer, value unit. */
  readonly values: Float64Array;
  /** Setting and measured value of the next wafer on the same module. */
  readonly nextSettings: Float64Array;
  readonly nextValues: Float64Array;
}

/**
 * Runs between two wafers that are kept: few rows then span many maintenance cycles. Odd, so that a tool of two or four
 * modules gives wafers of each.
 */
const KEEP_EVERY = 21;
/** Any instant; training does not look at time. */
const CAMPAIGN_MILLIS = Date.UTC(2026, 0, 1);

/** Runs a tool with settings spread around the baseline, and keeps `rows` wafers with the wafer that follows each. */
export function collectCampaign(spec: ToolSpec, rows: number, seed: number): Campaign {
  const tool = new FabTool(spec, { seed });
  const random = new Random(seed, 3);
  const width = spec.sensors.length;
  const features = matrix(rows, width);
  const values = new Float64Array(rows);
  const nextSettings = new Float64Array(rows);
  const nextValues = new Float64Array(rows);
  const run = () => tool.run(spec.baseline + random.normal(0, spec.campaignSpread), CAMPAIGN_MILLIS);
  for (let row = 0; row < rows;) {
    for (let skipped = 0; skipped < KEEP_EVERY; skipped++) run();
    const kept = run();
    for (let other = 1; other < spec.modules.length; other++) run();
    const next = run();
    // A maintenance between the two is news that no model can have.
    if (next.maintained) continue;
    features.data.set(kept.features, row * width);
    values[row] = kept.measuredValue;
    nextSettings[row] = next.setting;
    nextValues[row] = next.measuredValue;
    row++;
  }
  return { features, values, nextSettings, nextValues };
}

/** Means and deviations, rounded to float32: the graph and the training then standardise alike. */
export interface Standardiser {
  readonly means: Float64Array;
  readonly deviations: Float64Array;
}

export function fitStandardiser(features: Matrix): Standardiser {
  const { means, deviations } = columnMoments(features);
  return { means: means.map(Math.fround), deviations: deviations.map(Math.fround) };
}

export function standardise(features: Matrix, { means, deviations }: Standardiser): Matrix {
  const data = features.data.map((value, index) => {
    const column = index % features.columns;
    return (value - (means[column] ?? 0)) / (deviations[column] ?? 1);
  });
  return matrix(features.rows, features.columns, data);
}

/** y = intercept + z . weights, with z the standardised features. */
export interface LinearModel {
  readonly weights: Float64Array;
  readonly intercept: number;
}

/** Ridge penalty as a part of the rows: weak, it only steadies the sensors that say the same. */
const RIDGE = 1e-3;

export function fitRidge(standardised: Matrix, values: Float64Array): LinearModel {
  const { mean } = moments(values);
  return {
    weights: ridgeWeights(
      standardised,
      values.map((value) => value - mean),
      RIDGE,
    ),
    intercept: mean,
  };
}

/** Standardised features beyond this are held at it before the perceptron, which was never taught that far out. */
export const CLIP_DEVIATIONS = 6;

/** A perceptron whose output is (value - mean) / deviation; the last layer is rescaled to give the value itself. */
export function fitMlp(standardised: Matrix, values: Float64Array, random: Random): Layer[] {
  const { mean, deviation } = moments(values);
  const clipped = standardised.data.map((value) => Math.min(CLIP_DEVIATIONS, Math.max(-CLIP_DEVIATIONS, value)));
  const layers = trainMlp(
    matrix(standardised.rows, standardised.columns, clipped),
    values.map((value) => (value - mean) / deviation),
    { widths: [standardised.columns, 32, 16, 1], epochs: 250, learningRate: 0.01, weightDecay: 1 },
    random,
  );
  const last = layers.at(-1);
  assert(last, 'a perceptron has layers');
  const scaled: Layer = {
    ...last,
    weights: last.weights.map((weight) => weight * deviation),
    biases: last.biases.map((bias) => bias * deviation + mean),
  };
  return [...layers.slice(0, -1), scaled];
}

/** GSI = |z projection|^2; the projection is [features, kept], its threshold three times the trimmed training mean. */
export interface SimilarityModel {
  readonly projection: Matrix;
  readonly threshold: number;
}

/** Eigenvalues of the correlation matrix below this part of the largest are noise between redundant sensors. */
const EIGENVALUE_FLOOR = 1e-3;
const TRIMMED_PART = 0.9;
const THRESHOLD_FACTOR = 3;

/**
 * Global similarity index D^2 = z^T R^-1 z (Cheng et al., US 7,593,912), with R^-1 by truncated eigen-decomposition
 * R = V W V^T, so that T = V W^(-1/2) gives D^2 = |z T|^2. Not divided by the number of features.
 */
export function fitSimilarity(standardised: Matrix): SimilarityModel {
  const size = standardised.columns;
  const correlation = gram(standardised, 0);
  const { values, vectors } = eigenSymmetric(
    matrix(
      size,
      size,
      correlation.data.map((sum) => sum / standardised.rows),
    ),
  );
  const kept = values.filter((value) => value > EIGENVALUE_FLOOR * (values[0] ?? 0)).length;
  const projection = matrix(size, kept);
  for (let row = 0; row < size; row++) {
    for (let column = 0; column < kept; column++) {
      projection.data[row * kept + column] = at(vectors, row, column) / Math.sqrt(values[column] ?? 1);
    }
  }
  const indices = similarities(standardised, projection).sort();
  const trimmed = indices.subarray(0, Math.floor(indices.length * TRIMMED_PART));
  return { projection, threshold: THRESHOLD_FACTOR * moments(trimmed).mean };
}

function similarities(standardised: Matrix, projection: Matrix): Float64Array {
  return Float64Array.from({ length: standardised.rows }, (_, row) => {
    let index = 0;
    for (let column = 0; column < projection.columns; column++) {
      let sum = 0;
      for (let inner = 0; inner < projection.rows; inner++) sum += at(standardised, row, inner) * at(projection, inner, column);
      index += sum * sum;
    }
    return index;
  });
}

/**
 * The setting that would bring the next wafer of the module to `target`: the next value is regressed on this wafer's
 * features and the next setting, y' = a + w . z + g (u' - baseline), and solved for u'. The regression shrinks
 * what does not last from wafer to wafer, so the correction follows wear and maintenance and not noise.
 */
export function fitCorrection(standardised: Matrix, campaign: Campaign, spec: ToolSpec): LinearModel & { readonly gain: number } {
  const { rows, columns } = standardised;
  const wide = matrix(rows, columns + 1);
  for (let row = 0; row < rows; row++) {
    wide.data.set(standardised.data.subarray(row * columns, (row + 1) * columns), row * (columns + 1));
    wide.data[row * (columns + 1) + columns] = ((campaign.nextSettings[row] ?? 0) - spec.baseline) / spec.campaignSpread;
  }
  const next = fitRidge(wide, campaign.nextValues);
  const gain = (next.weights[columns] ?? 0) / spec.campaignSpread;
  return {
    gain,
    weights: next.weights.subarray(0, columns).map((weight) => -weight / gain),
    intercept: spec.baseline + (spec.target - next.intercept) / gain,
  };
}

export function moments(values: Float64Array): { readonly mean: number; readonly deviation: number } {
  const { means, deviations } = columnMoments(matrix(values.length, 1, values));
  return { mean: means[0] ?? 0, deviation: deviations[0] ?? 1 };
}

/** Coefficient of determination and root mean square error of predictions on held-out wafers. */
export function accuracy(predicted: Float64Array, measured: Float64Array): { readonly r2: number; readonly rmse: number } {
  const { deviation } = moments(measured);
  let squares = 0;
  for (const [index, value] of measured.entries()) squares += (value - (predicted[index] ?? 0)) ** 2;
  const variance = squares / measured.length;
  return { r2: 1 - variance / deviation ** 2, rmse: Math.sqrt(variance) };
}
