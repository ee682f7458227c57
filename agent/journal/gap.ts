import { encodeRecord, RECORD_KINDS, RecordBuffer, recordStride } from './record.ts';

/** Why numbers of a stream have no record. The order is part of the mark's format: append only. */
export const GAP_REASONS = [
  'disk_full',
  'write_failed',
  'sync_failed',
  'journal_full',
  'power_cut',
  'journal_damaged',
  'store_damaged',
] as const;
export type GapReason = (typeof GAP_REASONS)[number];

/** What a gap record says: the numbers from .. to have no record of their own. */
export interface Gap {
  readonly from: number;
  readonly to: number;
  /** Records that are lost: exactly this many, or at most. */
  readonly count: number;
  /** False: some of the numbers may never have been given, or their records may be there all the same. */
  readonly isExact: boolean;
  readonly reason: GapReason;
  /** For a person. */
  readonly detail: string;
}

/** What an alert record says. */
export interface Alert {
  readonly alert: string;
  readonly slot: string | null;
  readonly message: string;
}

const EMPTY = new Uint8Array(0);

/** The request part of an alert record. */
export function encodeAlert({ alert, slot, message }: Alert): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ alert, slot, message }));
}

/** The request part of a gap record. */
export function encodeGap({ from, to, count, isExact, reason, detail }: Gap): Uint8Array {
  return new TextEncoder().encode(JSON.stringify({ from, to, count, isExact, reason, detail }));
}

/** What the request part of a gap record says; null when it is no such thing. */
export function decodeGap(request: Uint8Array): Gap | null {
  let body: Partial<Record<keyof Gap, unknown>> | null;
  try {
    body = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(request)) as typeof body;
  } catch {
    // No JSON, so no gap: the caller is told by null.
    return null;
  }
  if (typeof body !== 'object' || body === null) return null;
  const { from, to, count, isExact, reason, detail } = body;
  if (!isNumber(from) || !isNumber(to) || !isNumber(count) || from < 1 || to < from || count > to - from + 1) return null;
  if (typeof isExact !== 'boolean' || typeof detail !== 'string' || !isGapReason(reason)) return null;
  return { from, to, count, isExact, reason, detail };
}

function isNumber(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function isGapReason(value: unknown): value is GapReason {
  return GAP_REASONS.some((reason) => reason === value);
}

/** The whole gap record. Its own number is `to`: it stands in the place of the last one that is lost. */
export function gapRecord(gap: Gap, timeMicros: number): Uint8Array {
  const request = encodeGap(gap);
  const buffer = new RecordBuffer(recordStride(request, EMPTY));
  encodeRecord(buffer, 0, gap.to, RECORD_KINDS.gap, timeMicros, request, EMPTY);
  return buffer.bytes;
}
