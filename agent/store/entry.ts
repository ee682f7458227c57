import { arrayLength, contentAt, elementEnd, elementStart } from '../../protocol/frame-parts.ts';
import { FRAME_KINDS } from '../../protocol/frames.ts';
import { crc32c, crc32cOfWords } from '../journal/crc32c.ts';
import { RECORD_KINDS, type RecordBuffer } from '../journal/record.ts';

/**
 * The bytes of an entry of the store. A journal record is split in two: what an audit needs for years stays in the entry;
 * the features and the outputs, which are most of the bytes, go to a telemetry value of their own that can be dropped
 * without touching the entry or its chain. agent/store/README.md is the specification.
 */

/** Kind of the store's own entries, beside the record kinds 1 .. 4 of the journal. */
export const EVENT_KIND = 5;

/** Stream of an entry that belongs to none. */
const NO_STREAM = 0xffff_ffff;

const DIGEST_BYTES = 32;
const CRC_AT = 32;
const KIND_AT = 36;
const INDEX_AT = 40;
const EPOCH_AT = 48;
const SEQUENCE_AT = 56;
const TIME_AT = 64;
const STREAM_AT = 72;
const LENGTHS_AT = 76;
const REQUEST_CUT_AT = 84;
const REPLY_CUT_AT = 92;
const DIGEST_AT = 100;
const ENTRY_HEADER_BYTES = 132;

const TWO_32 = 0x1_0000_0000;

/** Bytes [start, start + length) of a frame that are kept apart; length 0: none. */
export interface Cut {
  readonly start: number;
  readonly length: number;
}

const NO_CUT: Cut = { start: 0, length: 0 };

/** What an entry says beside its frames. */
export interface EntryHeader {
  readonly kind: number;
  readonly index: number;
  /** Null for the store's own events. */
  readonly stream: number | null;
  readonly epoch: bigint;
  readonly sequence: number;
  readonly timeMicros: number;
}

export interface Entry extends EntryHeader {
  readonly requestCut: Cut;
  readonly replyCut: Cut;
  /** SHA-256 of the telemetry value; null when nothing was cut. */
  readonly telemetryDigest: Uint8Array | null;
  /** The frames without what was cut out of them. Views of the entry. */
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
}

/** Positions of the predict frame and of its encodings, which are 0, 4 or 8: bytes of one feature, 0 for tensors. */
const PREDICT = { length: 9, encoding: 6, features: 7 } as const;
const DECISION = { length: 18, bundle: 14, outputs: 17 } as const;
/** The context stands at the same place in predict and observe, the substrate first in it. */
const CONTEXT = 3;
const NIL = 0xc0;

/**
 * The features element of a predict frame. Only where the frame has the usual form (kind and encoding in one byte), as
 * every client of this repository writes it; any other frame is kept whole.
 */
export function featuresCut(kind: number, request: Uint8Array): Cut {
  if (kind !== RECORD_KINDS.decision || arrayLength(request, 0) !== PREDICT.length) return NO_CUT;
  if (request[elementStart(request, 0)] !== FRAME_KINDS.predict) return NO_CUT;
  const encodingAt = elementStart(request, PREDICT.encoding);
  const encoding = request[encodingAt];
  if (encoding !== 0 && encoding !== 4 && encoding !== 8) return NO_CUT;
  const start = encodingAt + 1;
  const isTensors = arrayLength(request, start) >= 0;
  if (isTensors !== (encoding === 0) || (!isTensors && !isBinary(request[start]))) return NO_CUT;
  const end = elementEnd(request, start);
  return end < 0 || elementEnd(request, end) !== request.length ? NO_CUT : { start, length: end - start };
}

function isBinary(first: number | undefined): boolean {
  return first === 0xc4 || first === 0xc5 || first === 0xc6;
}

/** The outputs element of a decision frame, which is its last one; nothing when there are no outputs. */
export function outputsCut(kind: number, reply: Uint8Array): Cut {
  if (kind !== RECORD_KINDS.decision || arrayLength(reply, 0) !== DECISION.length) return NO_CUT;
  if (reply[elementStart(reply, 0)] !== FRAME_KINDS.decision) return NO_CUT;
  const start = elementStart(reply, DECISION.outputs);
  if (start < 0 || reply[start] === NIL || elementEnd(reply, start) !== reply.length) return NO_CUT;
  return { start, length: reply.length - start };
}

/** The UTF-8 of the substrate that a record is about. The request may be whole or cut: the place is before any cut. */
export function substrateOf(kind: number, request: Uint8Array): Uint8Array | null {
  if (kind !== RECORD_KINDS.decision && kind !== RECORD_KINDS.observation) return null;
  const contextAt = elementStart(request, CONTEXT);
  if (contextAt < 0 || arrayLength(request, contextAt) !== 13) return null;
  const text = contentAt(request, contextAt + 1);
  return text === null || text.length > MAX_SUBSTRATE_BYTES ? null : text;
}

/** Longest substrate id, bytes of UTF-8: what a frame may hold (MAX_STRING_BYTES), and well below LMDB's longest key. */
const MAX_SUBSTRATE_BYTES = 255;

/** The id of the bundle that a decision came from. The reply may be whole or cut. */
export function bundleOf(kind: number, reply: Uint8Array): Uint8Array | null {
  if (kind !== RECORD_KINDS.decision) return null;
  const at = elementStart(reply, DECISION.bundle);
  const id = at < 0 ? null : contentAt(reply, at);
  return id === null || id.length !== DIGEST_BYTES ? null : id;
}

export function entryLength(request: Uint8Array, requestCut: Cut, reply: Uint8Array, replyCut: Cut): number {
  return ENTRY_HEADER_BYTES + request.length - requestCut.length + reply.length - replyCut.length;
}

/**
 * Writes an entry at `at`, a multiple of 4, and returns its end. The link is left for chain.ts to fill in. The caller has
 * made sure of entryLength(...) bytes.
 * @param digest of the telemetry value, null when both cuts are empty
 */
export function encodeEntry(
  { bytes, view, words }: RecordBuffer,
  at: number,
  header: EntryHeader,
  request: Uint8Array,
  requestCut: Cut,
  reply: Uint8Array,
  replyCut: Cut,
  digest: Uint8Array | null,
): number {
  view.setUint32(at + KIND_AT, header.kind, true);
  setUint53(view, at + INDEX_AT, header.index);
  view.setBigUint64(at + EPOCH_AT, header.epoch, true);
  setUint53(view, at + SEQUENCE_AT, header.sequence);
  setUint53(view, at + TIME_AT, header.timeMicros);
  view.setUint32(at + STREAM_AT, header.stream ?? NO_STREAM, true);
  view.setUint32(at + LENGTHS_AT, request.length - requestCut.length, true);
  view.setUint32(at + LENGTHS_AT + 4, reply.length - replyCut.length, true);
  setCut(view, at + REQUEST_CUT_AT, requestCut);
  setCut(view, at + REPLY_CUT_AT, replyCut);
  if (digest === null) bytes.fill(0, at + DIGEST_AT, at + ENTRY_HEADER_BYTES);
  else bytes.set(digest, at + DIGEST_AT);
  const replyAt = setWithoutCut(bytes, at + ENTRY_HEADER_BYTES, request, requestCut);
  const end = setWithoutCut(bytes, replyAt, reply, replyCut);
  view.setUint32(at + CRC_AT, crc32cOfWords(words, (at + KIND_AT) / 4, bytes, at + KIND_AT, end), true);
  return end;
}

function setCut(view: DataView, at: number, { start, length }: Cut): void {
  view.setUint32(at, start, true);
  view.setUint32(at + 4, length, true);
}

function getCut(view: DataView, at: number): Cut {
  return { start: view.getUint32(at, true), length: view.getUint32(at + 4, true) };
}

function setWithoutCut(target: Uint8Array, at: number, frame: Uint8Array, { start, length }: Cut): number {
  if (length === 0) {
    target.set(frame, at);
    return at + frame.length;
  }
  target.set(frame.subarray(0, start), at);
  target.set(frame.subarray(start + length), at + start);
  return at + frame.length - length;
}

/** The entry in `bytes`, or null when they are not exactly one, or damaged. The link is not looked at. */
export function decodeEntry(bytes: Uint8Array): Entry | null {
  if (bytes.length < ENTRY_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, ENTRY_HEADER_BYTES);
  const requestLength = view.getUint32(LENGTHS_AT, true);
  const replyAt = ENTRY_HEADER_BYTES + requestLength;
  if (replyAt + view.getUint32(LENGTHS_AT + 4, true) !== bytes.length) return null;
  if (view.getUint32(CRC_AT, true) !== crc32c(bytes, KIND_AT)) return null;
  const requestCut = getCut(view, REQUEST_CUT_AT);
  const replyCut = getCut(view, REPLY_CUT_AT);
  const stream = view.getUint32(STREAM_AT, true);
  return {
    kind: view.getUint32(KIND_AT, true),
    index: getUint53(view, INDEX_AT),
    stream: stream === NO_STREAM ? null : stream,
    epoch: view.getBigUint64(EPOCH_AT, true),
    sequence: getUint53(view, SEQUENCE_AT),
    timeMicros: getUint53(view, TIME_AT),
    requestCut,
    replyCut,
    telemetryDigest: requestCut.length + replyCut.length === 0 ? null : bytes.subarray(DIGEST_AT, ENTRY_HEADER_BYTES),
    request: bytes.subarray(ENTRY_HEADER_BYTES, replyAt),
    reply: bytes.subarray(replyAt),
  };
}

/** What is cut out of a record: its telemetry value. */
export function telemetryOf(request: Uint8Array, requestCut: Cut, reply: Uint8Array, replyCut: Cut): Uint8Array {
  const telemetry = new Uint8Array(requestCut.length + replyCut.length);
  telemetry.set(request.subarray(requestCut.start, requestCut.start + requestCut.length));
  telemetry.set(reply.subarray(replyCut.start, replyCut.start + replyCut.length), requestCut.length);
  return telemetry;
}

/** A frame without what is cut out of it: what the entry holds. */
export function withoutCut(frame: Uint8Array, cut: Cut): Uint8Array {
  const left = new Uint8Array(frame.length - cut.length);
  setWithoutCut(left, 0, frame, cut);
  return left;
}

/** The frames as they were, byte for byte. `telemetry` has been checked against the digest. */
export function wholeFrames(entry: Entry, telemetry: Uint8Array): { request: Uint8Array; reply: Uint8Array } {
  const { requestCut, replyCut } = entry;
  return {
    request: joined(entry.request, requestCut, telemetry.subarray(0, requestCut.length)),
    reply: joined(entry.reply, replyCut, telemetry.subarray(requestCut.length)),
  };
}

/**
 * The frames with placeholders for what was dropped, such that they can still be decoded: one feature that is no number,
 * in the frame's encoding (for named tensors: one scalar FP32 tensor named "dropped"), and no outputs.
 */
export function framesWithoutTelemetry(entry: Entry): { request: Uint8Array; reply: Uint8Array } {
  const { requestCut, replyCut } = entry;
  const placeholder = PLACEHOLDERS[entry.request[requestCut.start - 1] ?? 0] ?? new Uint8Array(0);
  return {
    request: requestCut.length === 0 ? entry.request : joined(entry.request, requestCut, placeholder),
    reply: replyCut.length === 0 ? entry.reply : joined(entry.reply, replyCut, NO_OUTPUTS),
  };
}

const NO_OUTPUTS = Uint8Array.of(NIL);

/** By the encoding, which stands before the cut: binary with one NaN, or [["dropped", "FP32", [], binary with one NaN]]. */
const PLACEHOLDERS: Readonly<Record<number, Uint8Array>> = {
  4: Uint8Array.of(0xc4, 4, 0, 0, 0xc0, 0x7f),
  8: Uint8Array.of(0xc4, 8, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f),
  0: Uint8Array.of(0x91, 0x94, 0xa7, ...asciiOf('dropped'), 0xa4, ...asciiOf('FP32'), 0x90, 0xc4, 4, 0, 0, 0xc0, 0x7f),
};

function asciiOf(text: string): number[] {
  return Array.from({ length: text.length }, (_, at) => text.charCodeAt(at));
}

function joined(frame: Uint8Array, cut: Cut, inserted: Uint8Array): Uint8Array {
  if (inserted.length === 0) return frame;
  const whole = new Uint8Array(frame.length + inserted.length);
  whole.set(frame.subarray(0, cut.start));
  whole.set(inserted, cut.start);
  whole.set(frame.subarray(cut.start), cut.start + inserted.length);
  return whole;
}

function setUint53(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, Math.floor(value / TWO_32), true);
}

function getUint53(view: DataView, at: number): number {
  return view.getUint32(at, true) + view.getUint32(at + 4, true) * TWO_32;
}
