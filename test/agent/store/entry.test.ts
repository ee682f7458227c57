import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  bundleOf,
  decodeEntry,
  encodeEntry,
  type Entry,
  entryLength,
  featuresCut,
  framesWithoutTelemetry,
  outputsCut,
  substrateOf,
  telemetryOf,
  wholeFrames,
  withoutCut,
} from '../../../agent/store/entry.ts';
import { digestOf } from '../../../agent/store/chain.ts';
import { RecordBuffer } from '../../../agent/journal/record.ts';
import { decodeClientFrame, decodeServerFrame, encodeFrame } from '../../../protocol/codec.ts';
import type { DecisionFrame, PredictFrame } from '../../../protocol/frames.ts';
import { anyClientFrame, anyServerFrame } from '../../protocol/arbitrary-frames.ts';
import { alert, BUNDLE_A, decision, observation } from './records.ts';

const anyRequest = fc.oneof(
  { weight: 4, arbitrary: anyClientFrame.map(encodeFrame) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 80 }) },
);
const anyReply = fc.oneof(
  { weight: 4, arbitrary: anyServerFrame.map(encodeFrame) },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 80 }) },
);

interface Made {
  readonly bytes: Uint8Array;
  readonly entry: Entry;
  readonly telemetry: Uint8Array;
}

function entryOf(kind: number, request: Uint8Array, reply: Uint8Array, stream: number | null = 3): Made {
  const requestCut = featuresCut(kind, request);
  const replyCut = outputsCut(kind, reply);
  const telemetry = telemetryOf(request, requestCut, reply, replyCut);
  const digest = telemetry.length === 0 ? null : digestOf(telemetry);
  const length = entryLength(request, requestCut, reply, replyCut);
  const buffer = new RecordBuffer(length + 8);
  const header = {
    kind,
    index: 2 ** 40 + 5,
    stream,
    epoch: 0xfedc_ba98_7654_3210n,
    sequence: 2 ** 52 + 1,
    timeMicros: 1_795_000_000_123_456,
  };
  const end = encodeEntry(buffer, 8, header, request, requestCut, reply, replyCut, digest);
  expect(end).toBe(8 + length);
  const bytes = buffer.bytes.slice(8, end);
  const entry = decodeEntry(bytes);
  expect(entry).toMatchObject(header);
  return { bytes, entry: entry!, telemetry };
}

describe('an entry', () => {
  test('gives back exactly the frames it was made of, whatever their bytes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5 }), anyRequest, anyReply, (kind, request, reply) => {
        const { entry, telemetry } = entryOf(kind, request, reply);
        const whole = wholeFrames(entry, telemetry);
        expect(Buffer.from(whole.request).equals(request)).toBe(true);
        expect(Buffer.from(whole.reply).equals(reply)).toBe(true);
      }),
      { numRuns: 1000 },
    );
  });

  test('without telemetry gives frames that say the same of everything but features and outputs', () => {
    const predicts = anyClientFrame.filter((frame): frame is PredictFrame => frame.kind === 3);
    const answers = anyServerFrame.filter((frame): frame is DecisionFrame => frame.kind === 4);
    fc.assert(
      fc.property(predicts, answers, (predict, answer) => {
        const { entry } = entryOf(1, encodeFrame(predict), encodeFrame(answer));
        const { request, reply } = framesWithoutTelemetry(entry);
        const asked = decodeClientFrame(request) as PredictFrame;
        const answered = decodeServerFrame(reply) as DecisionFrame;
        const same = decodeClientFrame(encodeFrame(predict)) as PredictFrame;
        expect({ ...asked, features: null }).toEqual({ ...same, features: null });
        expect(asked.features.encoding).toBe(predict.features.encoding);
        expect(answered).toEqual({ ...decodeServerFrame(encodeFrame(answer)), outputs: null });
      }),
      { numRuns: 300 },
    );
  });

  test.each([
    ['float32', 4],
    ['float64', 8],
  ] as const)('has one %s that is no number in the place of dropped features', (encoding, bytes) => {
    const frame = decodeClientFrame(decision(1).request) as PredictFrame;
    const { entry } = entryOf(1, encodeFrame({ ...frame, features: { encoding, bytes: new Uint8Array(bytes * 3) } }), decision(1).reply);
    const { features } = decodeClientFrame(framesWithoutTelemetry(entry).request) as PredictFrame;
    if (features.encoding === 'tensors') throw new Error('no vector');
    const view = new DataView(features.bytes.slice().buffer);
    expect(features.bytes).toHaveLength(bytes);
    expect(bytes === 4 ? view.getFloat32(0, true) : view.getFloat64(0, true)).toBeNaN();
  });

  test('has one scalar tensor "dropped" in the place of dropped tensors', () => {
    const frame = decodeClientFrame(decision(1).request) as PredictFrame;
    const tensors = [{ name: 'x', datatype: 'UINT8', shape: [2], bytes: Uint8Array.of(1, 2) }] as const;
    const { entry } = entryOf(1, encodeFrame({ ...frame, features: { encoding: 'tensors', tensors } }), decision(1).reply);
    const { features } = decodeClientFrame(framesWithoutTelemetry(entry).request) as PredictFrame;
    expect(features).toMatchObject({ encoding: 'tensors', tensors: [{ name: 'dropped', datatype: 'FP32', shape: [] }] });
  });

  test('keeps the features and outputs of a decision apart, and nothing of anything else', () => {
    const outputs = [{ name: 'y', datatype: 'FP32', shape: [1], bytes: new Uint8Array(4) }] as const;
    const record = decision(5, { outputs });
    const { entry, telemetry } = entryOf(1, record.request, record.reply);
    expect(entry.requestCut.length).toBe(2 + 1 + 86 * 4);
    expect(telemetry).toHaveLength(entry.requestCut.length + entry.replyCut.length);
    expect(entry.replyCut.length).toBeGreaterThan(10);
    for (const whole of [observation(1, 'W1'), alert(2)]) {
      const made = entryOf(whole.kind, whole.request, whole.reply);
      expect(made.telemetry).toHaveLength(0);
      expect(made.entry.telemetryDigest).toBeNull();
      expect(framesWithoutTelemetry(made.entry)).toEqual({ request: whole.request, reply: whole.reply });
    }
  });

  test('keeps a frame whole that is not of the usual form', () => {
    const { request, reply } = decision(1);
    const wide = Uint8Array.of(0xdc, 0, 9, ...request.subarray(1));
    expect(featuresCut(1, wide).length).toBeGreaterThan(0);
    expect(featuresCut(1, request.subarray(0, request.length - 1)).length).toBe(0);
    expect(featuresCut(1, Uint8Array.of(...request, 0)).length).toBe(0);
    expect(featuresCut(2, request).length).toBe(0);
    const encodingAt = featuresCut(1, request).start - 1;
    const odd = Uint8Array.of(...request.subarray(0, encodingAt), 0xcc, 4, ...request.subarray(encodingAt + 1));
    expect(featuresCut(1, odd).length).toBe(0);
    expect(featuresCut(1, request.with(encodingAt, 0)).length).toBe(0);
    expect(outputsCut(1, reply.subarray(0, reply.length - 1)).length).toBe(0);
  });

  test('any changed bit outside the link is noticed', () => {
    const { request, reply } = decision(77);
    const { bytes } = entryOf(1, request, reply);
    for (let at = 32; at < bytes.length; at += 1) {
      for (let bit = 1; bit < 256; bit *= 2) {
        expect(decodeEntry(bytes.with(at, bytes[at]! ^ bit)), `byte ${at} bit ${bit}`).toBeNull();
      }
    }
    expect(decodeEntry(bytes.subarray(0, bytes.length - 1))).toBeNull();
    expect(decodeEntry(Uint8Array.of(...bytes, 0))).toBeNull();
    expect(decodeEntry(new Uint8Array(0))).toBeNull();
  });

  test('names substrate and bundle, from the whole frames and from the cut ones', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (substrateId) => {
        const { request, reply } = decision(9, { substrateId });
        for (const frame of [request, withoutCut(request, featuresCut(1, request))]) {
          expect(new TextDecoder('utf-8', { ignoreBOM: true }).decode(substrateOf(1, frame) ?? undefined)).toBe(
            Buffer.from(substrateId).toString(),
          );
        }
        expect(bundleOf(1, reply)).toEqual(BUNDLE_A);
      }),
    );
    expect(substrateOf(1, decision(9, { substrateId: null }).request)).toBeNull();
    expect(new TextDecoder().decode(substrateOf(2, observation(1, 'W.1').request) ?? undefined)).toBe('W.1');
    expect(substrateOf(3, alert(1).request)).toBeNull();
    expect(bundleOf(2, observation(1, 'W.1').reply)).toBeNull();
  });

  test('of the store itself belongs to no stream', () => {
    expect(entryOf(5, Uint8Array.of(1), new Uint8Array(0), null).entry.stream).toBeNull();
  });
});
