import { sign, type SigningKey, type VerificationKey, verify } from '../../protocol/envelope.ts';
import { SetpointError } from '../../protocol/errors.ts';

/**
 * A checkpoint: the agent's signed statement of how far its log reached and what it held then. Whoever keeps one elsewhere
 * can tell later whether the log in front of him is the one that was vouched for. agent/audit/README.md has the format.
 */
const CHECKPOINT_TYPE = 'setpoint.checkpoint.v1';

/** Longest line, bytes: an agent id of 64 characters and 400 bytes around it, with room. */
const MAX_CHECKPOINT_BYTES = 4096;

/** The end of a log: its random number, the index of its last entry, and that entry's link. */
export interface LogHead {
  readonly log: bigint;
  readonly index: number;
  readonly link: Uint8Array;
}

export interface CheckpointOrigin {
  readonly agentId: string;
  readonly timeMillis: number;
}

export interface Checkpoint extends LogHead, CheckpointOrigin {
  readonly keyId: string;
  readonly signature: Uint8Array;
  /** The exact bytes that are signed. */
  readonly body: Uint8Array;
}

/** Control characters, line separators and lone surrogates: they would end a line of the body, or change on the way to UTF-8. */
const NOT_IN_A_LINE = /[\p{Cc}\p{Cs}\u2028\u2029]/u;
const BODY =
  /^setpoint\.checkpoint\.v1\n(?<agentId>.+)\n(?<log>[0-9a-f]{16})\n(?<index>[1-9]\d{0,15})\n(?<link>[0-9a-f]{64})\n(?<time>\S+)\n$/u;

/**
 * One line of JSON, with its line feed: {"body": text, "keyId": hexadecimal, "signature": base64}.
 * @throws SetpointError invalid_config for an agent id that cannot stand in a line
 */
export function createCheckpoint(head: LogHead, origin: CheckpointOrigin, key: SigningKey): Uint8Array {
  if (origin.agentId === '' || NOT_IN_A_LINE.test(origin.agentId)) {
    throw new SetpointError('invalid_config', `Cannot sign for agent ${JSON.stringify(origin.agentId)}: it is not one line of text`, {
      field: 'agentId',
      remedy: 'choose an agentId without control characters',
    });
  }
  const body = bodyOf(head, origin);
  const signature = Buffer.from(sign(CHECKPOINT_TYPE, Buffer.from(body), key)).toString('base64');
  return Buffer.from(lineOf(body, key.verification.keyId, signature));
}

/** What a line says; null for anything that createCheckpoint() could not have written. The signature is not checked. */
export function parseCheckpoint(line: Uint8Array): Checkpoint | null {
  if (line.byteLength > MAX_CHECKPOINT_BYTES) return null;
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(line);
    value = JSON.parse(text);
  } catch {
    // No UTF-8 or no JSON: the caller is told by null.
    return null;
  }
  if (typeof value !== 'object' || value === null) return null;
  const { body, keyId, signature } = value as Partial<Record<string, unknown>>;
  if (typeof body !== 'string' || typeof keyId !== 'string' || typeof signature !== 'string') return null;
  // One form only, so that a line is either this one or another one.
  if (lineOf(body, keyId, signature) !== (text.endsWith('\n') ? text : `${text}\n`)) return null;
  const signatureBytes = Buffer.from(signature, 'base64');
  if (!/^[0-9a-f]{64}$/.test(keyId) || signatureBytes.byteLength !== 64 || signatureBytes.toString('base64') !== signature) return null;
  const head = headOf(body);
  return head === null ? null : { ...head, keyId, signature: signatureBytes, body: Buffer.from(body) };
}

/** Whether this key signed these bytes. */
export function isSigned({ keyId, body, signature }: Checkpoint, key: VerificationKey): boolean {
  return keyId === key.keyId && verify(CHECKPOINT_TYPE, body, signature, key);
}

function lineOf(body: string, keyId: string, signature: string): string {
  return `${JSON.stringify({ body, keyId, signature })}\n`;
}

function bodyOf({ log, index, link }: LogHead, { agentId, timeMillis }: CheckpointOrigin): string {
  const time = new Date(timeMillis).toISOString();
  const lines = [CHECKPOINT_TYPE, agentId, log.toString(16).padStart(16, '0'), index, Buffer.from(link).toString('hex'), time];
  return lines.map((line) => `${line}\n`).join('');
}

function headOf(body: string): (LogHead & CheckpointOrigin) | null {
  const groups = BODY.exec(body)?.groups;
  if (groups === undefined) return null;
  const { agentId = '', log = '', index = '', link = '', time = '' } = groups;
  const timeMillis = Date.parse(time);
  if (!Number.isFinite(timeMillis) || !Number.isSafeInteger(Number(index)) || NOT_IN_A_LINE.test(agentId)) return null;
  const head = { agentId, log: BigInt(`0x${log}`), index: Number(index), link: Uint8Array.from(Buffer.from(link, 'hex')), timeMillis };
  return bodyOf(head, head) === body ? head : null;
}
