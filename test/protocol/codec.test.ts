import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeClientFrame, decodeServerFrame, encodeDecision, encodeFrame } from '../../protocol/codec.ts';
import { FrameError } from '../../protocol/frame-error.ts';
import { FRAME_KINDS, type ClientFrame, type DecisionFrame, type ServerFrame, type WelcomeFrame } from '../../protocol/frames.ts';
import { MAX_FRAME_BYTES, MAX_SERVER_NODES, MAX_SLOTS } from '../../protocol/limits.ts';
import { scanFrame } from '../../protocol/scan.ts';
import { anyClientFrame, anyServerFrame } from './arbitrary-frames.ts';
import { GOLDEN_FRAMES, type GoldenFrame } from './golden-frames.ts';

function decode(golden: Pick<GoldenFrame, 'from' | 'bytes'>): ClientFrame | ServerFrame {
  return golden.from === 'client' ? decodeClientFrame(golden.bytes) : decodeServerFrame(golden.bytes);
}

function errorFrom(run: () => unknown): FrameError | null {
  try {
    run();
    return null;
  } catch (thrown) {
    expect(thrown).toBeInstanceOf(FrameError);
    return thrown as FrameError;
  }
}

describe('golden frames', () => {
  test('cover every kind of frame', () => {
    expect(new Set(GOLDEN_FRAMES.map((golden) => golden.frame.kind))).toEqual(new Set(Object.values(FRAME_KINDS)));
  });

  test.each(GOLDEN_FRAMES)('encodeFrame() writes the bytes of "$name"', ({ frame, bytes }) => {
    expect(Buffer.from(encodeFrame(frame)).toString('hex')).toBe(Buffer.from(bytes).toString('hex'));
  });

  test.each(GOLDEN_FRAMES)('decode reads "$name" back, also from the middle of a larger buffer', (golden) => {
    expect(decode(golden)).toEqual(golden.frame);
    const larger = new Uint8Array(golden.bytes.length + 11).fill(0xc1);
    larger.set(golden.bytes, 5);
    expect(decode({ from: golden.from, bytes: larger.subarray(5, 5 + golden.bytes.length) })).toEqual(golden.frame);
  });

  test.each(GOLDEN_FRAMES)('every prefix of "$name" is a malformed frame', (golden) => {
    for (let length = 0; length < golden.bytes.length; length += 1) {
      const error = errorFrom(() => decode({ from: golden.from, bytes: golden.bytes.slice(0, length) }));
      expect(error?.code).toBe('malformed_frame');
    }
  });

  test.each(GOLDEN_FRAMES)('"$name" followed by anything is a malformed frame', (golden) => {
    const longer = new Uint8Array(golden.bytes.length + 1);
    longer.set(golden.bytes);
    expect(errorFrom(() => decode({ from: golden.from, bytes: longer }))?.code).toBe('malformed_frame');
  });

  test.each(GOLDEN_FRAMES)('every single-byte change of "$name" gives a frame that encodes again, or a FrameError', (golden) => {
    let refused = 0;
    for (let at = 0; at < golden.bytes.length; at += 1) {
      for (let value = 0; value < 256; value += 1) {
        if (value === golden.bytes[at]) continue;
        const changed = Uint8Array.from(golden.bytes);
        changed[at] = value;
        let frame: ClientFrame | ServerFrame | null = null;
        try {
          frame = decode({ from: golden.from, bytes: changed });
        } catch (thrown) {
          if (!(thrown instanceof FrameError)) throw new Error(`byte ${at} as ${value}`, { cause: thrown });
          refused += 1;
        }
        if (frame !== null && scanFrame(encodeFrame(frame)) !== null) throw new Error(`byte ${at} as ${value} does not encode again`);
      }
    }
    expect(refused).toBeGreaterThan(0);
  });
});

describe('round trips', () => {
  test('decodeClientFrame() inverts encodeFrame()', () => {
    fc.assert(
      fc.property(anyClientFrame, (frame) => {
        expect(decodeClientFrame(encodeFrame(frame))).toEqual(frame);
      }),
      { numRuns: 500 },
    );
  });

  test('decodeServerFrame() inverts encodeFrame()', () => {
    fc.assert(
      fc.property(anyServerFrame, (frame) => {
        expect(decodeServerFrame(encodeFrame(frame))).toEqual(frame);
      }),
      { numRuns: 500 },
    );
  });

  test('encodeDecision() writes what encodeFrame() writes', () => {
    const decisions = GOLDEN_FRAMES.filter((golden) => golden.frame.kind === FRAME_KINDS.decision);
    expect(decisions.length).toBeGreaterThan(3);
    for (const golden of decisions) {
      expect(Buffer.from(encodeDecision(golden.frame as DecisionFrame))).toEqual(Buffer.from(golden.bytes));
    }
    fc.assert(
      fc.property(anyServerFrame, (frame) => {
        fc.pre(frame.kind === FRAME_KINDS.decision);
        expect(decodeServerFrame(encodeDecision(frame))).toEqual(frame);
      }),
    );
  });

  test('later calls never overwrite the bytes of earlier ones', () => {
    const [golden] = GOLDEN_FRAMES;
    const large = encodeFrame({
      kind: FRAME_KINDS.predict,
      requestId: 1,
      slot: 's',
      context: null,
      deadlineMicros: 0,
      lastApplied: null,
      features: { encoding: 'float32', bytes: new Uint8Array(200_000).fill(3) },
      outputs: null,
    });
    const kept = Array.from({ length: 500 }, () => GOLDEN_FRAMES.map(({ frame }) => encodeFrame(frame))).flat();
    const decisions = GOLDEN_FRAMES.filter(({ frame }) => frame.kind === FRAME_KINDS.decision);
    const keptDecisions = Array.from({ length: 500 }, () => decisions.map(({ frame }) => encodeDecision(frame as DecisionFrame))).flat();
    kept.forEach((bytes, index) => expect(Buffer.compare(bytes, GOLDEN_FRAMES[index % GOLDEN_FRAMES.length]!.bytes)).toBe(0));
    keptDecisions.forEach((bytes, index) => expect(Buffer.compare(bytes, decisions[index % decisions.length]!.bytes)).toBe(0));
    expect(Buffer.from(large.subarray(-200_001, -1)).every((byte) => byte === 3)).toBe(true);
    expect(Buffer.compare(encodeFrame(golden!.frame), golden!.bytes)).toBe(0);
  });

  test('feature bytes are views into the message, not copies', () => {
    const { bytes } = GOLDEN_FRAMES.find(({ name }) => name === 'predict float32')!;
    const frame = decodeClientFrame(bytes);
    expect(
      frame.kind === FRAME_KINDS.predict && frame.features.encoding === 'float32' && frame.features.bytes.buffer === bytes.buffer,
    ).toBe(true);
  });

  test('lone surrogates leave as U+FFFD', () => {
    const frame = encodeFrame({ kind: FRAME_KINDS.hello, versionOldest: 1, versionNewest: 1, client: 'a\ud800b', token: null });
    expect(decodeClientFrame(frame)).toMatchObject({ client: 'a\ufffdb' });
  });
});

describe('hostile bytes', () => {
  test('arbitrary bytes never cause anything but a FrameError', () => {
    const header = fc.constantFrom([0x95, 1], [0x99, 3], [0x9a, 5], [0x97, 2], [0xdc, 0, 18, 4], [0x96, 6], [0x97, 7]);
    const tail = fc.uint8Array({ maxLength: 60 });
    fc.assert(
      fc.property(
        fc.oneof(
          tail,
          fc.tuple(header, tail).map(([start, rest]) => Uint8Array.from([...start, ...rest])),
        ),
        (bytes) => {
          errorFrom(() => decodeClientFrame(bytes));
          errorFrom(() => decodeServerFrame(bytes));
        },
      ),
      { numRuns: 5_000 },
    );
  });

  test('extension types that msgpackr would act on are refused before it sees them', () => {
    const types = [0x78, 0x65, 0x73, 0x74, 0x69, 0x70, 0x42, 0x62, 0x72];
    for (const type of types) {
      for (const header of [
        [0xd4, type, 0x40],
        [0xd6, type, 1, 2, 3, 4],
        [0xc7, 1, type, 0x90],
      ]) {
        expect(errorFrom(() => decodeClientFrame(Uint8Array.from([0x92, 3, ...header])))?.code).toBe('malformed_frame');
      }
    }
  });

  test('a frame of the largest size that holds nothing but values is refused at once', () => {
    const bomb = new Uint8Array(MAX_FRAME_BYTES).fill(0x90);
    bomb.set([0xdd, 0x00, 0x0f, 0xff, 0xfb]);
    expect(errorFrom(() => decodeClientFrame(bomb))?.message).toBe('Cannot read the frame: it has more than the 1024 values allowed');
  });
});

describe('untyped callers', () => {
  test('what is no number leaves as NaN, for the peer to refuse, and never as 0', () => {
    const observe = GOLDEN_FRAMES.find(({ name }) => name === 'observe')!.frame;
    for (const wrong of [null, undefined, '45', {}]) {
      const bytes = encodeFrame({ ...observe, value: wrong, requestId: 3 } as never);
      expect(errorFrom(() => decodeClientFrame(bytes))).toMatchObject({ code: 'invalid_field', field: 'value', requestId: 3 });
    }
  });

  test('a frame that could not be finished does not reach into the next one', () => {
    const golden = GOLDEN_FRAMES.find(({ name }) => name === 'predict float32')!;
    expect(() => encodeFrame({ ...golden.frame, outputs: [undefined] } as never)).toThrow(TypeError);
    expect(Buffer.from(encodeFrame(golden.frame))).toEqual(Buffer.from(golden.bytes));
  });
});

describe('limits', () => {
  test('a welcome may list as many slots as MAX_SERVER_NODES allows for, and no more', () => {
    const welcome = GOLDEN_FRAMES.find(({ name }) => name === 'welcome')!.frame as WelcomeFrame;
    const slots = Array.from({ length: MAX_SLOTS }, (_, index) => ({ ...welcome.slots[0]!, slot: `slot ${index}` }));
    const bytes = encodeFrame({ ...welcome, slots });
    expect(decodeServerFrame(bytes)).toEqual({ ...welcome, slots });
    expect(scanFrame(bytes, MAX_SERVER_NODES)).toBeNull();
    expect(scanFrame(bytes, MAX_SERVER_NODES - 1)).not.toBeNull();
    const more = encodeFrame({ ...welcome, slots: [...slots, welcome.slots[0]!] });
    expect(errorFrom(() => decodeServerFrame(more))?.code).toBe('malformed_frame');
  });

  test('encodeFrame() refuses a frame that no peer would take', () => {
    const features = { encoding: 'float32', bytes: new Uint8Array(MAX_FRAME_BYTES) } as const;
    const frame = {
      kind: FRAME_KINDS.predict,
      requestId: 5,
      slot: 's',
      context: null,
      deadlineMicros: 0,
      lastApplied: null,
      features,
      outputs: null,
    } as const;
    expect(errorFrom(() => encodeFrame(frame))).toMatchObject({ code: 'frame_too_large', requestId: 5 });
    expect(encodeFrame({ ...frame, features: { encoding: 'float32', bytes: new Uint8Array(8) } })).toHaveLength(20);
  });
});
