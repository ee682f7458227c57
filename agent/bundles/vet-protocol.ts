import { z } from 'zod';
import { DATATYPE_NAMES, type Datatype } from '../../protocol/datatype.ts';
import { assert } from '../../protocol/errors.ts';
import { vetMeasurementSchema } from './vet-report.ts';

/**
 * What the parent and the vet process say to each other: one request on standard input (uint32 length of a JSON header, the
 * header, then the files it names one after the other), and lines of JSON on standard output. Pure.
 */
const VET_STAGES = ['start', 'load', 'declaration', 'golden', 'extremes', 'batch', 'timing', 'run'] as const;
export type VetStage = (typeof VET_STAGES)[number];

const tensorsSchema = z.array(
  z.strictObject({ name: z.string(), datatype: z.enum(DATATYPE_NAMES as [Datatype, ...Datatype[]]), shape: z.array(z.int()) }),
);

const headerSchema = z.strictObject({
  /** `vet` checks and measures; `run` computes the outputs of the cases. */
  mode: z.enum(['vet', 'run']),
  inputs: tensorsSchema,
  outputs: tensorsSchema,
  rtol: z.number(),
  atol: z.number(),
  isUnbounded: z.boolean(),
  inlineBudgetMicros: z.number(),
  /** The model, the golden cases, then the external files. */
  modelBytes: z.int(),
  goldenBytes: z.int(),
  external: z.array(z.strictObject({ path: z.string(), bytes: z.int() })),
});

export type VetHeader = Omit<z.infer<typeof headerSchema>, 'modelBytes' | 'goldenBytes' | 'external'>;

export interface VetRequest {
  readonly header: VetHeader;
  readonly model: Uint8Array;
  readonly golden: Uint8Array;
  readonly external: readonly { readonly path: string; readonly data: Uint8Array }[];
}

/** The request as a list of chunks to write, without joining the large ones. */
export function encodeVetRequest({ header, model, golden, external }: VetRequest): Uint8Array[] {
  const text = JSON.stringify({
    ...header,
    modelBytes: model.byteLength,
    goldenBytes: golden.byteLength,
    external: external.map(({ path, data }) => ({ path, bytes: data.byteLength })),
  });
  const json = new TextEncoder().encode(text);
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, json.byteLength, true);
  return [length, json, model, golden, ...external.map(({ data }) => data)];
}

/** Asserts: both ends are ours. */
export function decodeVetRequest(bytes: Uint8Array): VetRequest {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 4 + view.getUint32(0, true);
  const { modelBytes, goldenBytes, external, ...header } = headerSchema.parse(JSON.parse(new TextDecoder().decode(bytes.subarray(4, at))));
  const take = (length: number): Uint8Array => {
    at += length;
    return bytes.subarray(at - length, at);
  };
  const request = {
    header,
    model: take(modelBytes),
    golden: take(goldenBytes),
    external: external.map((file) => ({ path: file.path, data: take(file.bytes) })),
  };
  assert(at === bytes.byteLength, 'the request is as long as its header says');
  return request;
}

const messageSchema = z.union([
  z.strictObject({ stage: z.enum(VET_STAGES), detail: z.string().max(255).optional() }),
  z.strictObject({ refused: z.string().max(2048) }),
  z.strictObject({ measured: vetMeasurementSchema }),
  /** golden.json with the outputs filled in. */
  z.strictObject({ golden: z.string() }),
]);

export type VetMessage = z.infer<typeof messageSchema>;

/** Null for a line that is none: the process may have been overwritten by the model it ran. */
export function parseVetMessage(line: string): VetMessage | null {
  try {
    return messageSchema.parse(JSON.parse(line));
  } catch {
    return null;
  }
}
