import { MAX_DEPTH, MAX_FRAME_BYTES, MAX_NODES, MAX_TEXT_BYTES } from './limits.ts';

/**
 * Reads a frame's bytes once, before anything is built from them, and refuses whatever protocol v1 does not use: maps,
 * extension types, the unused byte 0xc1, lengths beyond the end, trailing bytes, ill-formed UTF-8, 64-bit integers that
 * a float64 cannot hold, and more depth or values than limits.ts allows. A frame that passes is safe to hand to any
 * MessagePack decoder: it can neither build code, nor recurse deeply, nor ask for more memory than its own size warrants.
 */
export interface ScanFault {
  readonly code: 'malformed_frame' | 'frame_too_large';
  /** Completes "Cannot read the frame: ". */
  readonly reason: string;
}

const SCALAR = 0;
const TEXT = 1;
const BINARY = 2;
const ARRAY = 3;
const UNSIGNED_64 = 4;
const SIGNED_64 = 5;
const FORBIDDEN = 6;

/** What a first byte announces. */
const FAMILY = new Uint8Array(256);
/** Bytes after the first: a scalar's payload, or the length field of a text, binary or array. */
const EXTRA = new Uint8Array(256);

function announce(from: number, to: number, family: number, extra: number): void {
  FAMILY.fill(family, from, to + 1);
  EXTRA.fill(extra, from, to + 1);
}

announce(0x80, 0x8f, FORBIDDEN, 0);
announce(0x90, 0x9f, ARRAY, 0);
announce(0xa0, 0xbf, TEXT, 0);
announce(0xc1, 0xc1, FORBIDDEN, 0);
announce(0xc4, 0xc4, BINARY, 1);
announce(0xc5, 0xc5, BINARY, 2);
announce(0xc6, 0xc6, BINARY, 4);
announce(0xc7, 0xc9, FORBIDDEN, 0);
announce(0xca, 0xca, SCALAR, 4);
announce(0xcb, 0xcb, SCALAR, 8);
announce(0xcc, 0xcc, SCALAR, 1);
announce(0xcd, 0xcd, SCALAR, 2);
announce(0xce, 0xce, SCALAR, 4);
announce(0xcf, 0xcf, UNSIGNED_64, 8);
announce(0xd0, 0xd0, SCALAR, 1);
announce(0xd1, 0xd1, SCALAR, 2);
announce(0xd2, 0xd2, SCALAR, 4);
announce(0xd3, 0xd3, SIGNED_64, 8);
announce(0xd4, 0xd8, FORBIDDEN, 0);
announce(0xd9, 0xd9, TEXT, 1);
announce(0xda, 0xda, TEXT, 2);
announce(0xdb, 0xdb, TEXT, 4);
announce(0xdc, 0xdc, ARRAY, 2);
announce(0xdd, 0xdd, ARRAY, 4);
announce(0xde, 0xdf, FORBIDDEN, 0);

/** 2^53 / 2^32: the first high word that a float64 can no longer carry exactly. */
const HIGH_WORD_LIMIT = 0x20_0000;

/**
 * Values still to read in each open array; entry 0 stands for the frame itself, so an array at nesting level n uses
 * entry n. One for all scans: a scan neither waits nor calls out.
 */
const unread = new Uint32Array(MAX_DEPTH + 1);

function fault(reason: string): ScanFault {
  return { code: 'malformed_frame', reason };
}

function unsigned32(bytes: Uint8Array, at: number): number {
  const low = ((bytes[at + 1] as number) << 16) | ((bytes[at + 2] as number) << 8) | (bytes[at + 3] as number);
  return (bytes[at] as number) * 0x100_0000 + low;
}

/** The length that the first byte at `at` announces; its `EXTRA` bytes must exist. */
function announcedLength(bytes: Uint8Array, at: number, first: number, extra: number): number {
  if (extra === 0) return first < 0xa0 ? first & 0x0f : first & 0x1f;
  if (extra === 1) return bytes[at + 1] as number;
  if (extra === 2) return ((bytes[at + 1] as number) << 8) | (bytes[at + 2] as number);
  return unsigned32(bytes, at + 1);
}

/**
 * Finds the first reason to refuse `bytes`, or null when the frame is sound. Allocates nothing for a sound frame.
 * @param maxNodes most MessagePack values, containers included
 */
export function scanFrame(bytes: Uint8Array, maxNodes: number = MAX_NODES): ScanFault | null {
  const end = bytes.length;
  if (end > MAX_FRAME_BYTES) {
    return { code: 'frame_too_large', reason: `it has ${end} bytes, ${MAX_FRAME_BYTES} are allowed` };
  }
  if (end === 0) return fault('it is empty, a MessagePack array is wanted');
  if (FAMILY[bytes[0] as number] !== ARRAY) return fault('the top level is not an array');
  let at = 0;
  let depth = 0;
  let nodes = 1;
  unread[0] = 1;
  for (;;) {
    while (unread[depth] === 0) {
      if (depth === 0) return at === end ? null : fault(`${end - at} bytes follow its end`);
      depth -= 1;
    }
    unread[depth] = (unread[depth] as number) - 1;
    if (at >= end) return fault('it ends inside an array');
    const first = bytes[at] as number;
    if (first < 0x80 || first >= 0xe0) {
      at += 1;
      continue;
    }
    const next = scanValue(bytes, at, first);
    if (next < 0) return explain(bytes, at, next);
    if (FAMILY[first] === ARRAY) {
      const count = announcedLength(bytes, at, first, EXTRA[first] as number);
      nodes += count;
      if (count > end - next) return fault(`an array claims ${count} values, ${end - next} bytes are left`);
      if (nodes > maxNodes) return fault(`it has more than the ${maxNodes} values allowed`);
      depth += 1;
      if (depth > MAX_DEPTH) return fault(`its arrays are nested deeper than the ${MAX_DEPTH} levels allowed`);
      unread[depth] = count;
    }
    at = next;
  }
}

const ENDS_EARLY = -1;
const NOT_ALLOWED = -2;
const NOT_UTF8 = -3;
const TEXT_TOO_LONG = -4;
const INTEGER_TOO_LARGE = -5;

/** The position after the value at `at` (after the header, for an array), or what is wrong with it as a negative number. */
function scanValue(bytes: Uint8Array, at: number, first: number): number {
  const family = FAMILY[first] as number;
  const extra = EXTRA[first] as number;
  const next = at + 1 + extra;
  if (family === FORBIDDEN) return NOT_ALLOWED;
  if (next > bytes.length) return ENDS_EARLY;
  if (family === SCALAR || family === ARRAY) return next;
  if (family >= UNSIGNED_64) return fits53Bits(bytes, at, family) ? next : INTEGER_TOO_LARGE;
  const length = announcedLength(bytes, at, first, extra);
  if (length > bytes.length - next) return ENDS_EARLY;
  if (family === TEXT) {
    if (length > MAX_TEXT_BYTES) return TEXT_TOO_LONG;
    if (!isUtf8(bytes, next, next + length)) return NOT_UTF8;
  }
  return next + length;
}

function fits53Bits(bytes: Uint8Array, at: number, family: number): boolean {
  const high = unsigned32(bytes, at + 1);
  return high < HIGH_WORD_LIMIT || (family === SIGNED_64 && (high | 0) >= -HIGH_WORD_LIMIT && (high | 0) < 0);
}

function explain(bytes: Uint8Array, at: number, defect: number): ScanFault {
  switch (defect) {
    case NOT_ALLOWED:
      return fault(`byte ${at} is 0x${(bytes[at] as number).toString(16)}: maps, extension types and 0xc1 are not allowed`);
    case NOT_UTF8:
      return fault(`the string at byte ${at} is not UTF-8`);
    case TEXT_TOO_LONG:
      return fault(`the string at byte ${at} is longer than the ${MAX_TEXT_BYTES} bytes allowed`);
    case INTEGER_TOO_LARGE:
      return fault(`the integer at byte ${at} is outside -2^53 .. 2^53-1`);
    default:
      return fault(`it ends inside the value at byte ${at}`);
  }
}

/** Whether `bytes[from..to)` is strict UTF-8 (RFC 3629): no overlong form, no surrogate, nothing above U+10FFFF. */
export function isUtf8(bytes: Uint8Array, from: number, to: number): boolean {
  let at = from;
  while (at < to) {
    const lead = bytes[at] as number;
    if (lead < 0x80) {
      at += 1;
      continue;
    }
    const width = sequenceWidth(bytes, at, to, lead);
    if (width === 0) return false;
    at += width;
  }
  return true;
}

/** Bytes of the well-formed multi-byte sequence at `at`, or 0 (Unicode 16, table 3-7). */
function sequenceWidth(bytes: Uint8Array, at: number, to: number, lead: number): number {
  if (lead < 0xc2 || lead > 0xf4) return 0;
  const width = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  if (at + width > to) return 0;
  const second = bytes[at + 1] as number;
  const lowest = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const highest = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  if (second < lowest || second > highest) return 0;
  for (let index = at + 2; index < at + width; index += 1) {
    if (((bytes[index] as number) & 0xc0) !== 0x80) return 0;
  }
  return width;
}

/**
 * The request id of a frame that may be broken anywhere after it: position 1 of every kind from 3 up. Null when it
 * cannot be told or the kind has none.
 */
export function peekRequestId(bytes: Uint8Array): number | null {
  const first = bytes[0];
  if (first === undefined || FAMILY[first] !== ARRAY) return null;
  const kindAt = 1 + (EXTRA[first] as number);
  const kind = numberAt(bytes, kindAt);
  if (kind === null || kind < 3) return null;
  const id = numberAt(bytes, kindAt + 1 + (EXTRA[bytes[kindAt] as number] as number));
  return id !== null && Number.isSafeInteger(id) && id >= 0 ? id + 0 : null;
}

/** The number at `at` in whatever form it has, or null when there is none. */
function numberAt(bytes: Uint8Array, at: number): number | null {
  const first = bytes[at];
  if (first === undefined) return null;
  if (first < 0x80) return first;
  if (first < 0xca || first > 0xd3 || at + 1 + (EXTRA[first] as number) > bytes.length) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at + 1);
  switch (first) {
    case 0xca:
      return view.getFloat32(0);
    case 0xcb:
      return view.getFloat64(0);
    case 0xcc:
      return view.getUint8(0);
    case 0xcd:
      return view.getUint16(0);
    case 0xce:
      return view.getUint32(0);
    case 0xcf:
      return Number(view.getBigUint64(0));
    case 0xd0:
      return view.getInt8(0);
    case 0xd1:
      return view.getInt16(0);
    case 0xd2:
      return view.getInt32(0);
    default:
      return Number(view.getBigInt64(0));
  }
}
