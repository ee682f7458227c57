import type { TensorDescription } from './services.ts';

/** Elements of a tensor; 1 for a scalar's empty shape. Exact below 2^53, never NaN for 8 dimensions below 2^53. */
export function elementCount(shape: readonly number[]): number {
  let count = 1;
  for (const dimension of shape) {
    count *= dimension;
  }
  return count;
}

/** True when every fixed dimension is met; -1 in `declared` takes any size. */
export function fitsShape(shape: readonly number[], declared: readonly number[]): boolean {
  return shape.length === declared.length && declared.every((dimension, axis) => dimension === -1 || dimension === shape[axis]);
}

/** "FP32 [-1,86]", for messages. */
export function tensorText(tensor: Pick<TensorDescription, 'datatype' | 'shape'>): string {
  return `${tensor.datatype} [${tensor.shape.join(',')}]`;
}
