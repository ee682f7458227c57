import { crc32c, crc32cOfWords } from './crc32c.ts';

/**
 * The bytes of a journal: a file header and records, little-endian. agent/journal/README.md is the specification.
 * A record holds the exact request frame and the exact reply frame, so nothing that was said can be lost in translation.
 */
export const FILE_HEADER_BYTES = 32;
export const RECORD_HEADER_BYTES = 32;
export const RECORD_KINDS = { decision: 1, observation: 2, alert: 3, gap: 4 } as const;
export type RecordKind = (typeof RECORD_KINDS)[keyof typeof RECORD_KINDS];

/** Largest record: a request frame of 1 MiB and a reply of up to 63 MiB of outputs. A larger size is damage. */
export const MAX_RECORD_BYTES = 64 * 1024 * 1024;

const MAGIC = new TextEncoder().encode('SPJOURN1');

export interface JournalRecord {
  readonly sequence: number;
  readonly kind: RecordKind;
  readonly timeMicros: number;
  /** The request frame as it arrived. A view of the read buffer. */
  readonly request: Uint8Array;
  /** The reply frame as it was sent; empty for an observation. */
  readonly reply: Uint8Array;
  /** Bytes from this record to the next: the record and its padding. */
  readonly stride: number;
}

/** What the head of a journal file says. */
export interface FileHeader {
  readonly stream: number;
  /** Random; tells a new journal from an older one. */
  readonly epoch: bigint;
  /** No record of this file has a lower number: what a file without records goes on from. */
  readonly firstSequence: number;
}

/** Header: magic 8, epoch u64, first sequence u64, stream u32, CRC-32C u32 over everything before it. */
export function encodeFileHeader({ stream, epoch, firstSequence }: FileHeader): Uint8Array {
  const bytes = new Uint8Array(FILE_HEADER_BYTES);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setBigUint64(8, epoch, true);
  setUint53(view, 16, firstSequence);
  view.setUint32(24, stream, true);
  view.setUint32(28, crc32c(bytes, 0, 28), true);
  return bytes;
}

/** The header of a journal file, or null when these bytes do not start one. */
export function decodeFileHeader(bytes: Uint8Array): FileHeader | null {
  if (bytes.byteLength < FILE_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, FILE_HEADER_BYTES);
  if (MAGIC.some((byte, at) => bytes[at] !== byte) || view.getUint32(28, true) !== crc32c(bytes, 0, 28)) return null;
  return { epoch: view.getBigUint64(8, true), firstSequence: getUint53(view, 16), stream: view.getUint32(24, true) };
}

/** Memory that records are written into, with the views that writing needs. Its length is a multiple of 4. */
export class RecordBuffer {
  readonly bytes: Uint8Array;
  readonly view: DataView;
  readonly words: Int32Array;

  constructor(length: number) {
    this.bytes = new Uint8Array(padded(length));
    this.view = new DataView(this.bytes.buffer);
    this.words = new Int32Array(this.bytes.buffer);
  }
}

/**
 * Writes a record at `at`, a multiple of 4, and returns where the next one goes. The caller has made sure of
 * recordStride(...) bytes of room.
 * Header: size u32 (without padding), CRC-32C u32 over everything after it, sequence u64, time u64 (microseconds),
 * kind u16, size check u16, request length u32; then the request, the reply, and zeros up to a multiple of 4.
 */
export function encodeRecord(
  buffer: RecordBuffer,
  at: number,
  sequence: number,
  kind: RecordKind,
  timeMicros: number,
  request: Uint8Array,
  reply: Uint8Array,
): number {
  const { bytes, view } = buffer;
  const requestAt = at + RECORD_HEADER_BYTES;
  const end = requestAt + request.byteLength + reply.byteLength;
  view.setUint32(at, end - at, true);
  setUint53(view, at + 8, sequence);
  setUint53(view, at + 16, timeMicros);
  view.setUint16(at + 24, kind, true);
  view.setUint16(at + 26, sizeCheck(end - at), true);
  view.setUint32(at + 28, request.byteLength, true);
  bytes.set(request, requestAt);
  bytes.set(reply, requestAt + request.byteLength);
  view.setUint32(at + 4, crc32cOfWords(buffer.words, (at + 8) / 4, bytes, at + 8, end), true);
  const next = at + padded(end - at);
  for (let pad = end; pad < next; pad++) bytes[pad] = 0;
  return next;
}

/**
 * Tells a damaged size from a record that a crash cut short, which the CRC cannot while its end is missing: taking the first
 * for the second would cut off every record behind it. Folding finds any change of one byte; the complement, zeros.
 */
function sizeCheck(size: number): number {
  return ~(size ^ (size >>> 16)) & 0xffff;
}

function padded(size: number): number {
  return Math.ceil(size / 4) * 4;
}

/** Bytes that a record and its padding take. */
export function recordStride(request: Uint8Array, reply: Uint8Array): number {
  return padded(RECORD_HEADER_BYTES + request.byteLength + reply.byteLength);
}

function isRecordKind(kind: number): kind is RecordKind {
  return kind >= RECORD_KINDS.decision && kind <= RECORD_KINDS.gap;
}

/** The record at `at`; 'incomplete' when the bytes end inside it, 'damaged' when they are not a record. */
export function decodeRecord(bytes: Uint8Array, at: number): JournalRecord | 'incomplete' | 'damaged' {
  const left = bytes.byteLength - at;
  if (left < RECORD_HEADER_BYTES) return 'incomplete';
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, RECORD_HEADER_BYTES);
  const size = view.getUint32(0, true);
  const kind = view.getUint16(24, true);
  const requestBytes = view.getUint32(28, true);
  if (view.getUint16(26, true) !== sizeCheck(size) || size > MAX_RECORD_BYTES || size < RECORD_HEADER_BYTES) return 'damaged';
  if (requestBytes > size - RECORD_HEADER_BYTES) return 'damaged';
  if (!isRecordKind(kind)) return 'damaged';
  const stride = padded(size);
  if (left < stride) return 'incomplete';
  if (view.getUint32(4, true) !== crc32c(bytes, at + 8, at + size)) return 'damaged';
  const requestAt = at + RECORD_HEADER_BYTES;
  return {
    sequence: getUint53(view, 8),
    kind,
    timeMicros: getUint53(view, 16),
    request: bytes.subarray(requestAt, requestAt + requestBytes),
    reply: bytes.subarray(requestAt + requestBytes, at + size),
    stride,
  };
}

const TWO_32 = 2 ** 32;

export function setUint53(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

export function getUint53(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;
}
