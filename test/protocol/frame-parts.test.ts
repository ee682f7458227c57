import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Packr } from 'msgpackr';
import { encodeFrame } from '../../protocol/codec.ts';
import { arrayLength, contentAt, elementEnd, elementStart } from '../../protocol/frame-parts.ts';
import { scanFrame } from '../../protocol/scan.ts';
import { anyClientFrame, anyServerFrame } from './arbitrary-frames.ts';

const anyFrameBytes = fc.oneof(anyClientFrame, anyServerFrame).map((frame) => encodeFrame(frame));

/** Values in every form that MessagePack has for them, with their bytes. */
const anyElement: fc.Arbitrary<Uint8Array> = fc.letrec<{ element: Uint8Array }>((tie) => ({
  element: fc.oneof(
    { depthSize: 'small' },
    fc.constantFrom(0, 0x7f, 0xe0, 0xff, 0xc0, 0xc2, 0xc3).map((byte) => Uint8Array.of(byte)),
    fc
      .constantFrom([0xca, 4], [0xcb, 8], [0xcc, 1], [0xcd, 2], [0xce, 4], [0xcf, 8], [0xd0, 1], [0xd1, 2], [0xd2, 4], [0xd3, 8])
      .chain(([first, count]) => fc.uint8Array({ minLength: count, maxLength: count }).map((bytes) => Uint8Array.of(first, ...bytes))),
    fc
      .tuple(fc.constantFrom([0xc4, 1], [0xc5, 2], [0xc6, 4], [0xd9, 1], [0xda, 2], [0xdb, 4]), fc.uint8Array({ maxLength: 40 }))
      .map(([[first, count], bytes]) => Uint8Array.of(first, ...sizeBytes(bytes.length, count), ...bytes)),
    fc.uint8Array({ maxLength: 31 }).map((bytes) => Uint8Array.of(0xa0 | bytes.length, ...bytes)),
    fc.tuple(fc.constantFrom(0, 2, 4), fc.array(tie('element'), { maxLength: 5 })).map(([form, parts]) => arrayOf(form, parts)),
  ),
})).element;

function sizeBytes(size: number, count: number): number[] {
  return Array.from({ length: count }, (_, at) => Math.floor(size / 256 ** (count - 1 - at)) % 256);
}

function arrayOf(form: number, parts: readonly Uint8Array[]): Uint8Array {
  const header = form === 0 ? [0x90 | parts.length] : [form === 2 ? 0xdc : 0xdd, ...sizeBytes(parts.length, form)];
  return Uint8Array.from([...header, ...parts.flatMap((part) => [...part])]);
}

describe('parts of a frame', () => {
  test('start and end where the elements were written, in every form of every value', () => {
    fc.assert(
      fc.property(fc.constantFrom(0, 2, 4), fc.array(anyElement, { maxLength: 12 }), (form, parts) => {
        const bytes = arrayOf(form, parts);
        expect(arrayLength(bytes, 0)).toBe(parts.length);
        for (const [at, part] of parts.entries()) {
          const start = elementStart(bytes, at);
          expect(bytes.slice(start, elementEnd(bytes, start))).toEqual(part);
        }
        expect(elementStart(bytes, parts.length)).toBe(-1);
        expect(elementEnd(bytes, 0)).toBe(bytes.length);
      }),
      { numRuns: 500 },
    );
  });

  test('are those of every frame of the protocol, to its last byte', () => {
    fc.assert(
      fc.property(anyFrameBytes, (bytes) => {
        expect(scanFrame(bytes, 10_000)).toBeNull();
        const last = elementStart(bytes, arrayLength(bytes, 0) - 1);
        expect(elementEnd(bytes, last)).toBe(bytes.length);
      }),
    );
  });

  test('never lie outside the bytes, whatever these are', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 60 }), fc.nat(20), (bytes, element) => {
        const start = elementStart(bytes, element);
        expect(start).toBeGreaterThanOrEqual(-1);
        expect(start).toBeLessThanOrEqual(bytes.length);
        expect(elementEnd(bytes, Math.max(0, start))).toBeLessThanOrEqual(bytes.length);
        expect(contentAt(bytes, Math.max(0, start))?.length ?? 0).toBeLessThanOrEqual(bytes.length);
      }),
      { numRuns: 2000 },
    );
  });

  test('a frame that is cut anywhere has no end', () => {
    fc.assert(
      fc.property(anyFrameBytes, fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), (bytes, share) => {
        expect(elementEnd(bytes.subarray(0, Math.floor(bytes.length * share)), 0)).toBe(-1);
      }),
    );
  });

  test('the content of texts and binaries is what a MessagePack library wrote', () => {
    const packr = new Packr({ useRecords: false });
    for (const size of [0, 1, 31, 32, 255, 256, 65_535, 65_536]) {
      const text = 'x'.repeat(size);
      expect(new TextDecoder().decode(contentAt(packr.pack([text]), 1) ?? undefined)).toBe(text);
      expect(contentAt(packr.pack([new Uint8Array(size).fill(7)]), 1)!.slice()).toEqual(
        packr
          .pack(new Uint8Array(size).fill(7))
          .subarray(-size || Infinity)
          .slice(),
      );
    }
    expect(contentAt(packr.pack([7, null]), 1)).toBeNull();
    expect(contentAt(packr.pack([7, null]), 2)).toBeNull();
    expect(contentAt(Uint8Array.of(0x91), 1)).toBeNull();
  });
});
