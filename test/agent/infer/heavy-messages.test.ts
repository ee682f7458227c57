import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodeMessage, type HeavyResult, type HeavyRun, MessageReader } from '../../../agent/infer/heavy-messages.ts';

const run: HeavyRun = {
  id: 7,
  bundleId: 'ab'.repeat(32),
  directory: '/data/bundles/ab',
  feeds: {
    x: { type: 'float32', data: Float32Array.of(1, -2.5), dims: [1, 2], location: 'cpu' },
    n: { type: 'int64', data: BigInt64Array.of(2n ** 62n), dims: [1], location: 'cpu' },
    s: { type: 'string', data: ['웨이퍼', ''], dims: [2], location: 'cpu' },
  },
};
const failure: HeavyResult = { id: 8, error: 'invalid dimensions' };
const result: HeavyResult = { id: 9, outputs: {} };
const messages: readonly (HeavyRun | HeavyResult)[] = [run, failure, result, run];
const bytes = Buffer.concat(messages.map(encodeMessage));

function reader(): { reader: MessageReader<HeavyRun | HeavyResult>; seen: (HeavyRun | HeavyResult)[] } {
  const seen: (HeavyRun | HeavyResult)[] = [];
  return { reader: new MessageReader((message) => seen.push(message)), seen };
}

test('a message is a little-endian length and so many bytes', () => {
  const message = encodeMessage(failure);
  expect(message.readUInt32LE(0)).toBe(message.byteLength - 4);
});

describe('a message reader', () => {
  test('puts messages together byte by byte', () => {
    const { reader: one, seen } = reader();
    for (const byte of bytes) one.push(Buffer.of(byte));
    expect(seen).toEqual(messages);
  });

  test('takes all messages in one piece', () => {
    const { reader: one, seen } = reader();
    one.push(bytes);
    expect(seen).toEqual(messages);
  });

  test('gives a message as soon as its last byte is there, not before', () => {
    const { reader: one, seen } = reader();
    const message = encodeMessage(run);
    one.push(message.subarray(0, -1));
    expect(seen).toEqual([]);
    one.push(message.subarray(-1));
    expect(seen).toEqual([run]);
  });

  test('does not care where the pieces are cut, or whether they are empty', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(bytes.byteLength), { maxLength: 12 }), (cuts) => {
        const { reader: one, seen } = reader();
        const sorted = [0, ...cuts.sort((left, right) => left - right), bytes.byteLength];
        for (let at = 1; at < sorted.length; at++) one.push(bytes.subarray(sorted[at - 1], sorted[at]));
        expect(seen).toEqual(messages);
      }),
    );
  });

  test('gives numbers in memory of their own', () => {
    const { reader: one, seen } = reader();
    const copy = Buffer.from(encodeMessage(run));
    one.push(copy);
    copy.fill(0);
    expect((seen[0] as HeavyRun).feeds['x']?.data).toEqual(Float32Array.of(1, -2.5));
  });

  test('asserts that a length is possible', () => {
    const { reader: one } = reader();
    expect(() => one.push(Buffer.of(1, 0, 0, 16))).toThrow('Assertion failed: a heavy-lane message of 268435457 bytes is over the limit');
  });
});
