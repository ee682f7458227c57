import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { GAP_REASONS } from '../../../agent/journal/gap.ts';
import { decodeMark, encodeMark, type Mark, MARK_FILE_BYTES, MARK_SLOT_BYTES, MARK_SLOT_DISTANCE } from '../../../agent/journal/mark.ts';
import { MarkFile, markPath, readBootId } from '../../../agent/journal/mark-file.ts';
import { GOLDEN_MARK, hexOf } from './golden-journal.ts';
import { SimulatedDisk } from './simulated-disk.ts';

const { hex, counter, ...golden } = GOLDEN_MARK;

function slotOf(mark: Mark, number = 1): Uint8Array {
  const bytes = new Uint8Array(MARK_SLOT_BYTES).fill(0xee);
  encodeMark(bytes, number, mark);
  return bytes;
}

const marks: fc.Arbitrary<Mark> = fc.record({
  stream: fc.integer({ min: 0, max: 0xffffffff }),
  state: fc.constantFrom('open', 'clean', 'failing'),
  given: fc.maxSafeNat(),
  from: fc.maxSafeNat(),
  durability: fc.constantFrom('process', 'power'),
  reason: fc.constantFrom(null, ...GAP_REASONS),
  sinceMicros: fc.maxSafeNat(),
  bootId: fc.stringMatching(/^[0-9a-f-]{0,64}$/),
  detail: fc.string({ maxLength: 60 }),
});

describe('a slot of a mark', () => {
  test('has its golden bytes', () => {
    expect(hexOf(slotOf(golden, counter))).toBe(hex);
    expect(decodeMark(slotOf(golden, counter))).toEqual({ counter, mark: golden });
  });

  test('is what it was after encoding and decoding', () => {
    fc.assert(
      fc.property(marks, fc.maxSafeNat(), (mark, number) => {
        expect(decodeMark(slotOf(mark, number))).toEqual({ counter: number, mark });
      }),
    );
  });

  test('is refused when any bit differs, when it is short, and when it was never written', () => {
    for (let bit = 0; bit < MARK_SLOT_BYTES * 8; bit++) {
      const bytes = slotOf(golden);
      bytes[bit >> 3]! ^= 1 << (bit & 7);
      expect(decodeMark(bytes), `bit ${bit}`).toBeNull();
    }
    expect(decodeMark(slotOf(golden).subarray(0, MARK_SLOT_BYTES - 1))).toBeNull();
    expect(decodeMark(new Uint8Array(MARK_SLOT_BYTES))).toBeNull();
  });

  test('cuts texts that are too long between two characters', () => {
    const { mark } = decodeMark(slotOf({ ...golden, detail: 'ü'.repeat(1000), bootId: 'b'.repeat(70) }))!;
    expect([mark.detail, mark.bootId]).toEqual(['ü'.repeat(196), 'b'.repeat(64)]);
  });
});

describe('the file of a mark', () => {
  const path = markPath('/journal', 3);

  test('is made whole, and then overwritten in turn: what was said last counts', () => {
    const disk = new SimulatedDisk();
    const file = MarkFile.open(disk, '/journal', golden);
    expect(MarkFile.read(disk, path)?.mark).toEqual(golden);
    for (let given = 1; given < 6; given++) {
      file.write({ ...golden, given });
      expect(MarkFile.read(disk, path)?.mark.given).toBe(given);
      expect(disk.bytes(path)).toBe(MARK_FILE_BYTES);
    }
    expect(disk.list('/journal')).toEqual(['stream-3.mark']);
    file.close();
    const again = MarkFile.open(disk, '/journal', { ...golden, given: 99 });
    expect(MarkFile.read(disk, path)?.mark.given).toBe(5);
    again.write({ ...golden, given: 6 });
    expect(MarkFile.read(disk, path)?.mark.given).toBe(6);
  });

  test('says what it said before when the last write is torn', () => {
    const disk = new SimulatedDisk();
    const file = MarkFile.open(disk, '/journal', golden);
    for (let given = 1; given < 4; given++) {
      const before = MarkFile.read(disk, path);
      file.write({ ...golden, given });
      const slot = ((given + 1) % 2) * MARK_SLOT_DISTANCE;
      const torn = new SimulatedDisk(disk.content());
      const descriptor = torn.open(path, 'r+');
      torn.write(descriptor, new Uint8Array(200), 0, 200, slot);
      expect(MarkFile.read(torn, path)).toEqual(before);
    }
  });

  test('is written on a full disk', () => {
    const disk = new SimulatedDisk();
    const file = MarkFile.open(disk, '/journal', golden);
    disk.freeBytes = 0;
    file.write({ ...golden, given: 8 });
    expect(MarkFile.read(disk, path)?.mark.given).toBe(8);
  });

  test.each([
    ['is missing', () => new Map()],
    ['has another length', () => new Map([[path, slotOf(golden)]])],
    ['has no readable slot', () => new Map([[path, new Uint8Array(MARK_FILE_BYTES)]])],
  ])('is made anew when it %s', (_name, content) => {
    const disk = new SimulatedDisk(content());
    MarkFile.open(disk, '/journal', { ...golden, given: 42 }).close();
    expect([MarkFile.read(disk, path)?.mark.given, disk.bytes(path)]).toEqual([42, MARK_FILE_BYTES]);
  });
});

test('readBootId() is the same each time', () => {
  expect(readBootId()).toBe(readBootId());
});
