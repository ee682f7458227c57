import { type Graph, GraphBuilder, type Port } from './graph.ts';
import type { Layer } from './mlp.ts';
import { Random } from './random.ts';
import type { ToolSpec } from './tools.ts';
import {
  type Campaign,
  CLIP_DEVIATIONS,
  fitCorrection,
  fitMlp,
  fitRidge,
  fitSimilarity,
  fitStandardiser,
  type LinearModel,
  type SimilarityModel,
  standardise,
} from './train.ts';

/** What a bundle's graph answers. The reference and the similarity are the indices of automatic virtual metrology. */
export interface Recipe {
  readonly prediction: 'mlp' | 'ridge' | null;
  readonly reference: boolean;
  readonly similarity: boolean;
  readonly correction: 'setting' | 'offset' | null;
}

export interface TrainedModel {
  readonly graph: Graph;
  readonly gsiThreshold: number | null;
}

/** Output names, which are also the names of the roles in the manifest. */
export const OUTPUTS = { prediction: 'prediction', reference: 'reference', gsi: 'gsi', correction: 'correction' } as const;

const INPUT = 'features';
const Z = 'z';

/** Trains what the recipe asks for on one campaign and puts it into one graph, features [N, n] in. */
export function trainModel(spec: ToolSpec, recipe: Recipe, campaign: Campaign): TrainedModel {
  const columns = campaign.features.columns;
  const scale = fitStandardiser(campaign.features);
  const standardised = standardise(campaign.features, scale);
  const builder = new GraphBuilder({ name: INPUT, columns });
  builder.node('Sub', [INPUT, builder.constant('means', [columns], scale.means)], 'centred');
  builder.node('Div', ['centred', builder.constant('deviations', [columns], scale.deviations)], Z);
  const outputs: Port[] = [];
  let gsiThreshold: number | null = null;
  if (recipe.prediction === 'mlp') {
    addPerceptron(builder, fitMlp(standardised, campaign.values, new Random(spec.seed, 4)));
    outputs.push({ name: OUTPUTS.prediction, columns: 1 });
  }
  if (recipe.prediction === 'ridge') outputs.push(addLinear(builder, OUTPUTS.prediction, fitRidge(standardised, campaign.values)));
  if (recipe.reference) outputs.push(addLinear(builder, OUTPUTS.reference, fitRidge(standardised, campaign.values)));
  if (recipe.similarity) {
    const similarity = fitSimilarity(standardised);
    gsiThreshold = similarity.threshold;
    outputs.push(addSimilarity(builder, similarity));
  }
  if (recipe.correction !== null) {
    const setting = fitCorrection(standardised, campaign, spec);
    const shift = recipe.correction === 'offset' ? spec.baseline : 0;
    outputs.push(addLinear(builder, OUTPUTS.correction, { ...setting, intercept: setting.intercept - shift }));
  }
  return { graph: builder.build(spec.slot, outputs), gsiThreshold };
}

function addPerceptron(builder: GraphBuilder, layers: readonly Layer[]): void {
  const low = builder.constant('clip_low', [], [-CLIP_DEVIATIONS]);
  const high = builder.constant('clip_high', [], [CLIP_DEVIATIONS]);
  let previous = builder.node('Clip', [Z, low, high], 'clipped');
  for (const [index, layer] of layers.entries()) {
    const isLast = index === layers.length - 1;
    const weights = builder.constant(`weights_${index}`, [layer.inputs, layer.outputs], layer.weights);
    const biases = builder.constant(`biases_${index}`, [layer.outputs], layer.biases);
    previous = builder.node('Gemm', [previous, weights, biases], isLast ? OUTPUTS.prediction : `sum_${index}`);
    if (!isLast) previous = builder.node('Relu', [previous], `active_${index}`);
  }
}

function addLinear(builder: GraphBuilder, output: string, model: LinearModel): Port {
  const weights = builder.constant(`${output}_weights`, [model.weights.length, 1], model.weights);
  const intercept = builder.constant(`${output}_intercept`, [1], [model.intercept]);
  builder.node('Gemm', [Z, weights, intercept], output);
  return { name: output, columns: 1 };
}

function addSimilarity(builder: GraphBuilder, { projection }: SimilarityModel): Port {
  const weights = builder.constant('projection', [projection.rows, projection.columns], projection.data);
  const projected = builder.node('MatMul', [Z, weights], 'projected');
  const squares = builder.node('Mul', [projected, projected], 'squares');
  builder.node('ReduceSum', [squares, builder.axes('row_axis', [1n])], OUTPUTS.gsi);
  return { name: OUTPUTS.gsi, columns: 1 };
}
