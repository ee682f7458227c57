import { describe, expect, test } from 'vitest';
import { array, assert, integer, property } from 'fast-check';
import { clientFrame, OPCODES, ServerFrameReader } from '../../bench/websocket-frames.ts';

/** A server frame as RFC 6455 5.2 draws it. */
function serverFrame(payload: Uint8Array, opcode: number = OPCODES.binary, final = true): Uint8Array {
  const head = [(final ? 0x80 : 0) | opcode];
  if (payload.length < 126) head.push(payload.length);
  else if (payload.length < 65_536) head.push(126, payload.length >> 8, payload.length & 0xff);
  else
    head.push(127, 0, 0, 0, 0, payload.length >>> 24, (payload.length >> 16) & 0xff, (payload.length >> 8) & 0xff, payload.length & 0xff);
  return Uint8Array.from([...head, ...payload]);
}

function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(parts));
}

function bytesOf(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => index & 0xff);
}

describe('clientFrame()', () => {
  test.each([
    [0, '828000000000'],
    [3, '828300000000000102'],
  ])('of %i bytes is a masked binary frame with a zero key', (length, hex) => {
    expect(Buffer.from(clientFrame(bytesOf(length))).toString('hex')).toBe(hex);
  });

  test.each([
    [125, '82fd00000000'],
    [126, '82fe007e00000000'],
    [65_535, '82feffff00000000'],
    [65_536, '82ff000000000001000000000000'],
  ])('of %i bytes starts with %s and ends with the payload as it is', (length, head) => {
    const frame = Buffer.from(clientFrame(bytesOf(length)));
    expect(frame.toString('hex', 0, head.length / 2)).toBe(head);
    expect(new Uint8Array(frame.subarray(head.length / 2))).toEqual(bytesOf(length));
  });
});

describe('ServerFrameReader', () => {
  const stream = joined(
    serverFrame(bytesOf(5)),
    serverFrame(bytesOf(0)),
    serverFrame(bytesOf(3), OPCODES.ping),
    serverFrame(bytesOf(126)),
    serverFrame(bytesOf(4), OPCODES.binary, false),
    serverFrame(bytesOf(0), OPCODES.ping),
    serverFrame(bytesOf(2), OPCODES.continuation),
    serverFrame(bytesOf(70_000)),
  );

  test('counts whole messages in one piece', () => {
    const reader = new ServerFrameReader();
    expect(reader.feed(stream)).toBe(5);
    expect(reader.messages).toBe(5);
    expect(reader.payloadBytes).toBe(5 + 0 + 126 + 4 + 2 + 70_000);
  });

  test('counts the same when fed one byte at a time', () => {
    const reader = new ServerFrameReader();
    let counted = 0;
    for (let at = 0; at < stream.length; at++) counted += reader.feed(stream.subarray(at, at + 1));
    expect(counted).toBe(5);
    expect(reader.payloadBytes).toBe(5 + 0 + 126 + 4 + 2 + 70_000);
  });

  test('counts the same in any pieces', () => {
    const small = stream.subarray(0, 160);
    const whole = new ServerFrameReader();
    whole.feed(small);
    assert(
      property(array(integer({ min: 0, max: small.length }), { maxLength: 20 }), (cuts) => {
        const reader = new ServerFrameReader();
        const ends = [...cuts.sort((left, right) => left - right), small.length];
        let start = 0;
        for (const end of ends) {
          reader.feed(small.subarray(start, end));
          start = end;
        }
        expect(reader.messages).toBe(whole.messages);
        expect(reader.payloadBytes).toBe(whole.payloadBytes);
      }),
    );
  });

  test('counts a message once its last byte is there, not before', () => {
    const reader = new ServerFrameReader();
    const frame = serverFrame(bytesOf(10));
    expect(reader.feed(frame.subarray(0, frame.length - 1))).toBe(0);
    expect(reader.feed(frame.subarray(frame.length - 1))).toBe(1);
  });

  test('captures the next whole message, across fragments and pieces', () => {
    const reader = new ServerFrameReader();
    const captured: Uint8Array[] = [];
    reader.captureNext((payload) => captured.push(payload));
    const fragments = joined(
      serverFrame(bytesOf(4), OPCODES.binary, false),
      serverFrame(bytesOf(3), OPCODES.continuation),
      serverFrame(bytesOf(9)),
    );
    for (const byte of fragments) reader.feed(Uint8Array.of(byte));
    expect(captured).toEqual([Uint8Array.of(0, 1, 2, 3, 0, 1, 2)]);
  });

  test('captures a copy that outlives the read buffer', () => {
    const reader = new ServerFrameReader();
    const captured: Uint8Array[] = [];
    reader.captureNext((payload) => captured.push(payload));
    const buffer = serverFrame(bytesOf(4));
    reader.feed(buffer);
    buffer.fill(0xff);
    expect(captured).toEqual([bytesOf(4)]);
  });

  test('hands over control frames whole', () => {
    const reader = new ServerFrameReader();
    const controls: [number, Uint8Array][] = [];
    reader.onControl = (opcode, payload) => controls.push([opcode, payload]);
    const close = serverFrame(Uint8Array.of(0x03, 0xe9, 0x62, 0x79, 0x65), OPCODES.close);
    for (const byte of close) reader.feed(Uint8Array.of(byte));
    expect(controls).toEqual([[OPCODES.close, Uint8Array.of(0x03, 0xe9, 0x62, 0x79, 0x65)]]);
    expect(reader.messages).toBe(0);
  });

  test.each([
    ['a masked frame', [0x82, 0x80]],
    ['a reserved bit', [0xc2, 0x00]],
    ['a long control frame', [0x89, 126, 0, 126]],
    ['a fragmented control frame', [0x09, 0]],
  ])('refuses %s', (_, bytes) => {
    expect(() => new ServerFrameReader().feed(Uint8Array.from(bytes))).toThrow('Cannot read the reply');
  });
});
