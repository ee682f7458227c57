import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { checkBinary } from './binary-data.ts';
import { parseExactly } from './json-data.ts';
import { isWithinDepth } from './json-depth.ts';
import { found, invalidField, isObject } from './replies.ts';
import { NO_PARAMETERS, readRequestParameters, type RequestParameters } from './request-parameters.ts';
import { readInputs, readOutputs, type RequestedOutput } from './request-tensors.ts';
import { MAX_BODY_BYTES, MAX_JSON_BYTES, MAX_JSON_DEPTH, type ModelDescription } from './services.ts';
import { tensorText } from './shapes.ts';

/** A checked inference request: everything the agent needs to run it and the door to format the answer. */
export interface InferenceRequest extends RequestParameters {
  /** Echoed in the answer. */
  readonly id: string | null;
  readonly inputs: readonly WireTensor[];
  /** Null for all of the model's. */
  readonly outputs: readonly RequestedOutput[] | null;
}

type JsonObject = Readonly<Record<string, unknown>>;

const EMPTY = new Uint8Array(0);
const decoder = new TextDecoder('utf-8', { fatal: true });

/**
 * Parses the body of an infer request.
 * @param headerLength value of Inference-Header-Content-Length: '' when the whole body is JSON, '0' when it is one raw tensor
 * @throws SetpointError invalid_field, frame_too_large or unsupported
 */
export function parseInferenceRequest(body: Uint8Array, headerLength: string, model: ModelDescription): InferenceRequest {
  rejectLarger('body', body.byteLength, MAX_BODY_BYTES, 'send fewer rows in one request');
  if (headerLength === '') {
    return parseParts(body, EMPTY, model);
  }
  const length = readHeaderLength(headerLength, body.byteLength);
  return length === 0 ? rawRequest(body, model) : parseParts(body.subarray(0, length), body.subarray(length), model);
}

/**
 * The JSON object that a body holds; a body without any bytes is {}.
 * @throws SetpointError invalid_field or frame_too_large
 */
export function parseOptionalObject(body: Uint8Array): JsonObject {
  return body.byteLength === 0 ? {} : parseObject(jsonText(body), JSON.parse);
}

function parseParts(json: Uint8Array, blobs: Uint8Array, model: ModelDescription): InferenceRequest {
  const text = jsonText(json);
  const request = parseObject(text, JSON.parse);
  const { id = null } = request;
  if (id !== null && typeof id !== 'string') {
    throw invalidField('id', `Cannot read id: value found is ${found(id)}, a string is allowed`);
  }
  const parameters = readRequestParameters(request['parameters']);
  const isInteger64 = model.inputs.some(({ datatype }) => datatype === 'INT64' || datatype === 'UINT64');
  const exact = isInteger64 ? parseObject(text, parseExactly) : request;
  const inputs = readInputs(exact['inputs'], blobs, model);
  return { ...parameters, id, inputs, outputs: readOutputs(request['outputs'], parameters.binaryByDefault, model) };
}

/** The text of a JSON part, checked for what would make it costly to parse. */
function jsonText(json: Uint8Array): string {
  rejectLarger('JSON part of the body', json.byteLength, MAX_JSON_BYTES, 'send large tensors by the binary tensor data extension');
  if (!isWithinDepth(json, MAX_JSON_DEPTH)) {
    throw invalidField('body', `Cannot read the body: it is nested too deeply, ${MAX_JSON_DEPTH} levels are allowed`);
  }
  try {
    return decoder.decode(json);
  } catch (cause) {
    throw notJson(cause);
  }
}

function parseObject(text: string, parse: (text: string) => unknown): JsonObject {
  let value: unknown;
  try {
    value = parse(text);
  } catch (cause) {
    throw notJson(cause);
  }
  if (!isObject(value)) {
    throw invalidField('body', `Cannot read the body: value found is ${found(value)}, a JSON object is allowed`);
  }
  return value;
}

function notJson(cause: unknown): SetpointError {
  return new SetpointError('invalid_field', `Cannot read the body: it is not UTF-8 JSON: ${messageOf(cause)}`, {
    field: 'body',
    remedy: 'send one JSON object; with binary data give its length in Inference-Header-Content-Length',
    cause,
  });
}

function readHeaderLength(text: string, bodyBytes: number): number {
  const length = /^\d{1,9}$/.test(text) ? Number(text) : NaN;
  if (!(length <= bodyBytes)) {
    throw invalidField(
      'Inference-Header-Content-Length',
      `Cannot read Inference-Header-Content-Length: value found is ${found(text)}, an integer from 0 to the body's ${bodyBytes} bytes is allowed`,
    );
  }
  return length;
}

/** The whole body is the model's only input; what the shape leaves open follows from the body's size. */
function rawRequest(body: Uint8Array, model: ModelDescription): InferenceRequest {
  const [declared, ...others] = model.inputs;
  if (declared === undefined || others.length > 0) {
    throw invalidField(
      'inputs',
      `Cannot read a raw body: the model has another number of inputs: value found is ${model.inputs.length}, 1 is allowed`,
    );
  }
  const { name, datatype } = declared;
  const shape = rawShape(declared.shape, datatype === 'BYTES' ? null : body.byteLength / DATATYPES[datatype].bytes);
  if (shape === null) {
    throw invalidField(
      'body',
      `Cannot read a raw body: its size does not tell the shape of the input: value found is ${body.byteLength} bytes, ${tensorText(declared)} is allowed`,
      'send the tensor with its shape in a JSON part',
    );
  }
  const bytes = datatype === 'BYTES' ? withLengthPrefix(body) : body;
  checkBinary(bytes, datatype, shape, 'the raw body');
  return { ...NO_PARAMETERS, binaryByDefault: true, id: null, inputs: [{ name, datatype, shape, bytes }], outputs: null };
}

/**
 * The shape of a raw tensor of `count` elements, null when it cannot be told. One free dimension takes what the count
 * gives; of two, the first is the batch and is 1. A raw BYTES tensor (count null) is one element, every free dimension is 1.
 */
function rawShape(declared: readonly number[], count: number | null): number[] | null {
  const shape = [...declared];
  const free = shape.flatMap((dimension, axis) => (dimension === -1 ? [axis] : []));
  if (count === null) {
    return shape.map((dimension) => (dimension === -1 ? 1 : dimension));
  }
  if (free.length === 2 && free[0] === 0) {
    shape[0] = 1;
    free.shift();
  }
  const axis = free[0];
  if (axis === undefined || free.length > 1) {
    return axis === undefined ? shape : null;
  }
  const fixed = shape.reduce((product, dimension) => (dimension === -1 ? product : product * dimension), 1);
  shape[axis] = count / fixed;
  return Number.isSafeInteger(shape[axis]) ? shape : null;
}

function withLengthPrefix(text: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(4 + text.byteLength);
  new DataView(bytes.buffer).setUint32(0, text.byteLength, true);
  bytes.set(text, 4);
  return bytes;
}

function rejectLarger(part: string, bytes: number, largest: number, remedy: string): void {
  if (bytes > largest) {
    throw new SetpointError('frame_too_large', `Cannot read the ${part}: value found is ${bytes} bytes, ${largest} are allowed`, {
      field: 'body',
      remedy,
    });
  }
}
