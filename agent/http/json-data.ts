import { DATATYPES, type Datatype, type WireTensor } from '../../protocol/datatype.ts';
import { assert, SetpointError } from '../../protocol/errors.ts';
import { ELEMENTS, type FixedDatatype } from './elements.ts';
import { found, invalidField } from './replies.ts';
import { MAX_EXACT_JSON_LENGTH } from './services.ts';
import { elementCount } from './shapes.ts';

const USE_BINARY = 'send or ask for this tensor by the binary tensor data extension (binary_data_size, binary_data)';

/** Most UTF-8 bytes that one UTF-16 unit of a string can take. */
const UTF8_BYTES_PER_UNIT = 3;

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Integer digits that may exceed 2^53; uint64 has at most 20. */
const LONG_DIGITS = /\d{16}/;
const INTEGER_LITERAL = /^-?\d{1,20}$/;

/**
 * JSON.parse that gives integers beyond 2^53 as bigints, from their digits. Text without such digits, or too long for it,
 * is parsed plainly; the element codecs then refuse what was rounded.
 * @throws SyntaxError, and RangeError for deep nesting
 */
export function parseExactly(text: string): unknown {
  if (text.length > MAX_EXACT_JSON_LENGTH || !LONG_DIGITS.test(text)) {
    return JSON.parse(text);
  }
  return JSON.parse(text, (_key: string, value: unknown, context?: { readonly source?: string }) => {
    const source = context?.source;
    const isRounded = typeof value === 'number' && !Number.isSafeInteger(value) && source !== undefined && INTEGER_LITERAL.test(source);
    return isRounded ? BigInt(source) : value;
  });
}

/**
 * The wire bytes of a tensor's `data`, which is nested like its shape or flat in row-major order.
 * @param field how the sender would name the tensor, for example `inputs[0].data`
 * @throws SetpointError invalid_field: the first element that is wrong, or a length that does not fit the shape
 */
export function bytesOfJson(data: unknown, datatype: Datatype, shape: readonly number[], field: string): Uint8Array {
  if (datatype === 'FP16') {
    throw invalidField(field, `Cannot read ${field}: JSON has no FP16: value found is ${found(data)}, binary data is allowed`, USE_BINARY);
  }
  const elements = flatElements(data, shape, field);
  return datatype === 'BYTES' ? bytesOfStrings(elements, field) : bytesOfFixed(elements, datatype, field);
}

function bytesOfFixed(elements: readonly unknown[], datatype: FixedDatatype, field: string): Uint8Array {
  const { write, allowed } = ELEMENTS[datatype];
  const size = DATATYPES[datatype].bytes;
  const bytes = new Uint8Array(elements.length * size);
  const view = new DataView(bytes.buffer);
  for (let index = 0; index < elements.length; index++) {
    if (!write(view, index * size, elements[index])) {
      throw elementError(field, index, datatype, elements[index], allowed);
    }
  }
  return bytes;
}

function bytesOfStrings(elements: readonly unknown[], field: string): Uint8Array {
  let largest = 0;
  for (let index = 0; index < elements.length; index++) {
    const element = elements[index];
    if (typeof element !== 'string' || !element.isWellFormed()) {
      throw elementError(field, index, 'BYTES', element, 'a string of well-formed Unicode');
    }
    largest += 4 + element.length * UTF8_BYTES_PER_UNIT;
  }
  const bytes = new Uint8Array(largest);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const element of elements as readonly string[]) {
    const { written } = encoder.encodeInto(element, bytes.subarray(offset + 4));
    view.setUint32(offset, written, true);
    offset += 4 + written;
  }
  return bytes.subarray(0, offset);
}

function elementError(field: string, index: number, datatype: Datatype, value: unknown, allowed: string): SetpointError {
  return invalidField(
    field,
    `Cannot read ${field}: element ${index} is no ${datatype}: value found is ${found(value)}, ${allowed} is allowed`,
  );
}

function flatElements(data: unknown, shape: readonly number[], field: string): readonly unknown[] {
  if (!Array.isArray(data)) {
    throw invalidField(field, `Cannot read ${field}: value found is ${found(data)}, a flat or nested array is allowed`);
  }
  const count = elementCount(shape);
  if (shape.length > 1 && Array.isArray(data[0])) {
    const flat: unknown[] = [];
    flattenInto(flat, data, shape, 0, field);
    return flat;
  }
  if (data.length !== count) {
    throw invalidField(
      field,
      `Cannot read ${field}: its length does not fit shape [${shape.join(',')}]: value found is ${data.length}, ${count} is allowed`,
    );
  }
  return data;
}

/** Depth is bounded by the shape, which has at most MAX_DIMENSIONS axes. */
function flattenInto(flat: unknown[], data: unknown, shape: readonly number[], axis: number, field: string): void {
  if (!Array.isArray(data) || data.length !== shape[axis]) {
    throw invalidField(
      field,
      `Cannot read ${field}: its nesting does not fit shape [${shape.join(',')}] at axis ${axis}: value found is ${found(data)}, an array of ${shape[axis]} is allowed`,
    );
  }
  for (const part of data) {
    if (axis === shape.length - 1) {
      flat.push(part);
    } else {
      flattenInto(flat, part, shape, axis + 1, field);
    }
  }
}

/**
 * The `data` array of an output as JSON text, flat. 64-bit integers are written with all their digits.
 * @throws SetpointError unsupported for what JSON cannot carry: NaN, Infinity, FP16, BYTES that are not UTF-8
 */
export function jsonOfTensor(tensor: WireTensor): string {
  const { name, datatype, bytes } = tensor;
  if (datatype === 'FP16') {
    throw unsupported(name, 'JSON has no FP16');
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (datatype === 'BYTES') {
    return jsonOfStrings(name, bytes, view);
  }
  const { read } = ELEMENTS[datatype];
  const size = DATATYPES[datatype].bytes;
  const texts: string[] = [];
  for (let offset = 0; offset < bytes.byteLength; offset += size) {
    const element = read(view, offset);
    if (element === null) {
      throw unsupported(name, `JSON has no NaN and no Infinity, and element ${texts.length} is one`);
    }
    texts.push(element);
  }
  return `[${texts.join(',')}]`;
}

function jsonOfStrings(name: string, bytes: Uint8Array, view: DataView): string {
  const texts: string[] = [];
  let offset = 0;
  while (offset < bytes.byteLength) {
    const end = offset + 4 + view.getUint32(offset, true);
    assert(end <= bytes.byteLength, `output ${name} ends inside an element`);
    try {
      texts.push(JSON.stringify(decoder.decode(bytes.subarray(offset + 4, end))));
    } catch (cause) {
      throw unsupported(name, `JSON strings are Unicode, and element ${texts.length} is not UTF-8`, cause);
    }
    offset = end;
  }
  return `[${texts.join(',')}]`;
}

function unsupported(name: string, why: string, cause?: unknown): SetpointError {
  return new SetpointError('unsupported', `Cannot send output ${found(name)} as JSON: ${why}`, { field: name, remedy: USE_BINARY, cause });
}
