import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { assert } from '../../protocol/errors.ts';
import type { InferenceRequest } from './infer-request.ts';
import { jsonOfTensor } from './json-data.ts';
import { jsonTextReply } from './replies.ts';
import type { HttpReply, InferenceResult } from './services.ts';
import { elementCount, tensorText } from './shapes.ts';

/** Most UTF-8 bytes that one UTF-16 unit of a string can take. */
const UTF8_BYTES_PER_UNIT = 3;

const encoder = new TextEncoder();

/**
 * The answer to an inference request: the requested outputs in the requested order (all in the result's order when none
 * were named), each as JSON or binary as asked. An output that the result does not hold is left out: see InferenceResult.
 * @throws SetpointError unsupported where JSON cannot carry a value of an output
 */
export function inferenceReply(request: InferenceRequest, model: string, result: InferenceResult): HttpReply {
  const blobs: Uint8Array[] = [];
  const outputs = selected(request, result).map(({ tensor, isBinary }) => outputText(tensor, isBinary, blobs));
  const id = request.id === null ? '' : `,"id":${JSON.stringify(request.id)}`;
  const text = `{"model_name":${JSON.stringify(model)},"model_version":${JSON.stringify(result.version)}${id}${parametersText(result)},"outputs":[${outputs.join(',')}]}`;
  return blobs.length === 0 ? jsonTextReply(text) : binaryReply(text, blobs);
}

interface SelectedOutput {
  readonly tensor: WireTensor;
  readonly isBinary: boolean;
}

function selected(request: InferenceRequest, result: InferenceResult): readonly SelectedOutput[] {
  if (request.outputs === null) {
    return result.outputs.map((tensor) => ({ tensor, isBinary: request.binaryByDefault }));
  }
  return request.outputs.flatMap(({ name, isBinary }) => {
    const tensor = result.outputs.find((output) => output.name === name);
    return tensor === undefined ? [] : [{ tensor, isBinary }];
  });
}

function outputText(tensor: WireTensor, isBinary: boolean, blobs: Uint8Array[]): string {
  const { name, datatype, shape, bytes } = tensor;
  const isWhole = datatype === 'BYTES' || bytes.byteLength === elementCount(shape) * DATATYPES[datatype].bytes;
  assert(isWhole, `output ${name}: ${bytes.byteLength} bytes are no ${tensorText(tensor)}`);
  const head = `{"name":${JSON.stringify(name)},"shape":[${shape.join(',')}],"datatype":"${datatype}"`;
  if (!isBinary) {
    return `${head},"data":${jsonOfTensor(tensor)}}`;
  }
  blobs.push(bytes);
  return `${head},"parameters":{"binary_data_size":${bytes.byteLength}}}`;
}

/** Numbers that JSON does not have become their names ("NaN", "Infinity"), never null. */
function parametersText({ parameters }: InferenceResult): string {
  const entries = Object.entries(parameters).map(([name, value]) => {
    const isNamed = typeof value === 'number' && !Number.isFinite(value);
    return `${JSON.stringify(name)}:${JSON.stringify(isNamed ? String(value) : value)}`;
  });
  return entries.length === 0 ? '' : `,"parameters":{${entries.join(',')}}`;
}

function binaryReply(text: string, blobs: readonly Uint8Array[]): HttpReply {
  const largest = blobs.reduce((total, blob) => total + blob.byteLength, text.length * UTF8_BYTES_PER_UNIT);
  const body = new Uint8Array(largest);
  const { written } = encoder.encodeInto(text, body);
  let offset = written;
  for (const blob of blobs) {
    body.set(blob, offset);
    offset += blob.byteLength;
  }
  return {
    status: 200,
    headers: [
      ['Content-Type', 'application/octet-stream'],
      ['Inference-Header-Content-Length', String(written)],
    ],
    body: body.subarray(0, offset),
  };
}
