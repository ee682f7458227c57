import { crc32c } from './crc32c.ts';
import { GAP_REASONS, type GapReason } from './gap.ts';
import { getUint53, setUint53 } from './record.ts';

/**
 * The bytes of a mark: what must be known of a stream even when its segments can take nothing more. agent/journal/README.md
 * is the specification.
 */
export const MARK_SLOT_BYTES = 512;

/** The slots lie this far apart, so that no block of a disk holds both and a torn write spoils one of them at most. */
export const MARK_SLOT_DISTANCE = 4096;
export const MARK_FILE_BYTES = 2 * MARK_SLOT_DISTANCE;

const MAGIC = new TextEncoder().encode('SPMARK01');
const STATES = ['open', 'clean', 'failing'] as const;
const DURABILITIES = ['process', 'power'] as const;
const BOOT_ID_AT = 52;
const MAX_BOOT_ID_BYTES = 64;
const DETAIL_AT = BOOT_ID_AT + MAX_BOOT_ID_BYTES;
const CRC_AT = MARK_SLOT_BYTES - 4;

/** `process`: an answer leaves when the operating system has its record; `power`: when the disk has it. */
export type Durability = (typeof DURABILITIES)[number];

export interface Mark {
  readonly stream: number;
  /** `clean`: closed, everything is synced. `failing`: numbers are given whose records are not in a file. */
  readonly state: (typeof STATES)[number];
  /** The highest number given when this was written. */
  readonly given: number;
  /** The lowest number that is not safe in a file, as far as is known: given + 1 unless it is failing. */
  readonly from: number;
  readonly durability: Durability;
  /** Why it is failing; null unless it is. */
  readonly reason: GapReason | null;
  /** Since when it is failing, microseconds since 1970; 0 unless it is. */
  readonly sinceMicros: number;
  /** Tells a run of the machine from any other; empty when the machine does not say. */
  readonly bootId: string;
  readonly detail: string;
}

/** Writes a slot into `bytes`, at least MARK_SLOT_BYTES of them. What does not fit of the texts is cut off. */
export function encodeMark(bytes: Uint8Array, counter: number, mark: Mark): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, MARK_SLOT_BYTES);
  const encoder = new TextEncoder();
  bytes.fill(0, 0, MARK_SLOT_BYTES);
  bytes.set(MAGIC);
  setUint53(view, 8, counter);
  setUint53(view, 16, mark.given);
  setUint53(view, 24, mark.from);
  setUint53(view, 32, mark.sinceMicros);
  view.setUint32(40, mark.stream, true);
  view.setUint8(44, STATES.indexOf(mark.state));
  view.setUint8(45, DURABILITIES.indexOf(mark.durability));
  view.setUint8(46, mark.reason === null ? 0 : GAP_REASONS.indexOf(mark.reason) + 1);
  view.setUint8(47, encoder.encodeInto(mark.bootId, bytes.subarray(BOOT_ID_AT, DETAIL_AT)).written);
  view.setUint16(48, encoder.encodeInto(mark.detail, bytes.subarray(DETAIL_AT, CRC_AT)).written, true);
  view.setUint32(CRC_AT, crc32c(bytes, 0, CRC_AT), true);
}

/** What a slot says, or null when it was never written, or not whole. */
export function decodeMark(bytes: Uint8Array): { readonly counter: number; readonly mark: Mark } | null {
  if (bytes.byteLength < MARK_SLOT_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, MARK_SLOT_BYTES);
  if (MAGIC.some((byte, at) => bytes[at] !== byte) || view.getUint32(CRC_AT, true) !== crc32c(bytes, 0, CRC_AT)) return null;
  const state = STATES[view.getUint8(44)];
  const durability = DURABILITIES[view.getUint8(45)];
  if (state === undefined || durability === undefined) return null;
  const decoder = new TextDecoder();
  const mark = {
    stream: view.getUint32(40, true),
    state,
    given: getUint53(view, 16),
    from: getUint53(view, 24),
    durability,
    reason: GAP_REASONS[view.getUint8(46) - 1] ?? null,
    sinceMicros: getUint53(view, 32),
    bootId: decoder.decode(bytes.subarray(BOOT_ID_AT, BOOT_ID_AT + view.getUint8(47))),
    detail: decoder.decode(bytes.subarray(DETAIL_AT, DETAIL_AT + view.getUint16(48, true))),
  };
  return { counter: getUint53(view, 8), mark };
}
