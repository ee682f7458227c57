import { describe, expect, test } from 'vitest';
import { decodeClientFrame, decodeServerFrame, encodeFrame } from '../../protocol/codec.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import { FrameError } from '../../protocol/frame-error.ts';
import { golden } from './fake-agent.ts';
import { GOLDEN_FRAMES, valueEnd } from './golden-frames.ts';

type Wrong = Record<string, unknown>;

/** The error that reading `frame`, with `wrong` in place of some fields, gives. */
function refusal(frame: object, wrong: Wrong, decode: (bytes: Uint8Array) => unknown): FrameError {
  const bytes = encodeFrame({ ...frame, ...wrong } as never);
  try {
    decode(bytes);
  } catch (thrown) {
    if (thrown instanceof FrameError) return thrown;
    throw thrown;
  }
  throw new Error(`the frame with ${JSON.stringify(wrong)} was accepted`);
}

function tensor(wrong: Partial<WireTensor> | Wrong): Wrong {
  const good = { name: 'x', datatype: 'FP32', shape: [1], bytes: new Uint8Array(4) };
  return { features: { encoding: 'tensors', tensors: [good, { ...good, name: 'y', ...wrong }] } };
}

const LONG = 'ä'.repeat(128);
const NOT_SAFE = 2 ** 53;
const PREDICT = golden('predict float32', 3);
const OBSERVE = golden('observe', 5);
const HELLO = golden('hello', 1);

describe('decodeClientFrame() names the wrong field', () => {
  test.each<[string, Wrong]>([
    ['requestId', { requestId: -1 }],
    ['requestId', { requestId: 0.5 }],
    ['requestId', { requestId: NOT_SAFE }],
    ['requestId', { requestId: null }],
    ['slot', { slot: '' }],
    ['slot', { slot: LONG }],
    ['context.lotId', { context: { ...PREDICT.context, lotId: LONG } }],
    ['context.runNumber', { context: { ...PREDICT.context, runNumber: -1 } }],
    ['context.runNumber', { context: { ...PREDICT.context, runNumber: 1.5 } }],
    ['context.processEndMillis', { context: { ...PREDICT.context, processEndMillis: 8_640_000_000_000_001 } }],
    ['deadlineMicros', { deadlineMicros: 60_000_001 }],
    ['deadlineMicros', { deadlineMicros: -1 }],
    ['deadlineMicros', { deadlineMicros: Number.NaN }],
    ['lastApplied', { lastApplied: Infinity }],
    ['lastApplied', { lastApplied: Number.NaN }],
    ['features.bytes', { features: { encoding: 'float32', bytes: new Uint8Array(0) } }],
    ['features.bytes', { features: { encoding: 'float32', bytes: new Uint8Array(6) } }],
    ['features.bytes', { features: { encoding: 'float64', bytes: new Uint8Array(12) } }],
    ['features.tensors', { features: { encoding: 'tensors', tensors: [] } }],
    ['features.tensors[1].name', tensor({ name: 'x' })],
    ['features.tensors[1].name', tensor({ name: '' })],
    ['features.tensors[1].datatype', tensor({ datatype: 'FP8' })],
    ['features.tensors[1].datatype', tensor({ datatype: 'toString' })],
    ['features.tensors[1].shape', tensor({ shape: [-1] })],
    ['features.tensors[1].shape', tensor({ shape: [0.5] })],
    ['features.tensors[1].shape', tensor({ shape: [2 ** 31] })],
    ['features.tensors[1].shape', tensor({ shape: [1, 1, 1, 1, 1, 1, 1, 1, 1] })],
    ['features.tensors[1].bytes', tensor({ shape: [2] })],
    ['features.tensors[1].bytes', tensor({ shape: [0, 2 ** 31 - 1] })],
    ['features.tensors[1].bytes', tensor({ shape: [2 ** 31 - 1, 2 ** 31 - 1, 2 ** 31 - 1] })],
    ['features.tensors[1].bytes', tensor({ datatype: 'BOOL', shape: [4], bytes: new Uint8Array([0, 1, 2, 0]) })],
    ['features.tensors[1].bytes', tensor({ datatype: 'BYTES', shape: [1], bytes: new Uint8Array([5, 0, 0, 0, 0x61]) })],
    ['features.tensors[1].bytes', tensor({ datatype: 'BYTES', shape: [1], bytes: new Uint8Array([1, 0, 0]) })],
    ['features.tensors[1].bytes', tensor({ datatype: 'BYTES', shape: [1], bytes: new Uint8Array([1, 0, 0, 0, 0xff]) })],
    ['features.tensors[1].bytes', tensor({ datatype: 'BYTES', shape: [2], bytes: new Uint8Array([1, 0, 0, 0, 0x61]) })],
    ['outputs', { outputs: Array.from({ length: 65 }, (_, index) => `y${index}`) }],
    ['outputs[1]', { outputs: ['y', 'y'] }],
    ['outputs[0]', { outputs: [''] }],
  ])('predict: %s', (field, wrong) => {
    expect(refusal(PREDICT, wrong, decodeClientFrame)).toMatchObject({ code: 'invalid_field', field });
  });

  test.each<[string, Wrong]>([
    ['measurementId', { measurementId: '' }],
    ['value', { value: Number.NaN }],
    ['value', { value: -Infinity }],
    ['value', { value: null }],
    ['unit', { unit: LONG }],
    ['appliedInput', { appliedInput: Infinity }],
    ['measuredAtMillis', { measuredAtMillis: null }],
    ['measuredAtMillis', { measuredAtMillis: -1 }],
  ])('observe: %s', (field, wrong) => {
    expect(refusal(OBSERVE, wrong, decodeClientFrame)).toMatchObject({ code: 'invalid_field', field, requestId: 9 });
  });

  test.each<[string, Wrong]>([
    ['versionOldest', { versionOldest: -1 }],
    ['versionNewest', { versionNewest: 0 }],
    ['versionNewest', { versionNewest: 65_536 }],
    ['client', { client: '' }],
    ['token', { token: LONG }],
  ])('hello: %s', (field, wrong) => {
    expect(refusal(HELLO, wrong, decodeClientFrame)).toMatchObject({ code: 'invalid_field', field, requestId: null });
  });
});

describe('decodeClientFrame()', () => {
  const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(' ', ''), 'hex'));
  const failure = (hex: string): FrameError | null => {
    try {
      decodeClientFrame(bytes(hex));
      return null;
    } catch (thrown) {
      return thrown as FrameError;
    }
  };

  test('says what it found and what is allowed', () => {
    const error = refusal(PREDICT, { deadlineMicros: 60_000_001 }, decodeClientFrame);
    expect(error.message).toBe('Cannot accept deadlineMicros: value found is 60000001, an integer 0 .. 60000000 is allowed');
    expect(error.requestId).toBe(7);
  });

  test('never echoes more than a few dozen characters of what a peer sent', () => {
    expect(refusal(PREDICT, { slot: LONG }, decodeClientFrame).message).toBe(
      'Cannot accept slot: value found is a string of 256 bytes, a string of 1 to 255 bytes is allowed',
    );
  });

  test('counts the bytes of a string, not its characters', () => {
    const frame = { ...PREDICT, slot: 'ä'.repeat(127) };
    expect(decodeClientFrame(encodeFrame(frame))).toEqual(frame);
  });

  test.each([
    ['an unknown kind', '91 09', 'unknown_frame', null],
    ['an unknown kind with a request id', '92 09 05', 'unknown_frame', 5],
    ['a kind that only an agent sends', '96 06 09 01 01 00 c0', 'unknown_frame', 9],
    ['no kind', '90', 'unknown_frame', null],
    ['a text kind', '91 a133', 'unknown_frame', null],
    ['predict with a value too few', '98 03 07 a173 c0 00 c0 04 c40400000000', 'malformed_frame', 7],
    ['predict with a value too many', '9a 03 07 a173 c0 00 c0 04 c40400000000 c0 c0', 'malformed_frame', 7],
    ['observe without a context', '9a 05 07 a173 c0 a16d a170 01 c0 c0 00', 'invalid_field', 7],
    ['a context with twelve values', '99 03 07 a173 9c c0c0c0c0c0c0c0c0c0c0c0c0 00 c0 04 c40400000000 c0', 'invalid_field', 7],
    ['a context with a number as lot', '99 03 07 a173 9d c001c0c0c0c0c0c0c0c0c0c0c0 00 c0 04 c40400000000 c0', 'invalid_field', 7],
    ['an unknown encoding', '99 03 07 a173 c0 00 c0 02 c40400000000 c0', 'invalid_field', 7],
    ['a vector as text', '99 03 07 a173 c0 00 c0 04 a430303030 c0', 'invalid_field', 7],
    ['a tensor with three values', '99 03 07 a173 c0 00 c0 00 91 93a178a44650333290 c0', 'invalid_field', 7],
  ])('refuses %s', (_name, hex, code, requestId) => {
    expect(failure(hex)).toMatchObject({ code, requestId });
  });

  test('takes a number in any of its MessagePack forms', () => {
    const forms = [
      '07',
      'cc07',
      'cd0007',
      'ce00000007',
      'cf0000000000000007',
      'd007',
      'd10007',
      'd200000007',
      'd30000000000000007',
      'ca40e00000',
      'cb401c000000000000',
    ];
    for (const form of forms) {
      const frame = decodeClientFrame(
        bytes(`99 ${form.startsWith('07') ? '03' : 'cc03'} ${form} a173 c0 ${form} ${form} 04 c40400000000 c0`),
      );
      expect(frame).toMatchObject({ kind: 3, requestId: 7, deadlineMicros: 7, lastApplied: 7 });
    }
  });

  test('turns the -0 of a float form into the request id 0', () => {
    const frame = decodeClientFrame(bytes('99 03 ca80000000 a173 c0 00 c0 04 c40400000000 c0'));
    expect(frame.kind === 3 && Object.is(frame.requestId, 0)).toBe(true);
  });
});

describe('decodeServerFrame() names the wrong field', () => {
  const DECISION = golden('decision of the model', 4);
  const WELCOME = golden('welcome', 2);
  const slotWith = (wrong: Wrong): Wrong => ({ slots: [WELCOME.slots[0], { ...WELCOME.slots[0], ...wrong }] });

  test.each<[string, object, Wrong]>([
    ['reasons', DECISION, { reasons: 2 ** 32 }],
    ['action', DECISION, { action: 'guess' }],
    ['value', DECISION, { value: Number.NaN }],
    ['correction', DECISION, { correction: Infinity }],
    ['riThreshold', DECISION, { riThreshold: Number.NaN }],
    ['bundleId', DECISION, { bundleId: new Uint8Array(31) }],
    ['serverTimeMicros', DECISION, { serverTimeMicros: -1 }],
    ['outputs[0].bytes', DECISION, { outputs: [{ name: 'y', datatype: 'FP64', shape: [], bytes: new Uint8Array(4) }] }],
    ['outcome', golden('observed', 6), { outcome: 'lost' }],
    ['estimate', golden('observed', 6), { estimate: Infinity }],
    ['code', golden('error', 7), { code: '' }],
    ['version', WELCOME, { version: 65_536 }],
    ['limits.maxInFlight', WELCOME, { limits: { ...WELCOME.limits, maxInFlight: 1025 } }],
    ['limits.maxFrameBytes', WELCOME, { limits: { ...WELCOME.limits, maxFrameBytes: 2 ** 20 + 1 } }],
    ['slots[1].slot', WELCOME, slotWith({ slot: '' })],
    ['slots[1].bundleId', WELCOME, slotWith({ bundleId: new Uint8Array(33) })],
    ['slots[1].featureCount', WELCOME, slotWith({ featureCount: -1 })],
  ])('%s', (field, frame, wrong) => {
    expect(refusal(frame, wrong, decodeServerFrame)).toMatchObject({ code: 'invalid_field', field });
  });

  test('lets through what a model said before the guard, whatever it is', () => {
    const frame = { ...DECISION, rawValue: Number.NaN, rawCorrection: -Infinity, ri: Number.NaN, gsi: Infinity };
    expect(decodeServerFrame(encodeFrame(frame))).toEqual(frame);
  });

  test('kinds that only a controller sends', () => {
    expect(() => decodeServerFrame(encodeFrame(HELLO))).toThrow('welcome (2), decision (4), observed (6) or error (7) is allowed');
  });
});

describe('a value of the wrong type', () => {
  test.each(GOLDEN_FRAMES)('is refused at every position of "$name", however deep', ({ from, bytes }) => {
    const decode = from === 'client' ? decodeClientFrame : decodeServerFrame;
    const kindAt = bytes[0] === 0xdc ? 3 : 1;
    let replaced = 0;
    for (let at = kindAt + 1; at < bytes.length; replaced += 1) {
      const isFlag = bytes[at] === 0xc2 || bytes[at] === 0xc3;
      const changed = Buffer.concat([bytes.subarray(0, at), Buffer.from([isFlag ? 0x01 : 0xc3]), bytes.subarray(valueEnd(bytes, at))]);
      expect(() => decode(changed), `byte ${at}`).toThrow(FrameError);
      // Into an array, not over it, so that its values are replaced as well.
      at = (bytes[at]! & 0xf0) === 0x90 ? at + 1 : valueEnd(bytes, at);
    }
    expect(replaced).toBeGreaterThan(3);
  });
});
