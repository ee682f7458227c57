import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crc32c, crc32cOfWords } from '../../../agent/journal/crc32c.ts';

/** The definition, one bit at a time. */
function bitwise(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return ~crc >>> 0;
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text);

describe('crc32c()', () => {
  test('gives the check value e3069283 for the nine digits', () => {
    expect(crc32c(ascii('123456789')).toString(16)).toBe('e3069283');
  });

  test.each([
    ['32 zeros', new Uint8Array(32), '8a9136aa'],
    ['32 ones', new Uint8Array(32).fill(0xff), '62a8ab43'],
    ['0 to 31', Uint8Array.from({ length: 32 }, (_, at) => at), '46dd794e'],
    ['31 to 0', Uint8Array.from({ length: 32 }, (_, at) => 31 - at), '113fdb5c'],
  ])('gives the vector of RFC 3720 B.4 for %s', (_name, bytes, expected) => {
    expect(crc32c(bytes).toString(16)).toBe(expected);
  });

  test('is 0 for no bytes, wherever they start', () => {
    for (let start = 0; start < 5; start++) expect(crc32c(new Uint8Array(8).fill(7), start, start)).toBe(0);
  });

  test('equals the bitwise definition for any offset, length and alignment', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(7), fc.nat(40), fc.nat(40), (content, shift, before, after) => {
        const memory = new Uint8Array(content.length + shift + 400).fill(0xa5);
        memory.set(content, shift);
        // A view that may start at any address, and a part of it that may start anywhere again.
        const view = memory.subarray(shift, shift + content.length);
        const start = Math.min(before, content.length);
        const end = Math.max(start, content.length - after);
        expect(crc32c(view, start, end)).toBe(bitwise(content.subarray(start, end)));
      }),
      { numRuns: 500 },
    );
  });

  test('covers every length up to 70 bytes at every start from 0 to 8', () => {
    const bytes = Uint8Array.from({ length: 80 }, (_, at) => (at * 37 + 11) & 0xff);
    for (let start = 0; start <= 8; start++) {
      for (let length = 0; length <= 70; length++) {
        expect(crc32c(bytes, start, start + length)).toBe(bitwise(bytes.subarray(start, start + length)));
      }
    }
  });
});

test('crc32cOfWords() reads the words that start at the given byte, and nothing beyond the end', () => {
  const bytes = Uint8Array.from({ length: 96 }, (_, at) => (at * 73 + 5) & 0xff);
  const words = new Int32Array(bytes.buffer);
  for (const start of [0, 4, 40]) {
    for (let end = start; end <= bytes.length; end++) {
      expect(crc32cOfWords(words, start / 4, bytes, start, end)).toBe(bitwise(bytes.subarray(start, end)));
    }
  }
});
