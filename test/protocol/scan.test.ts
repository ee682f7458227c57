import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MAX_DEPTH, MAX_FRAME_BYTES, MAX_NODES, MAX_TEXT_BYTES } from '../../protocol/limits.ts';
import { isUtf8, peekRequestId, scanFrame } from '../../protocol/scan.ts';

function bytes(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
}

function reasonFor(hex: string): string | null {
  return scanFrame(bytes(hex))?.reason ?? null;
}

describe('scanFrame()', () => {
  test.each([
    ['an empty array', '90'],
    ['every scalar', '9e c0 c2 c3 00 7f e0 ff cc01 cd0001 ce00000001 d0ff d1ffff d2ffffffff ca00000000'],
    ['the largest and smallest integers', '92 cf001fffffffffffff d3ffe0000000000000'],
    ['a negative 64-bit integer', '91 d3ffffffffffffffff'],
    ['strings in four forms', '94 a161 d90161 da000161 db0000000161'],
    ['binaries in three forms', '93 c401ff c50001ff c600000001ff'],
    ['arrays in three forms', '93 90 dc0000 dd00000000'],
    ['a value after a nested array', '93 92 01 02 91 91 01 05'],
  ])('passes %s', (_name, hex) => {
    expect(scanFrame(bytes(hex))).toBeNull();
  });

  test.each([
    ['nothing', '', 'it is empty, a MessagePack array is wanted'],
    ['a scalar at the top', '01', 'the top level is not an array'],
    ['a map at the top', '80', 'the top level is not an array'],
    ['a missing value', '92 91 01', 'it ends inside an array'],
    ['an array with too few bytes left', '92 01', 'an array claims 2 values, 1 bytes are left'],
    ['a cut scalar', '91 cd00', 'it ends inside the value at byte 1'],
    ['a cut length', '91 da00', 'it ends inside the value at byte 1'],
    ['a cut string', '91 a361', 'it ends inside the value at byte 1'],
    ['bytes after the end', '90 c0', '1 bytes follow its end'],
    ['a string that claims 4 GB', '91 dbffffffff', 'it ends inside the value at byte 1'],
    ['a binary that claims 4 GB', '91 c6ffffffff', 'it ends inside the value at byte 1'],
    ['an array that claims 4 G values', 'ddffffffff', 'an array claims 4294967295 values, 0 bytes are left'],
    ['an inner array that claims 4 G values', '91 ddffffffff', 'an array claims 4294967295 values, 0 bytes are left'],
    ['an overlong string', '91 a2c080', 'the string at byte 1 is not UTF-8'],
    ['a surrogate', '91 a3eda080', 'the string at byte 1 is not UTF-8'],
    ['an unsigned integer of 2^53', '91 cf0020000000000000', 'the integer at byte 1 is outside -2^53 .. 2^53-1'],
    ['a signed integer of 2^53', '91 d30020000000000000', 'the integer at byte 1 is outside -2^53 .. 2^53-1'],
    ['a signed integer below -2^53', '91 d3ffdfffffffffffff', 'the integer at byte 1 is outside -2^53 .. 2^53-1'],
  ])('refuses %s', (_name, hex, reason) => {
    expect(reasonFor(hex)).toBe(reason);
  });

  test('refuses maps, extension types and the unused byte, every one of them', () => {
    const forbidden = [0x80, 0x8f, 0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xde, 0xdf];
    for (const first of forbidden) {
      const frame = new Uint8Array(40);
      frame[0] = 0x91;
      frame[1] = first;
      expect(scanFrame(frame)?.reason).toBe(`byte 1 is 0x${first.toString(16)}: maps, extension types and 0xc1 are not allowed`);
    }
  });

  test('allows the stated depth and refuses one level more', () => {
    const nested = (levels: number): Uint8Array => new Uint8Array(levels).fill(0x91, 0, levels - 1).fill(0x90, levels - 1);
    expect(scanFrame(nested(MAX_DEPTH))).toBeNull();
    expect(scanFrame(nested(MAX_DEPTH + 1))?.reason).toBe('its arrays are nested deeper than the 8 levels allowed');
    expect(scanFrame(nested(1_000_000))?.reason).toBe('its arrays are nested deeper than the 8 levels allowed');
  });

  test('allows the stated number of values and refuses one more, however they are nested', () => {
    const flat = (values: number): Uint8Array => {
      const frame = new Uint8Array(3 + values);
      frame.set([0xdc, values >> 8, values & 0xff]);
      return frame;
    };
    expect(scanFrame(flat(MAX_NODES - 1))).toBeNull();
    expect(scanFrame(flat(MAX_NODES))?.reason).toBe('it has more than the 1024 values allowed');
    const nestedBomb = new Uint8Array(3 + 500 * 3).fill(0x90);
    nestedBomb.set([0xdc, 0x01, 0xf4]);
    for (let at = 3; at < nestedBomb.length; at += 3) nestedBomb.set([0x92, 0, 0], at);
    expect(scanFrame(nestedBomb)?.reason).toBe('it has more than the 1024 values allowed');
  });

  test('allows the stated frame size and refuses one byte more', () => {
    const frame = new Uint8Array(MAX_FRAME_BYTES);
    frame.set([0x91, 0xc6, 0x00, 0x0f, 0xff, 0xfa]);
    expect(scanFrame(frame)).toBeNull();
    expect(scanFrame(new Uint8Array(MAX_FRAME_BYTES + 1))?.code).toBe('frame_too_large');
  });

  test('allows the stated text size and refuses one byte more', () => {
    const text = (length: number): Uint8Array => {
      const frame = new Uint8Array(4 + length).fill(0x61);
      frame.set([0x91, 0xda, length >> 8, length & 0xff]);
      return frame;
    };
    expect(scanFrame(text(MAX_TEXT_BYTES))).toBeNull();
    expect(scanFrame(text(MAX_TEXT_BYTES + 1))?.reason).toBe('the string at byte 1 is longer than the 2048 bytes allowed');
  });
});

describe('isUtf8()', () => {
  test('agrees with the strict decoder of the platform on arbitrary bytes', () => {
    const strict = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    const accepts = (input: Uint8Array): boolean => {
      try {
        strict.decode(input);
        return true;
      } catch {
        return false;
      }
    };
    const leads = fc.constantFrom(0x41, 0x7f, 0x80, 0x9f, 0xa0, 0xbf, 0xc1, 0xc2, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0x8f, 0x90);
    fc.assert(
      fc.property(fc.array(fc.oneof(leads, fc.nat(255)), { maxLength: 8 }), (values) => {
        const input = Uint8Array.from(values);
        expect(isUtf8(input, 0, input.length)).toBe(accepts(input));
      }),
      { numRuns: 5_000 },
    );
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const input = new TextEncoder().encode(text);
        expect(isUtf8(input, 0, input.length)).toBe(true);
      }),
    );
  });
});

describe('peekRequestId()', () => {
  test.each([
    ['a small integer', '92 03 07', 7],
    ['a uint16', '92 03 cd0102', 258],
    ['a uint64', '92 03 cf001fffffffffffff', Number.MAX_SAFE_INTEGER],
    ['an int64', '92 03 d30000000000000005', 5],
    ['a float64', '92 03 cb4014000000000000', 5],
    ['a float32', '92 03 ca40a00000', 5],
    ['a kind in a longer form', '92 cc03 09', 9],
    ['a 16-bit array header', 'dc0002 03 09', 9],
    ['a frame broken after the id', '99 03 07 c1', 7],
    ['hello, which has none', '92 01 07', null],
    ['a negative id', '92 03 ff', null],
    ['a fraction', '92 03 cb4014100000000000', null],
    ['an id beyond 2^53', '92 03 cfffffffffffffffff', null],
    ['a cut id', '92 03 cd01', null],
    ['a text id', '92 03 a137', null],
    ['a text kind', '92 a103 07', null],
    ['no array', '03', null],
    ['nothing', '', null],
  ])('reads %s', (_name, hex, id) => {
    expect(peekRequestId(bytes(hex))).toBe(id);
  });
});
