import { DATATYPE_NAMES, isDatatype, type WireTensor } from '../../protocol/datatype.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { MAX_DIMENSIONS, MAX_TENSORS } from '../../protocol/limits.ts';
import { checkBinary } from './binary-data.ts';
import { bytesOfJson } from './json-data.ts';
import { found, invalidField, isObject } from './replies.ts';
import { flag, integerUpTo, readParameters } from './request-parameters.ts';
import { MAX_BODY_BYTES, type ModelDescription, type TensorDescription } from './services.ts';
import { elementCount, fitsShape, tensorText } from './shapes.ts';

export interface RequestedOutput {
  readonly name: string;
  readonly isBinary: boolean;
}

/** Hands out the binary part of a body, front to back. */
class BlobReader {
  readonly #bytes: Uint8Array;
  #offset = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get remaining(): number {
    return this.#bytes.byteLength - this.#offset;
  }

  take(size: number): Uint8Array {
    const start = this.#offset;
    this.#offset += size;
    return this.#bytes.subarray(start, this.#offset);
  }
}

/**
 * Reads `inputs` against the model's description; the binary ones take their bytes from `blobs` in the order of the request.
 * @returns one tensor per input of the model, in the model's order; binary ones are views into `blobs`
 * @throws SetpointError invalid_field that names the input, or unsupported for shared memory
 */
export function readInputs(given: unknown, blobs: Uint8Array, model: ModelDescription): WireTensor[] {
  if (!Array.isArray(given) || given.length === 0 || given.length > MAX_TENSORS) {
    throw invalidField('inputs', `Cannot read inputs: value found is ${found(given)}, an array of 1 to ${MAX_TENSORS} is allowed`);
  }
  const reader = new BlobReader(blobs);
  const tensors = new Map<string, WireTensor>();
  for (let index = 0; index < given.length; index++) {
    const tensor = readInput(given[index], `inputs[${index}]`, model, reader);
    if (tensors.has(tensor.name)) {
      throw invalidField('inputs', `Cannot read inputs: ${found(tensor.name)} is there twice, once is allowed`);
    }
    tensors.set(tensor.name, tensor);
  }
  if (reader.remaining > 0) {
    throw invalidField(
      'inputs',
      `Cannot read the binary data: the inputs leave some of it over: value found is ${reader.remaining} bytes, 0 are allowed`,
    );
  }
  return model.inputs.map((declared) => {
    const tensor = tensors.get(declared.name);
    if (tensor === undefined) {
      throw invalidField('inputs', `Cannot read inputs: ${found(declared.name)} is missing, ${tensorText(declared)} is required`);
    }
    return tensor;
  });
}

function readInput(given: unknown, field: string, model: ModelDescription, reader: BlobReader): WireTensor {
  if (!isObject(given)) {
    throw invalidField(field, `Cannot read ${field}: value found is ${found(given)}, an object is allowed`);
  }
  const declared = declaredBy(model.inputs, given['name'], field);
  const shape = readShape(given['shape'], declared, field);
  const { datatype } = declared;
  if (given['datatype'] !== datatype) {
    const allowed = isDatatype(given['datatype']) ? datatype : `one of ${DATATYPE_NAMES.join(', ')}, here ${datatype},`;
    throw invalidField(
      `${field}.datatype`,
      `Cannot read ${field}: its datatype is not the model's: value found is ${found(given['datatype'])}, ${allowed} is allowed`,
    );
  }
  const parameters = readParameters(given['parameters'], `${field}.parameters`);
  rejectParameter(parameters, 'shared_memory_region', field);
  const size = integerUpTo(`${field}.parameters.binary_data_size`, parameters['binary_data_size'], MAX_BODY_BYTES);
  if ((size === undefined) === (given['data'] === undefined)) {
    const both = size === undefined ? 'neither' : 'both';
    throw invalidField(field, `Cannot read ${field}: value found is ${both} of data and binary_data_size, exactly one is allowed`);
  }
  if (size === undefined) {
    return { name: declared.name, datatype, shape, bytes: bytesOfJson(given['data'], datatype, shape, `${field}.data`) };
  }
  if (size > reader.remaining) {
    throw invalidField(
      field,
      `Cannot read the binary data of ${field}: binary_data_size is more than the body has left: value found is ${size}, ${reader.remaining} is allowed`,
    );
  }
  const bytes = reader.take(size);
  checkBinary(bytes, datatype, shape, field);
  return { name: declared.name, datatype, shape, bytes };
}

function readShape(given: unknown, declared: TensorDescription, field: string): number[] {
  const isShape =
    Array.isArray(given) && given.length <= MAX_DIMENSIONS && given.every((dimension) => Number.isSafeInteger(dimension) && dimension >= 0);
  if (!isShape) {
    throw invalidField(
      `${field}.shape`,
      `Cannot read ${field}.shape: value found is ${found(given)}, an array of at most ${MAX_DIMENSIONS} integers from 0 is allowed`,
    );
  }
  const shape = given as number[];
  if (!fitsShape(shape, declared.shape)) {
    throw invalidField(
      `${field}.shape`,
      `Cannot read ${field}: its shape is not the model's: value found is [${shape.join(',')}], [${declared.shape.join(',')}] is allowed`,
    );
  }
  if (elementCount(shape) > MAX_BODY_BYTES) {
    throw invalidField(
      `${field}.shape`,
      `Cannot read ${field}: it has more elements than a body can hold: value found is [${shape.join(',')}], ${MAX_BODY_BYTES} elements are allowed`,
    );
  }
  return shape;
}

/**
 * Reads `outputs`; null for all of the model's.
 * @throws SetpointError invalid_field that names the output, or unsupported for classification and shared memory
 */
export function readOutputs(given: unknown, binaryByDefault: boolean, model: ModelDescription): RequestedOutput[] | null {
  if (given === undefined || (Array.isArray(given) && given.length === 0)) {
    for (const declared of model.outputs) {
      rejectJsonHalf(declared, binaryByDefault, 'outputs');
    }
    return null;
  }
  if (!Array.isArray(given) || given.length > MAX_TENSORS) {
    throw invalidField('outputs', `Cannot read outputs: value found is ${found(given)}, an array of at most ${MAX_TENSORS} is allowed`);
  }
  const names = new Set<string>();
  return given.map((one: unknown, index) => {
    const output = readOutput(one, `outputs[${index}]`, binaryByDefault, model);
    if (names.has(output.name)) {
      throw invalidField('outputs', `Cannot read outputs: ${found(output.name)} is there twice, once is allowed`);
    }
    names.add(output.name);
    return output;
  });
}

function readOutput(given: unknown, field: string, binaryByDefault: boolean, model: ModelDescription): RequestedOutput {
  if (!isObject(given)) {
    throw invalidField(field, `Cannot read ${field}: value found is ${found(given)}, an object is allowed`);
  }
  const declared = declaredBy(model.outputs, given['name'], field);
  const parameters = readParameters(given['parameters'], `${field}.parameters`);
  rejectParameter(parameters, 'shared_memory_region', field);
  rejectParameter(parameters, 'classification', field);
  const isBinary = flag(`${field}.parameters.binary_data`, parameters['binary_data']) ?? binaryByDefault;
  rejectJsonHalf(declared, isBinary, field);
  return { name: declared.name, isBinary };
}

function declaredBy(tensors: readonly TensorDescription[], name: unknown, field: string): TensorDescription {
  const declared = tensors.find((tensor) => tensor.name === name);
  if (declared === undefined) {
    const names = tensors.map((tensor) => found(tensor.name)).join(', ');
    throw invalidField(
      `${field}.name`,
      `Cannot read ${field}: the model has no such tensor: value found is ${found(name)}, ${names} is allowed`,
    );
  }
  return declared;
}

/** Refused before the model runs, so that no decision is made whose answer cannot be sent. */
function rejectJsonHalf(declared: TensorDescription, isBinary: boolean, field: string): void {
  if (declared.datatype === 'FP16' && !isBinary) {
    throw invalidField(
      field,
      `Cannot send output ${found(declared.name)} as JSON: JSON has no FP16, binary data is allowed`,
      'ask for it with "binary_data": true, or for all outputs with "binary_data_output": true',
    );
  }
}

function rejectParameter(parameters: Readonly<Record<string, unknown>>, name: string, field: string): void {
  if (parameters[name] !== undefined) {
    throw new SetpointError(
      'unsupported',
      `Cannot use ${name} on ${field}: this agent does not have it: value found is ${found(parameters[name])}`,
      {
        field: `${field}.parameters.${name}`,
        remedy: `send the request without ${name}`,
      },
    );
  }
}
