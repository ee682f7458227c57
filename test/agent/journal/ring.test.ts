import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeRecord, encodeRecord, RECORD_KINDS, RecordBuffer, recordStride } from '../../../agent/journal/record.ts';
import { Ring } from '../../../agent/journal/ring.ts';

const EMPTY = new Uint8Array(0);

function record(sequence: number, size: number): Uint8Array {
  const request = new Uint8Array(size).fill(sequence);
  const buffer = new RecordBuffer(recordStride(request, EMPTY));
  encodeRecord(buffer, 0, sequence, RECORD_KINDS.decision, 1, request, EMPTY);
  return buffer.bytes;
}

/** Numbers of everything in the ring, taken in batches. */
function drain(ring: Ring, maxBytes: number): number[] {
  const sequences: number[] = [];
  for (let batch = ring.oldest(maxBytes); batch !== null; batch = ring.oldest(maxBytes)) {
    for (let at = 0; at < batch.bytes.byteLength;) {
      const one = decodeRecord(batch.bytes, at);
      if (typeof one === 'string') throw new Error(one);
      sequences.push(one.sequence);
      at += one.stride;
    }
    expect(sequences.at(-1)).toBe(batch.lastSequence);
    ring.removeThrough(batch.lastSequence);
  }
  return sequences;
}

describe('the ring', () => {
  test('keeps the newest records that fit, in order, whatever is taken back', () => {
    const pushes = fc.array(fc.array(fc.nat(300), { minLength: 1, maxLength: 6 }), { maxLength: 30 });
    fc.assert(
      fc.property(
        pushes,
        fc.integer({ min: 50, max: 3000 }),
        fc.nat(5),
        fc.integer({ min: 1, max: 2000 }),
        (turns, maxBytes, back, batchBytes) => {
          const ring = new Ring(maxBytes);
          let model: { sequence: number; bytes: number }[] = [];
          let next = 1;
          for (const sizes of turns) {
            const records = sizes.map((size, at) => ({ sequence: next + at, bytes: record(next + at, size) }));
            ring.push(Buffer.concat(records.map(({ bytes }) => bytes)));
            model.push(...records.map(({ sequence, bytes }) => ({ sequence, bytes: bytes.byteLength })));
            next += sizes.length;
            while (model.reduce((sum, { bytes }) => sum + bytes, 0) > maxBytes) model.shift();
            if (back > 0 && sizes.length % 3 === 0) {
              next = Math.max(1, next - back);
              ring.withdrawFrom(next);
              model = model.filter(({ sequence }) => sequence < next);
            }
            expect([ring.count, ring.firstSequence]).toEqual([model.length, model[0]?.sequence ?? null]);
          }
          expect(drain(ring, batchBytes)).toEqual(model.map(({ sequence }) => sequence));
          expect([ring.count, ring.firstSequence]).toEqual([0, null]);
        },
      ),
    );
  });

  test('gives one record at least, and no more bytes than asked for otherwise', () => {
    const ring = new Ring(10_000);
    ring.push(Buffer.concat([record(1, 1000), record(2, 8), record(3, 8)]));
    expect(ring.oldest(50)).toMatchObject({ lastSequence: 1 });
    ring.removeThrough(1);
    expect(ring.oldest(79)?.lastSequence).toBe(2);
    expect(ring.oldest(80)?.lastSequence).toBe(3);
  });
});
