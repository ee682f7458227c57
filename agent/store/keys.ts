import { crc32c } from '../journal/crc32c.ts';
import type { DrainPosition, StoreHead } from './writer.ts';

/** Keys and small values of the sub-databases. Numbers in keys are big-endian, so that LMDB sorts by them. Pure. */

/** Entries that the sparse indices speak of with one key: a look-up reads at most this many. */
const BLOCK_ENTRIES = 1024;

export function blockOf(index: number): number {
  return Math.floor(index / BLOCK_ENTRIES);
}

const TWO_32 = 0x1_0000_0000;

/** Key of an entry and of its telemetry, and of a block. Written into `key` when one is given. */
export function numberKey(value: number, key = new Uint8Array(8)): Uint8Array {
  setBig53(key, key.length - 8, value);
  return key;
}

export function numberOfKey(key: Uint8Array, at = 0): number {
  return getBig32(key, at) * TWO_32 + getBig32(key, at + 4);
}

function setBig32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

function getBig32(bytes: Uint8Array, at: number): number {
  const high = ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
  return high * 0x1_0000 + (((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number));
}

function setBig53(bytes: Uint8Array, at: number, value: number): void {
  setBig32(bytes, at, Math.floor(value / TWO_32));
  setBig32(bytes, at + 4, value >>> 0);
}

/** Text, a zero, and the index. Texts that hold zeros stay apart by the length of the key. */
export function substrateKey(text: Uint8Array, index: number): Uint8Array {
  const key = new Uint8Array(text.length + 9);
  key.set(text);
  return numberKey(index, key);
}

/** The bundle's id and a block in which it answered. */
export function bundleKey(bundleId: Uint8Array, block: number): Uint8Array {
  const key = new Uint8Array(bundleId.length + 8);
  key.set(bundleId);
  return numberKey(block, key);
}

/** Stream, epoch, and the first sequence of a run of entries within a block. */
export function sequenceKey(stream: number, epoch: bigint, sequence: number): Uint8Array {
  const key = new Uint8Array(20);
  setBig32(key, 0, stream);
  new DataView(key.buffer).setBigUint64(4, epoch);
  return numberKey(sequence, key);
}

/** The epoch in a key of sequences. */
export function epochOfKey(key: Uint8Array): bigint {
  return new DataView(key.buffer, key.byteOffset).getBigUint64(4);
}

/** What a key of a sparse index stands for: these entries, and the lowest and highest sequence or time among its own. */
export interface Run {
  firstIndex: number;
  lastIndex: number;
  low: number;
  high: number;
  /** Entries that are its own; others may lie between. */
  count: number;
}

const RUN_BYTES = 40;

export function encodeRun(key: Uint8Array, run: Run): Uint8Array {
  const body = new Uint8Array(RUN_BYTES);
  for (const [at, value] of [run.firstIndex, run.lastIndex, run.low, run.high, run.count].entries()) setBig53(body, at * 8, value);
  return seal(key, body);
}

/** The run, or null when the value is damaged or another key's. */
export function decodeRun(key: Uint8Array, value: Uint8Array): Run | null {
  const body = unseal(key, value);
  if (body === null || body.length !== RUN_BYTES) return null;
  const at = (field: number): number => numberOfKey(body, field * 8);
  return { firstIndex: at(0), lastIndex: at(1), low: at(2), high: at(3), count: at(4) };
}

/** A value with its CRC-32C, which covers the key, too. */
export function seal(key: Uint8Array, body: Uint8Array): Uint8Array {
  const value = new Uint8Array(4 + body.length);
  value.set(body, 4);
  setBig32(value, 0, sealOf(key, body));
  return value;
}

/** The value without its CRC, or null when it is damaged or another key's. */
export function unseal(key: Uint8Array, value: Uint8Array): Uint8Array | null {
  if (value.length < 4) return null;
  const body = value.subarray(4);
  return getBig32(value, 0) === sealOf(key, body) ? body : null;
}

function sealOf(key: Uint8Array, body: Uint8Array): number {
  const bytes = new Uint8Array(key.length + body.length);
  bytes.set(key);
  bytes.set(body, key.length);
  return crc32c(bytes);
}

const encoder = new TextEncoder();

/** Keys of the meta sub-database. */
export const HEAD_KEY = encoder.encode('head');
export const ANCHOR_KEY = encoder.encode('anchor');
/** Index below which telemetry was dropped. */
export const TELEMETRY_KEY = encoder.encode('telemetry');
export const POSITION_PREFIX = encoder.encode('position/');
const STATE_PREFIX = 'state/';

export function positionKey(stream: number): Uint8Array {
  const key = new Uint8Array(POSITION_PREFIX.length + 4);
  key.set(POSITION_PREFIX);
  setBig32(key, POSITION_PREFIX.length, stream);
  return key;
}

export function stateKey(name: string): Uint8Array {
  return encoder.encode(STATE_PREFIX + name);
}

const HEAD_BYTES = 48;

export function encodeHead(key: Uint8Array, head: StoreHead): Uint8Array {
  const body = new Uint8Array(HEAD_BYTES);
  new DataView(body.buffer).setBigUint64(0, head.log);
  setBig53(body, 8, head.index);
  body.set(head.link, 16);
  return seal(key, body);
}

export function decodeHead(key: Uint8Array, value: Uint8Array): StoreHead | null {
  const body = unseal(key, value);
  if (body === null || body.length !== HEAD_BYTES) return null;
  const log = new DataView(body.buffer, body.byteOffset).getBigUint64(0);
  return { log, index: numberOfKey(body, 8), link: body.slice(16) };
}

const POSITION_BYTES = 36;

export function encodePosition(key: Uint8Array, position: DrainPosition): Uint8Array {
  const body = new Uint8Array(POSITION_BYTES);
  setBig32(body, 0, position.stream);
  new DataView(body.buffer).setBigUint64(4, position.epoch);
  setBig53(body, 12, position.segment);
  setBig53(body, 20, position.offset);
  setBig53(body, 28, position.lastSequence);
  return seal(key, body);
}

export function decodePosition(key: Uint8Array, value: Uint8Array): DrainPosition | null {
  const body = unseal(key, value);
  if (body === null || body.length !== POSITION_BYTES) return null;
  return {
    stream: getBig32(body, 0),
    epoch: new DataView(body.buffer, body.byteOffset).getBigUint64(4),
    segment: numberOfKey(body, 12),
    offset: numberOfKey(body, 20),
    lastSequence: numberOfKey(body, 28),
  };
}

export function encodeNumber(key: Uint8Array, value: number): Uint8Array {
  return seal(key, numberKey(value));
}

export function decodeNumber(key: Uint8Array, value: Uint8Array): number | null {
  const body = unseal(key, value);
  return body === null || body.length !== 8 ? null : numberOfKey(body);
}

/** Above every key that starts with `prefix`, below every other that is above it. A prefix of 0xff bytes only has no end. */
export function prefixEnd(prefix: Uint8Array): Uint8Array {
  const end = Uint8Array.from(prefix);
  for (let at = end.length - 1; at >= 0; at -= 1) {
    end[at] = (end[at] as number) + 1;
    if (end[at] !== 0) return end.subarray(0, at + 1);
  }
  return new Uint8Array(prefix.length + 1).fill(0xff);
}

export function isSame(one: Uint8Array, other: Uint8Array): boolean {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at += 1) if (one[at] !== other[at]) return false;
  return true;
}
