import type { Datatype, WireTensor } from '../../protocol/datatype.ts';
import { type Element, elementsOf, tensorOf } from './wire.ts';

/** A client of the Open Inference Protocol over REST, written from the protocol and not from the agent. */
export interface OipReply {
  readonly status: number;
  readonly outputs: readonly WireTensor[];
  readonly parameters: Readonly<Record<string, string | number>>;
  /** What the agent says is wrong; null with status 200. */
  readonly error: string | null;
}

export interface OipRequest {
  /** The agent's address, for example `http://127.0.0.1:7433`. */
  readonly http: string;
  readonly model: string;
  readonly inputs: readonly WireTensor[];
  readonly parameters?: Readonly<Record<string, string | number | boolean>>;
}

interface OipOutput {
  readonly name: string;
  readonly shape: readonly number[];
  readonly datatype: Datatype;
  readonly data?: readonly Element[];
  readonly parameters?: { readonly binary_data_size?: number };
}

interface OipBody {
  readonly error?: string;
  readonly parameters?: Readonly<Record<string, string | number>>;
  readonly outputs?: readonly OipOutput[];
}

/** Sends every input as JSON numbers and asks for JSON. What JSON has no number for becomes null, as JSON.stringify has it. */
export async function inferJson(request: OipRequest): Promise<OipReply> {
  const inputs = request.inputs.map((tensor) => ({ ...headOf(tensor), data: elementsOf(tensor) }));
  // JSON takes 64-bit integers as plain digits; these tests use none beyond 2^53.
  const body = JSON.stringify({ inputs, parameters: request.parameters ?? {} }, (_key, value: unknown) =>
    typeof value === 'bigint' ? Number(value) : value,
  );
  return await post(request, new TextEncoder().encode(body), {});
}

/** Sends every input as binary tensor data and asks for binary outputs. */
export async function inferBinary(request: OipRequest): Promise<OipReply> {
  const inputs = request.inputs.map((tensor) => ({ ...headOf(tensor), parameters: { binary_data_size: tensor.bytes.byteLength } }));
  const json = Buffer.from(JSON.stringify({ inputs, parameters: { ...request.parameters, binary_data_output: true } }));
  const body = Buffer.concat([json, ...request.inputs.map((tensor) => tensor.bytes)]);
  return await post(request, body, { 'Inference-Header-Content-Length': String(json.byteLength) });
}

function headOf({ name, shape, datatype }: WireTensor): Pick<OipOutput, 'name' | 'shape' | 'datatype'> {
  return { name, shape, datatype };
}

async function post({ http, model }: OipRequest, body: Uint8Array, headers: Readonly<Record<string, string>>): Promise<OipReply> {
  const response = await fetch(`${http}/v2/models/${model}/infer`, { method: 'POST', body: new Uint8Array(body), headers });
  const bytes = new Uint8Array(await response.arrayBuffer());
  const jsonLength = Number(response.headers.get('inference-header-content-length') ?? bytes.byteLength);
  const reply = JSON.parse(new TextDecoder().decode(bytes.subarray(0, jsonLength))) as OipBody;
  return {
    status: response.status,
    outputs: readOutputs(reply.outputs ?? [], bytes.subarray(jsonLength)),
    parameters: reply.parameters ?? {},
    error: reply.error ?? null,
  };
}

function readOutputs(outputs: readonly OipOutput[], blobs: Uint8Array): WireTensor[] {
  let at = 0;
  const tensors = outputs.map(({ name, shape, datatype, data, parameters }) => {
    const size = parameters?.binary_data_size;
    if (size === undefined) return tensorOf(name, datatype, shape, data ?? []);
    at += size;
    return { name, datatype, shape, bytes: blobs.slice(at - size, at) };
  });
  if (at !== blobs.byteLength) throw new Error(`the outputs take ${at} of the ${blobs.byteLength} bytes behind the JSON`);
  return tensors;
}

/** One slot as GET /v2/health/ready tells of it. */
export interface SlotReadiness {
  readonly slot: string;
  readonly state: 'ready' | 'loading' | 'refused' | 'suspended' | 'unloaded';
  readonly lane: 'inline' | 'heavy' | null;
  readonly reason: string | null;
}

/** The readiness answer of an agent: its status and its slots. */
export async function readinessOf(http: string): Promise<{ readonly status: number; readonly slots: readonly SlotReadiness[] }> {
  const response = await fetch(`${http}/v2/health/ready`);
  const body = (await response.json()) as { readonly detail: { readonly slots: readonly SlotReadiness[] } };
  return { status: response.status, slots: body.detail.slots };
}
