import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeFileHeader,
  decodeRecord,
  encodeFileHeader,
  encodeRecord,
  FILE_HEADER_BYTES,
  type JournalRecord,
  MAX_RECORD_BYTES,
  RECORD_HEADER_BYTES,
  RECORD_KINDS,
  RecordBuffer,
  type RecordKind,
  recordStride,
} from '../../../agent/journal/record.ts';
import { bytesOf, GOLDEN_FILE, GOLDEN_HEADER, GOLDEN_RECORDS, hexOf } from './golden-journal.ts';

interface Content {
  readonly sequence: number;
  readonly kind: RecordKind;
  readonly timeMicros: number;
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
}

function encoded({ sequence, kind, timeMicros, request, reply }: Content): Uint8Array {
  const buffer = new RecordBuffer(recordStride(request, reply));
  const end = encodeRecord(buffer, 0, sequence, kind, timeMicros, request, reply);
  expect(end).toBe(buffer.bytes.byteLength);
  return buffer.bytes;
}

/** What a record says, without where it is. */
function contentOf(record: JournalRecord): Content {
  const { sequence, kind, timeMicros, request, reply } = record;
  return { sequence, kind, timeMicros, request: Uint8Array.from(request), reply: Uint8Array.from(reply) };
}

function decoded(bytes: Uint8Array, at = 0): Content | 'incomplete' | 'damaged' {
  const record = decodeRecord(bytes, at);
  return typeof record === 'string' ? record : contentOf(record);
}

const content: fc.Arbitrary<Content> = fc.record({
  sequence: fc.maxSafeNat(),
  kind: fc.constantFrom(...Object.values(RECORD_KINDS)),
  timeMicros: fc.maxSafeNat(),
  request: fc.uint8Array({ maxLength: 60 }),
  reply: fc.uint8Array({ maxLength: 60 }),
});

const sample: Content = {
  sequence: 2 ** 40 + 7,
  kind: RECORD_KINDS.decision,
  timeMicros: 1_795_000_000_123_456,
  request: Uint8Array.from({ length: 33 }, (_, at) => at),
  reply: Uint8Array.from({ length: 12 }, (_, at) => 255 - at),
};

test('README.md shows the golden file', () => {
  const readme = readFileSync(new URL('../../../agent/journal/README.md', import.meta.url), 'utf8');
  const [, shown = ''] = /### Golden bytes[^]*?```text\n([^]*?)```/.exec(readme) ?? [];
  expect(shown.replaceAll(/ .*$/gm, '').replaceAll('\n', '')).toBe(hexOf(GOLDEN_FILE));
});

describe('the file header', () => {
  test('has its golden bytes', () => {
    expect(hexOf(encodeFileHeader(GOLDEN_HEADER))).toBe(GOLDEN_HEADER.hex);
  });

  test('is read back, also from the middle of a larger buffer', () => {
    const { hex, ...header } = GOLDEN_HEADER;
    expect(decodeFileHeader(bytesOf(hex))).toEqual(header);
    expect(decodeFileHeader(bytesOf(`ffffff${hex}ffff`).subarray(3))).toEqual(header);
  });

  test('carries the largest stream, epoch and number', () => {
    const header = { stream: 0xffffffff, epoch: 2n ** 64n - 1n, firstSequence: Number.MAX_SAFE_INTEGER };
    expect(decodeFileHeader(encodeFileHeader(header))).toEqual(header);
  });

  test('is refused when a single bit differs, or a byte is missing', () => {
    const bytes = bytesOf(GOLDEN_HEADER.hex);
    for (let bit = 0; bit < FILE_HEADER_BYTES * 8; bit++) {
      const flipped = bytes.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      expect(decodeFileHeader(flipped)).toBeNull();
    }
    for (let length = 0; length < FILE_HEADER_BYTES; length++) expect(decodeFileHeader(bytes.subarray(0, length))).toBeNull();
  });
});

describe('a record', () => {
  test.each(GOLDEN_RECORDS)('has its golden bytes: $name', ({ hex, ...record }) => {
    expect(hexOf(encoded(record))).toBe(hex);
  });

  test.each(GOLDEN_RECORDS)('is read from its golden bytes: $name', ({ hex, name: _name, ...record }) => {
    expect(decoded(bytesOf(hex))).toEqual(record);
  });

  test('is what it was after encoding and decoding, wherever it stands', () => {
    fc.assert(
      fc.property(content, fc.nat(5), fc.nat(3), (given, place, shift) => {
        const at = place * 4;
        const buffer = new RecordBuffer(at + recordStride(given.request, given.reply));
        buffer.bytes.fill(0xee);
        encodeRecord(buffer, at, given.sequence, given.kind, given.timeMicros, given.request, given.reply);
        expect(decoded(buffer.bytes, at)).toEqual(given);
        expect((decodeRecord(buffer.bytes, at) as JournalRecord).stride).toBe(recordStride(given.request, given.reply));
        // The reader may have it at any address.
        const elsewhere = new Uint8Array(buffer.bytes.byteLength + shift);
        elsewhere.set(buffer.bytes, shift);
        expect(decoded(elsewhere, at + shift)).toEqual(given);
      }),
    );
  });

  test('is padded with zeros to a multiple of 4, whatever was in the buffer', () => {
    for (let length = 0; length < 8; length++) {
      const request = new Uint8Array(length).fill(0xff);
      const buffer = new RecordBuffer(recordStride(request, new Uint8Array(0)));
      buffer.bytes.fill(0xee);
      const end = encodeRecord(buffer, 0, 1, RECORD_KINDS.decision, 1, request, new Uint8Array(0));
      expect(end % 4).toBe(0);
      expect([...buffer.bytes.subarray(RECORD_HEADER_BYTES + length, end)]).toEqual(Array(end - RECORD_HEADER_BYTES - length).fill(0));
    }
  });

  test('is incomplete at every length below its own', () => {
    const bytes = encoded(sample);
    for (let length = 0; length < bytes.byteLength; length++)
      expect(decoded(bytes.subarray(0, length)), `${length} bytes`).toBe('incomplete');
    expect(decoded(bytes)).toEqual(sample);
  });

  test('is never read wrongly when any one byte is any other byte', () => {
    const bytes = encoded(sample);
    const end = RECORD_HEADER_BYTES + sample.request.byteLength + sample.reply.byteLength;
    expect(bytes.byteLength).toBeGreaterThan(end);
    for (let at = 0; at < bytes.byteLength; at++) {
      for (let difference = 1; difference < 256; difference++) {
        const flipped = bytes.slice();
        flipped[at]! ^= difference;
        // Padding is outside the sum: a flip there changes nothing that is read.
        expect(decoded(flipped), `byte ${at} ^ ${difference}`).toEqual(at < end ? 'damaged' : sample);
      }
    }
  });

  test('with a damaged size is damaged, not incomplete, though the file ends before that size', () => {
    const bytes = encoded(sample);
    for (let bit = 0; bit < 32; bit++) {
      const flipped = bytes.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      expect(decoded(flipped), `bit ${bit}`).toBe('damaged');
    }
  });

  test('is never read from random bytes, not even with a header that looks right', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 200 }), (bytes) => {
        expect(decoded(bytes)).toBeTypeOf('string');
        const view = new DataView(bytes.buffer);
        view.setUint32(0, bytes.byteLength, true);
        view.setUint16(24, RECORD_KINDS.decision, true);
        view.setUint16(26, ~bytes.byteLength & 0xffff, true);
        view.setUint32(28, bytes.byteLength - RECORD_HEADER_BYTES, true);
        const padded = new Uint8Array(Math.ceil(bytes.byteLength / 4) * 4);
        padded.set(bytes);
        expect(decoded(padded)).toBe('damaged');
      }),
    );
  });

  test('is damaged where the bytes are zeros, or ones, as a disk leaves them that lost a block', () => {
    expect(decoded(new Uint8Array(4096))).toBe('damaged');
    expect(decoded(new Uint8Array(4096).fill(0xff))).toBe('damaged');
  });

  test('of a size above the limit is damaged although its check holds', () => {
    const bytes = encoded(sample);
    const size = MAX_RECORD_BYTES + 1;
    const view = new DataView(bytes.buffer);
    view.setUint32(0, size, true);
    view.setUint16(26, ~(size ^ (size >>> 16)) & 0xffff, true);
    expect(decoded(bytes)).toBe('damaged');
    view.setUint32(0, MAX_RECORD_BYTES, true);
    view.setUint16(26, ~(MAX_RECORD_BYTES ^ (MAX_RECORD_BYTES >>> 16)) & 0xffff, true);
    expect(decoded(bytes)).toBe('incomplete');
  });
});
