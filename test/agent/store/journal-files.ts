import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeGap, type Gap } from '../../../agent/journal/gap.ts';
import {
  encodeFileHeader,
  encodeRecord,
  RECORD_KINDS,
  RecordBuffer,
  type RecordKind,
  recordStride,
} from '../../../agent/journal/record.ts';

const EPOCH = 0xabcdn;

export interface TestRecord {
  readonly sequence: number;
  readonly kind?: RecordKind;
  readonly request?: Uint8Array;
  readonly reply?: Uint8Array;
  readonly timeMicros?: number;
}

/** Path of a segment of a data directory. */
export function segmentPath(dataDirectory: string, stream: number, first: number): string {
  return join(dataDirectory, 'journal', `stream-${stream}-${String(first).padStart(16, '0')}.journal`);
}

export function recordBytes({ sequence, kind = RECORD_KINDS.alert, request, reply, timeMicros }: TestRecord): Uint8Array {
  const said = request ?? new TextEncoder().encode(JSON.stringify({ alert: 'test', slot: null, message: `number ${sequence}` }));
  const answer = reply ?? new Uint8Array(0);
  const buffer = new RecordBuffer(recordStride(said, answer));
  encodeRecord(buffer, 0, sequence, kind, timeMicros ?? 1_795_000_000_000_000 + sequence, said, answer);
  return buffer.bytes;
}

/** Begins a segment with these records. Returns its path. */
export function writeSegment(
  dataDirectory: string,
  stream: number,
  first: number,
  records: readonly TestRecord[],
  epoch: bigint = EPOCH,
): string {
  mkdirSync(join(dataDirectory, 'journal'), { recursive: true });
  const path = segmentPath(dataDirectory, stream, first);
  writeFileSync(path, encodeFileHeader({ stream, epoch, firstSequence: first }));
  appendRecords(path, records);
  return path;
}

export function appendRecords(path: string, records: readonly TestRecord[]): void {
  appendFileSync(path, Buffer.concat(records.map(recordBytes)));
}

/** Records with these numbers, both included. */
export function numbers(from: number, to: number, kind: RecordKind = RECORD_KINDS.alert): TestRecord[] {
  return Array.from({ length: to - from + 1 }, (_, at) => ({ sequence: from + at, kind }));
}

export function gapOf(from: number, to: number, reason: Gap['reason'] = 'disk_full'): TestRecord {
  const request = encodeGap({ from, to, count: to - from + 1, isExact: true, reason, detail: 'test' });
  return { sequence: to, kind: RECORD_KINDS.gap, request };
}
