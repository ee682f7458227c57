import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { assert } from '../../protocol/errors.ts';
import type { Manifest } from '../../protocol/manifest.ts';
import { type ExternalFile, openSession, type OrtTensor, type OrtTensors, type Session } from './session.ts';
import { elementCount, toFeeds } from './tensor.ts';

/** Rows of one run. At 64 rows an 86-feature MLP costs 0.35 us a row against 8.3 us alone; more gains little. */
const MAX_BATCH_ROWS = 64;

/** Memory of one model's row buffer, elements: 64 rows of 1,024 features; longer vectors get fewer rows. */
const MAX_BATCH_ELEMENTS = 64 * 1024;

/** How the single input of a model takes feature vectors. */
export interface VectorInput {
  readonly name: string;
  readonly encoding: 'float32' | 'float64';
  readonly featureCount: number;
  /** Rows the model may take in one run. */
  readonly capacityRows: number;
}

/** The vector form of a model's input, or null when it takes named tensors only. */
export function vectorInput(manifest: Manifest, isBatchable: boolean): VectorInput | null {
  const [input, ...others] = manifest.inputs;
  if (input === undefined || others.length > 0) return null;
  if (input.datatype !== 'FP32' && input.datatype !== 'FP64') return null;
  const { shape } = input;
  const featureCount = shape.at(-1) ?? 0;
  const isVector = shape.length === 1 || (shape.length === 2 && (shape[0] === -1 || shape[0] === 1));
  if (!isVector || featureCount <= 0) return null;
  const canBatch = isBatchable && shape.length === 2 && shape[0] === -1;
  const capacityRows = canBatch ? Math.max(1, Math.min(MAX_BATCH_ROWS, Math.floor(MAX_BATCH_ELEMENTS / featureCount))) : 1;
  return { name: input.name, encoding: input.datatype === 'FP32' ? 'float32' : 'float64', featureCount, capacityRows };
}

/**
 * A vetted model, loaded on this OS thread. Rows are written into `rows` and run together; the outputs are fresh arrays.
 * Not reentrant: one run at a time, which is all that a thread can do.
 */
export class Model {
  readonly vector: VectorInput | null;
  /** Row-major rows of the vector input; null when the model takes tensors. */
  readonly rows: Float32Array | Float64Array | null;
  readonly #session: Session;
  readonly #dimensions: number;
  readonly #feedsByRows: OrtTensors[] = [];
  readonly #roleFetches: Readonly<Record<string, null>>;
  readonly #allFetches: Readonly<Record<string, null>>;

  constructor(manifest: Manifest, isBatchable: boolean, model: Uint8Array, externalData: readonly ExternalFile[]) {
    this.#session = openSession(model, externalData);
    this.vector = vectorInput(manifest, isBatchable);
    this.#dimensions = manifest.inputs[0]?.shape.length ?? 0;
    const { roles } = manifest;
    const wanted = [roles.prediction, roles.correction, roles.reference, roles.gsi].flatMap((role) =>
      role === undefined ? [] : [role.output],
    );
    this.#allFetches = fetchesOf(manifest.outputs.map((output) => output.name));
    this.#roleFetches = wanted.length === 0 ? this.#allFetches : fetchesOf(wanted);
    this.rows = this.vector === null ? null : allocateRows(this.vector);
  }

  /** Runs the first `count` rows; returns the role outputs, or every output when asked. */
  runRows(count: number, isEveryOutputWanted: boolean): OrtTensors {
    const feeds = this.#feedsByRows[count] ?? this.#makeFeeds(count);
    return this.#session.run(feeds, isEveryOutputWanted ? this.#allFetches : this.#roleFetches);
  }

  /** Runs named tensors as they came. @throws what toOrtTensor and ONNX Runtime throw when they do not fit */
  runTensors(tensors: readonly WireTensor[]): OrtTensors {
    return this.#session.run(toFeeds(tensors), this.#allFetches);
  }

  release(): void {
    this.#session.release();
  }

  #makeFeeds(count: number): OrtTensors {
    const { vector, rows } = this;
    assert(vector !== null && rows !== null && count >= 1 && count <= vector.capacityRows, `${count} rows do not fit the batch`);
    const data = rows.subarray(0, count * vector.featureCount);
    const dims = this.#dimensions === 1 ? [vector.featureCount] : [count, vector.featureCount];
    const tensor: OrtTensor = { type: vector.encoding, data, dims, location: 'cpu' };
    const feeds = { [vector.name]: tensor };
    this.#feedsByRows[count] = feeds;
    return feeds;
  }
}

function allocateRows(vector: VectorInput): Float32Array | Float64Array {
  const length = vector.capacityRows * vector.featureCount;
  return vector.encoding === 'float32' ? new Float32Array(length) : new Float64Array(length);
}

function fetchesOf(names: readonly string[]): Readonly<Record<string, null>> {
  return Object.fromEntries(names.map((name) => [name, null]));
}

/** Element `row` of an output as a number: the model's answer for that row. NaN when there is no such output or element. */
export function outputNumber(outputs: OrtTensors, name: string | undefined, row: number, rows: number): number {
  const tensor = name === undefined ? undefined : outputs[name];
  if (tensor === undefined || Array.isArray(tensor.data)) return Number.NaN;
  const { data } = tensor;
  const perRow = data.length / rows;
  const value = data[row * perRow];
  return value === undefined || perRow < 1 ? Number.NaN : Number(value);
}

/** Row `row` of an output whose first axis counts `rows` rows, as a tensor of one row; the tensor itself when it does not. */
export function outputRow(tensor: OrtTensor, row: number, rows: number): OrtTensor {
  if (rows === 1 || tensor.dims[0] !== rows) return tensor;
  const dims = [1, ...tensor.dims.slice(1)];
  const length = elementCount(dims);
  const data = tensor.data.slice(row * length, (row + 1) * length) as OrtTensor['data'];
  return { type: tensor.type, data, dims, location: 'cpu' };
}

/** Cuts a tensor whose first axis counts rows into tensors of one row each. Bytes are views. */
export function tensorRows(tensor: WireTensor, rows: number): WireTensor[] {
  const { datatype, bytes } = tensor;
  const shape = [1, ...tensor.shape.slice(1)];
  const elementsPerRow = elementCount(shape);
  let at = 0;
  return Array.from({ length: rows }, () => {
    const start = at;
    at = datatype === 'BYTES' ? stringsEnd(bytes, start, elementsPerRow) : start + elementsPerRow * DATATYPES[datatype].bytes;
    return { ...tensor, shape, bytes: bytes.subarray(start, at) };
  });
}

/** Where `count` BYTES elements from `start` on end: each is a uint32 length and that many bytes. */
function stringsEnd(bytes: Uint8Array, start: number, count: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = start;
  for (let element = 0; element < count; element++) at += 4 + view.getUint32(at, true);
  return at;
}
