import { DATATYPES, type Datatype, type WireTensor } from '../../protocol/datatype.ts';
import { SetpointError } from '../../protocol/errors.ts';
import type { BundleSpec } from '../../protocol/manifest.ts';
import { elementCount } from '../infer/tensor.ts';
import { GOLDEN_LIMITS } from './golden.ts';
import { encodeTexts, isFloat } from './vet-inputs.ts';

/** Golden inputs where no test data are given: from rows of a CSV file, or made up inside the features' valid ranges. Pure. */
export interface RowInput {
  readonly name: string;
  readonly datatype: Datatype;
  readonly shape: readonly number[];
}

type Feature = NonNullable<BundleSpec['features']>[number];

/** Largest made-up tensor: an image of 4096 x 4096. */
const MAX_ELEMENTS = 2 ** 24;

/** The input that takes the feature vector: the first float one. */
export function featureInput<Input extends RowInput>(inputs: readonly Input[]): Input | null {
  return inputs.find(({ datatype, shape }) => isFloat(datatype) && shape.length > 0) ?? null;
}

/**
 * Made-up rows, the same ones every time. Row r, element j lies at the fraction {(r+1) phi + j psi} of its range, where phi
 * and psi are the inverse golden and plastic ratios: spread evenly, no two elements alike.
 */
export function generateRows(inputs: readonly RowInput[], features: readonly Feature[], count: number): WireTensor[][] {
  const vector = featureInput(inputs);
  return Array.from({ length: count }, (_, row) =>
    inputs.map((input) => {
      const numbers = Array.from({ length: elementsOf(input) }, (_element, index) => {
        const fraction = ((row + 1) * 0.6180339887498949 + index * 0.7548776662466927) % 1;
        if (!isFloat(input.datatype)) return (row + index) % 2;
        const [low, high] = rangeOf(input === vector ? features[index % Math.max(1, features.length)] : undefined);
        return low + (high - low) * (0.05 + 0.9 * fraction);
      });
      return tensorOf(input, numbers);
    }),
  );
}

/** A feature's valid range; one unit wide where one end is open, 0 to 1 where both are. */
function rangeOf(feature: Feature | undefined): [number, number] {
  const { min, max } = feature ?? {};
  if (min !== undefined && max !== undefined) return [min, max];
  if (min !== undefined) return [min, min + 1];
  return max === undefined ? [0, 1] : [max - 1, max];
}

/**
 * Rows of a CSV file with a header line; columns are found by name: the features for the feature input, and for every other
 * input its own name (`name[i]` for its elements where it has several). Other columns are ignored.
 * @throws SetpointError invalid_bundle that names line and column
 */
export function parseRows(text: string, inputs: readonly RowInput[], features: readonly Feature[], source: string): WireTensor[][] {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== '');
  const header = cellsOf(lines[0] ?? '');
  const rows = lines.slice(1);
  if (rows.length === 0 || rows.length > GOLDEN_LIMITS.cases)
    fail(source, `it has ${rows.length} rows, 1 to ${GOLDEN_LIMITS.cases} are allowed`);
  const columns = inputs.map((input) => columnsOf(input, inputs, features).map((name) => columnAt(header, name, source)));
  return rows.map((line, row) => {
    const cells = cellsOf(line);
    return inputs.map((input, index) =>
      readTensor(input, columns[index] ?? [], cells, (column, why) =>
        fail(source, `line ${row + 2}, column ${header[column] ?? column}: ${why}`),
      ),
    );
  });
}

function columnsOf(input: RowInput, inputs: readonly RowInput[], features: readonly Feature[]): string[] {
  const count = elementsOf(input);
  if (input === featureInput(inputs) && features.length === count) return features.map(({ name }) => name);
  return count === 1 ? [input.name] : Array.from({ length: count }, (_, index) => `${input.name}[${index}]`);
}

function columnAt(header: readonly string[], name: string, source: string): number {
  const at = header.indexOf(name);
  return at === -1 ? fail(source, `it has no column '${name}'`) : at;
}

function cellsOf(line: string): string[] {
  return [...line.matchAll(/("(?:[^"]|"")*"|[^,]*)(?:,|$)/g)]
    .map(([, cell = '']) => (cell.startsWith('"') ? cell.slice(1, -1).replaceAll('""', '"') : cell.trim()))
    .slice(0, line.endsWith(',') ? undefined : -1);
}

function readTensor(
  input: RowInput,
  columns: readonly number[],
  cells: readonly string[],
  refuse: (column: number, why: string) => never,
): WireTensor {
  const texts = columns.map((column) => cells[column] ?? refuse(column, 'it is missing'));
  if (input.datatype === 'BYTES') return { name: input.name, datatype: 'BYTES', shape: fixedShape(input), bytes: encodeTexts(texts) };
  const numbers = texts.map((text, index) => {
    const number = text === '' ? Number.NaN : Number(text);
    const isFine = Number.isFinite(number) && (isFloat(input.datatype) || Number.isSafeInteger(number));
    return isFine ? number : refuse(columns[index] ?? 0, `${JSON.stringify(text)} is not a number that ${input.datatype} holds`);
  });
  return tensorOf(input, numbers);
}

function fixedShape({ shape }: RowInput): number[] {
  return shape.map((length) => (length === -1 ? 1 : length));
}

function elementsOf(input: RowInput): number {
  const count = elementCount(fixedShape(input));
  if (count > MAX_ELEMENTS) fail(`input '${input.name}'`, `it has ${count} elements, ${MAX_ELEMENTS} are allowed for made-up rows`);
  return count;
}

function tensorOf(input: RowInput, numbers: readonly number[]): WireTensor {
  const { name, datatype } = input;
  const bytes = datatype === 'BYTES' ? encodeTexts(numbers.map((number) => (number === 0 ? 'a' : 'b'))) : encodeNumbers(datatype, numbers);
  return { name, datatype, shape: fixedShape(input), bytes };
}

/** Little-endian elements of any fixed-width type. */
export function encodeNumbers(datatype: Exclude<Datatype, 'BYTES'>, numbers: readonly number[]): Uint8Array {
  const width = DATATYPES[datatype].bytes;
  const bytes = new Uint8Array(numbers.length * width);
  const view = new DataView(bytes.buffer);
  for (const [index, number] of numbers.entries()) {
    const at = index * width;
    if (datatype === 'FP32') view.setFloat32(at, number, true);
    else if (datatype === 'FP64') view.setFloat64(at, number, true);
    else if (datatype === 'FP16') view.setUint16(at, numberToFloat16(number), true);
    else if (width === 8) view.setBigInt64(at, BigInt(number), true);
    else if (width === 4) view.setInt32(at, number, true);
    else if (width === 2) view.setInt16(at, number, true);
    else view.setInt8(at, number);
  }
  return bytes;
}

/** Nearest IEEE 754 binary16, ties to even; infinity beyond 65504. */
export function numberToFloat16(number: number): number {
  if (Number.isNaN(number)) return 0x7e00;
  const sign = number < 0 || Object.is(number, -0) ? 0x8000 : 0;
  const size = Math.abs(number);
  if (size >= 65_520) return sign | 0x7c00;
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const scaled = size / 2 ** (exponent - 10);
  const floor = Math.floor(scaled);
  const half = scaled - floor;
  const rounded = half > 0.5 || (half === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
  // A normal number carries its leading 1 as 1024, which adds itself to the biased exponent.
  return sign | (rounded < 1024 ? rounded : ((exponent + 14) << 10) + rounded);
}

function fail(source: string, why: string): never {
  throw new SetpointError('invalid_bundle', `Cannot take rows from ${source}: ${why}`, {
    field: source,
    remedy: 'correct the file, or give ONNX test data with --golden',
  });
}
