import { z } from 'zod';
import { DATATYPE_NAMES, DATATYPES, type Datatype, type WireTensor } from '../../protocol/datatype.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { MAX_DIMENSIONS, MAX_TENSORS } from '../../protocol/limits.ts';
import { elementCount } from '../infer/tensor.ts';
import { describeDifference } from './tensor-compare.ts';

/** Golden vectors: inputs of a model and the outputs it must give, kept in the bundle. Pure. */
const GOLDEN_FORMAT = 'setpoint.golden.v1';

/** 64 cases of a 1 MiB frame in base64 are 90 MB; real ones are a few kilobytes. */
export const GOLDEN_LIMITS = { bytes: 64 * 1024 * 1024, cases: 64 } as const;

export interface GoldenCase {
  readonly inputs: readonly WireTensor[];
  readonly outputs: readonly WireTensor[];
}

const tensorSchema = z.strictObject({
  name: z.string().min(1).max(255),
  datatype: z.enum(DATATYPE_NAMES as [Datatype, ...Datatype[]]),
  shape: z
    .array(
      z
        .int()
        .min(0)
        .max(2 ** 31),
    )
    .max(MAX_DIMENSIONS),
  data: z.base64(),
});

const goldenSchema = z.strictObject({
  format: z.literal(GOLDEN_FORMAT),
  cases: z
    .array(
      z.strictObject({
        inputs: z.array(tensorSchema).min(1).max(MAX_TENSORS),
        outputs: z.array(tensorSchema).max(MAX_TENSORS),
      }),
    )
    .min(1)
    .max(GOLDEN_LIMITS.cases),
});

/**
 * @param needsOutputs false for inputs whose outputs are still to be computed
 * @throws SetpointError invalid_bundle that names the key
 */
export function parseGolden(bytes: Uint8Array, source: string, needsOutputs = true): GoldenCase[] {
  if (bytes.byteLength > GOLDEN_LIMITS.bytes) fail(source, `it has ${bytes.byteLength} bytes, ${GOLDEN_LIMITS.bytes} are allowed`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (cause) {
    return fail(source, 'it is not UTF-8 JSON', cause);
  }
  const result = goldenSchema.safeParse(value);
  if (!result.success) {
    const issue = result.error.issues[0];
    return fail(source, `${issue?.path.join('.') || '(top level)'}: ${issue?.message ?? 'is wrong'}`);
  }
  const incomplete = result.data.cases.findIndex(({ outputs }) => outputs.length === 0);
  if (needsOutputs && incomplete !== -1) fail(source, `cases.${incomplete}.outputs: it is empty, 1 to ${MAX_TENSORS} are allowed`);
  return result.data.cases.map(({ inputs, outputs }) => ({
    inputs: inputs.map((tensor) => decodeTensor(tensor, source)),
    outputs: outputs.map((tensor) => decodeTensor(tensor, source)),
  }));
}

function decodeTensor(tensor: z.infer<typeof tensorSchema>, source: string): WireTensor {
  const { name, datatype, shape } = tensor;
  const bytes = new Uint8Array(Buffer.from(tensor.data, 'base64'));
  const elements = elementCount(shape);
  const expected = elements * DATATYPES[datatype].bytes;
  if (datatype !== 'BYTES' && bytes.byteLength !== expected) {
    fail(source, `tensor '${name}': ${datatype} [${shape.join(', ')}] takes ${expected} bytes, it has ${bytes.byteLength}`);
  }
  if (datatype === 'BYTES' && countStrings(bytes) !== elements) {
    fail(source, `tensor '${name}': its data is not ${elements} pairs of uint32 length and text`);
  }
  return { name, datatype, shape, bytes };
}

/** Number of (uint32 length, text) elements, or -1 where they do not fill the bytes exactly. */
function countStrings(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let count = 0;
  let at = 0;
  while (at + 4 <= bytes.byteLength) {
    at += 4 + view.getUint32(at, true);
    count += 1;
  }
  return at === bytes.byteLength ? count : -1;
}

/** The exact bytes of golden.json; the same cases always give the same bytes. */
export function formatGolden(cases: readonly GoldenCase[]): Uint8Array {
  const value = {
    format: GOLDEN_FORMAT,
    cases: cases.map(({ inputs, outputs }) => ({ inputs: inputs.map(encodeTensor), outputs: outputs.map(encodeTensor) })),
  };
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}

function encodeTensor({ name, datatype, shape, bytes }: WireTensor): z.infer<typeof tensorSchema> {
  return { name, datatype, shape: [...shape], data: Buffer.from(bytes).toString('base64') };
}

/**
 * Compares two tensors: shapes, types, integers, bools and strings exactly, floats by |got - want| <= atol + rtol * |want|.
 * NaN equals NaN, and an infinity only itself. Returns what differs, or null.
 */
export function compareTensors(got: WireTensor, want: WireTensor, rtol: number, atol: number): string | null {
  return describeDifference(got, want, rtol, atol).message;
}

function fail(source: string, why: string, cause?: unknown): never {
  throw new SetpointError('invalid_bundle', `Cannot read ${source}: ${why}`, {
    field: source,
    ...(cause === undefined ? {} : { cause }),
  });
}
