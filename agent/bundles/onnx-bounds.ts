/**
 * Which nodes may take time or memory that the values of the input decide. Pure.
 *
 * A size is fixed when it comes from an initializer or a Constant, or when it copies dimensions of a tensor: such a size
 * grows only with the input's own shape, which the frame limit bounds. Arithmetic on sizes is not followed: it is rare in
 * exported models, and the cost of being wrong is the heavy lane, not a refusal.
 */

/** Operators that repeat a body, or a search, as often as a value says. */
const REPEATING = new Set([':Loop', ':Scan', ':SequenceMap', 'com.microsoft:BeamSearch', 'com.microsoft:GreedySearch']);
REPEATING.add('com.microsoft:Sampling').add('com.microsoft:WhisperBeamSearch');

/** Operator -> positions of the inputs whose values give the size of the output. */
const SIZE_INPUTS: Readonly<Record<string, readonly number[]>> = {
  ':AffineGrid': [1],
  ':BlackmanWindow': [0],
  ':CenterCropPad': [1],
  ':Col2Im': [1, 2],
  ':ConstantOfShape': [0],
  ':DFT': [1],
  ':Expand': [1],
  ':HammingWindow': [0],
  ':HannWindow': [0],
  ':MaxUnpool': [2],
  ':MelWeightMatrix': [0, 1],
  ':OneHot': [1],
  ':Pad': [1],
  ':Range': [0, 1, 2],
  ':Resize': [2, 3],
  ':STFT': [3],
  ':Tile': [1],
  ':Upsample': [1],
  'com.microsoft:CropAndResize': [3],
  'com.microsoft:Pad': [1],
};

/** Operators whose output is made of the elements of their inputs, so that fixed inputs give fixed outputs. */
const REARRANGING = new Set(['Gather', 'Concat', 'Unsqueeze', 'Squeeze', 'Cast', 'Slice', 'Identity', 'Reshape']);

/** Names of a graph whose values no caller decides; a subgraph also sees those of the graph around it. */
export class ConstantScope {
  readonly #outer: ConstantScope | null;
  readonly #names = new Set<string>();

  constructor(outer: ConstantScope | null) {
    this.#outer = outer;
  }

  has(name: string): boolean {
    return this.#names.has(name) || (this.#outer !== null && this.#outer.has(name));
  }

  addConstant(name: string): void {
    this.#names.add(name);
  }

  addNode(domain: string, operator: string, inputs: readonly string[], outputs: readonly string[]): void {
    if (domain !== '') return;
    const isFixed =
      operator === 'Constant' ||
      operator === 'Shape' ||
      operator === 'Size' ||
      (REARRANGING.has(operator) && inputs.every((name) => name === '' || this.has(name)));
    if (isFixed) for (const name of outputs) this.#names.add(name);
  }
}

export function isUnboundedNode(domain: string, operator: string, inputs: readonly string[], scope: ConstantScope): boolean {
  const key = `${domain}:${operator}`;
  if (REPEATING.has(key)) return true;
  const positions = SIZE_INPUTS[key] ?? [];
  return positions.some((position) => {
    const name = inputs[position];
    return name !== undefined && name !== '' && !scope.has(name);
  });
}
