import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { scanJournal, scanWithoutHeader } from '../../../agent/journal/reader.ts';
import {
  encodeFileHeader,
  encodeRecord,
  FILE_HEADER_BYTES,
  RECORD_KINDS,
  RecordBuffer,
  recordStride,
} from '../../../agent/journal/record.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { GOLDEN_FILE, GOLDEN_HEADER, GOLDEN_RECORDS, hexOf } from './golden-journal.ts';

interface Seen {
  readonly sequence: number;
  readonly request: string;
  readonly reply: string;
  readonly offset: number;
}

function read(path: string, fromOffset = 0): { seen: Seen[]; scan: ReturnType<typeof scanJournal> } {
  const seen: Seen[] = [];
  const scan = scanJournal(path, fromOffset, ({ sequence, request, reply }, offset) =>
    seen.push({ sequence, request: hexOf(request), reply: hexOf(reply), offset }),
  );
  return { seen, scan };
}

function fileOf(bytes: Uint8Array): string {
  const path = join(temporaryDirectory(), 'stream-3.journal');
  writeFileSync(path, bytes);
  return path;
}

function record(sequence: number, requestBytes: number): Uint8Array {
  const request = new Uint8Array(requestBytes).fill(sequence);
  const buffer = new RecordBuffer(recordStride(request, new Uint8Array(0)));
  encodeRecord(buffer, 0, sequence, RECORD_KINDS.decision, sequence, request, new Uint8Array(0));
  return buffer.bytes;
}

/** Where the golden records start, and where the last one ends. */
const offsets = GOLDEN_RECORDS.reduce((all, { hex }) => [...all, all.at(-1)! + hex.length / 2], [FILE_HEADER_BYTES]);

describe('scanJournal()', () => {
  test('reads the golden file', () => {
    const { seen, scan } = read(fileOf(GOLDEN_FILE));
    expect(seen).toEqual(
      GOLDEN_RECORDS.map(({ sequence, request, reply }, at) => ({
        sequence,
        request: hexOf(request),
        reply: hexOf(reply),
        offset: offsets[at],
      })),
    );
    const { hex: _hex, ...header } = GOLDEN_HEADER;
    expect(scan).toEqual({ ...header, endOffset: GOLDEN_FILE.byteLength, lastSequence: 4_294_967_310, tail: 'clean' });
  });

  test.each([0, 1, 2, 3, 4, 5])('goes on from the offset of record %i', (at) => {
    const { seen, scan } = read(fileOf(GOLDEN_FILE), offsets[at]);
    expect(seen.map(({ sequence }) => sequence)).toEqual(GOLDEN_RECORDS.slice(at).map(({ sequence }) => sequence));
    expect(scan).toMatchObject({ endOffset: GOLDEN_FILE.byteLength, tail: 'clean', lastSequence: at === 5 ? 0 : 4_294_967_310 });
  });

  test('goes on from where it stopped when the file has grown', () => {
    const path = fileOf(GOLDEN_FILE);
    const { endOffset } = read(path).scan!;
    appendFileSync(path, record(4_294_967_311, 5));
    expect(read(path, endOffset).seen).toMatchObject([{ sequence: 4_294_967_311, offset: endOffset }]);
  });

  test('stops at the last whole record, wherever the file is cut', () => {
    for (let length = FILE_HEADER_BYTES; length <= GOLDEN_FILE.byteLength; length++) {
      const { seen, scan } = read(fileOf(GOLDEN_FILE.subarray(0, length)));
      const whole = offsets.filter((offset) => offset <= length).length - 1;
      const isClean = offsets.includes(length);
      expect([seen.length, scan?.endOffset, scan?.tail], `${length} bytes`).toEqual([whole, offsets[whole], isClean ? 'clean' : 'torn']);
    }
  });

  test('gives every whole record before a damaged byte, and none behind it', () => {
    for (let at = FILE_HEADER_BYTES; at < GOLDEN_FILE.byteLength; at++) {
      const bytes = GOLDEN_FILE.slice();
      bytes[at]! ^= 0x40;
      const { seen, scan } = read(fileOf(bytes));
      const hit = offsets.findLastIndex((offset) => offset <= at);
      const isPadding = at >= offsets[hit]! + new DataView(GOLDEN_FILE.buffer, GOLDEN_FILE.byteOffset).getUint32(offsets[hit]!, true);
      expect([seen.length, scan?.tail], `byte ${at}`).toEqual(isPadding ? [5, 'clean'] : [hit, 'damaged']);
      if (!isPadding) expect(scan?.endOffset).toBe(offsets[hit]);
    }
  });

  test('ends behind the record that its visitor wants to be the last', () => {
    const seen: number[] = [];
    const scan = scanJournal(fileOf(GOLDEN_FILE), 0, ({ sequence }) => seen.push(sequence) < 2);
    expect([seen.length, scan?.endOffset, scan?.lastSequence]).toEqual([2, offsets[2], seen[1]]);
  });

  test.each([
    ['an empty file', new Uint8Array(0)],
    ['a header cut short', GOLDEN_FILE.subarray(0, 31)],
    ['another kind of file', new TextEncoder().encode('{"not": "a journal"}'.padEnd(64))],
  ])('is null for %s', (_name, bytes) => {
    expect(read(fileOf(bytes))).toEqual({ seen: [], scan: null });
  });

  test('reads records that lie across its chunks, and records larger than a chunk', () => {
    const sizes = [1_000_000, 60_000, 9_000_000, 3, 1_048_576 - 32, 1_048_576, 40];
    const records = sizes.map((size, at) => record(at + 1, size));
    const path = fileOf(Buffer.concat([encodeFileHeader({ stream: 3, epoch: 1n, firstSequence: 1 }), ...records]));
    const seen: [number, number][] = [];
    const scan = scanJournal(path, 0, ({ sequence, request }) => {
      expect(request.every((byte) => byte === sequence)).toBe(true);
      seen.push([sequence, request.byteLength]);
    });
    expect(seen).toEqual(sizes.map((size, at) => [at + 1, size]));
    expect(scan).toMatchObject({ lastSequence: sizes.length, tail: 'clean' });
  });
});

test('scanWithoutHeader() reads the records behind a header that cannot be read', () => {
  const bytes = GOLDEN_FILE.slice();
  bytes[3]! ^= 1;
  const path = fileOf(bytes);
  expect(scanJournal(path, 0, () => {})).toBeNull();
  expect(scanWithoutHeader(path)).toEqual({ endOffset: bytes.byteLength, lastSequence: 4_294_967_310, tail: 'clean' });
});
