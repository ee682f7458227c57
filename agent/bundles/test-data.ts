import { existsSync, readdirSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { z } from 'zod';
import type { WireTensor } from '../../protocol/datatype.ts';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { MAX_TENSORS } from '../../protocol/limits.ts';
import { readBounded } from './disk.ts';
import { GOLDEN_LIMITS, type GoldenCase } from './golden.ts';
import { readTensorProto } from './tensor-proto.ts';

/** Reads a standard ONNX `test_data_set_N` folder: input_0.pb ..., output_0.pb ..., one TensorProto each. */
const MAX_ORDER_BYTES = 1024 * 1024;

export interface ValueNames {
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
}

/**
 * @param model names of the model's inputs and outputs in its order; a tensor without a name of its own takes the one at its position
 * @throws SetpointError invalid_bundle
 */
export function readTestDataSet(folder: string, model: ValueNames): GoldenCase {
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (cause) {
    throw new SetpointError('not_found', `Cannot read test data ${folder}: ${messageOf(cause)}`, { remedy: 'check the path', cause });
  }
  const order = readOrder(join(dirname(resolve(folder)), 'case.json'));
  return {
    inputs: readSeries(folder, names, 'input', model.inputs, order.input_pb_order ?? model.inputs),
    outputs: readSeries(folder, names, 'output', model.outputs, order.output_pb_order ?? model.outputs),
  };
}

const orderSchema = z.object({ input_pb_order: z.array(z.string()).optional(), output_pb_order: z.array(z.string()).optional() });

/** A test set that leaves out values, or has them in another order, may say so in a `case.json` beside its folder. */
function readOrder(path: string): z.infer<typeof orderSchema> {
  if (!existsSync(path)) return {};
  try {
    return orderSchema.parse(JSON.parse(new TextDecoder().decode(readBounded(path, MAX_ORDER_BYTES))));
  } catch (cause) {
    throw new SetpointError('invalid_bundle', `Cannot read ${path}: it is not a JSON object with input_pb_order and output_pb_order`, {
      field: path,
      cause,
    });
  }
}

function readSeries(
  folder: string,
  names: readonly string[],
  prefix: 'input' | 'output',
  expected: readonly string[],
  order: readonly string[],
): WireTensor[] {
  const count = names.filter((name) => new RegExp(`^${prefix}_[0-9]+\\.pb$`).test(name)).length;
  if (count === 0 || count > MAX_TENSORS) fail(folder, `it has ${count} files ${prefix}_0.pb ..., 1 to ${MAX_TENSORS} are allowed`);
  const tensors: WireTensor[] = [];
  for (let index = 0; index < count; index += 1) {
    const path = join(folder, `${prefix}_${index}.pb`);
    const tensor = readTensorProto(readBounded(path, GOLDEN_LIMITS.bytes), `${prefix}_${index}.pb`);
    const name = tensor.name === '' ? order[index] : tensor.name;
    if (name === undefined || !expected.includes(name)) {
      fail(folder, `${prefix}_${index}.pb is for '${name ?? ''}', which is no ${prefix} of the model; ${expected.join(', ')} are`);
    }
    if (tensors.some((other) => other.name === name)) fail(folder, `'${name}' is given twice`);
    tensors.push({ ...tensor, name });
  }
  return tensors;
}

function fail(folder: string, why: string): never {
  throw new SetpointError('invalid_bundle', `Cannot read test data ${folder}: ${why}`, { field: folder });
}
