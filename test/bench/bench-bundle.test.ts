import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { openSession } from '../../agent/infer/session.ts';
import { FEATURE_COUNT, featureRows, VARIANTS, writeBenchBundle } from '../../bench/bench-bundle.ts';
import { agentPrediction, checkPrediction, expectedPrediction } from '../../bench/replies.ts';
import { httpBytes, predictPayloads } from '../../bench/requests.ts';
import { decodeClientFrame, encodeFrame } from '../../protocol/codec.ts';
import { FRAME_KINDS } from '../../protocol/frames.ts';
import { parseManifest } from '../../protocol/manifest.ts';

const folder = mkdtempSync(join(tmpdir(), 'setpoint-bench-test-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.each(VARIANTS)('the %s bundle of the bench', (variant) => {
  test('runs in ONNX Runtime, agrees with its golden vectors and stays inside its own guard', () => {
    const session = openSession(readFileSync(writeBenchBundle(join(folder, variant), variant)));
    const manifest = parseManifest(readFileSync(join(folder, variant, 'manifest.json')));
    const golden = JSON.parse(readFileSync(join(folder, variant, manifest.golden), 'utf8'));
    const bytes = Uint8Array.from(Buffer.from(golden.cases[0].inputs[0].data, 'base64'));
    const feeds = {
      features: { type: 'float32', data: new Float32Array(bytes.buffer), dims: [1, FEATURE_COUNT], location: 'cpu' },
    } as const;
    const got = session.run(feeds, Object.fromEntries(manifest.outputs.map(({ name }) => [name, null])));
    session.release();
    for (const output of golden.cases[0].outputs) {
      const wanted = Buffer.from(output.data, 'base64').readFloatLE();
      expect((got[output.name]!.data as Float32Array)[0]!).toBeCloseTo(wanted, 3);
    }
    expect(Math.abs(expectedPrediction())).toBeLessThan(manifest.guard.predictionRange![1]);
  });

  test('is the same bytes every time', () => {
    writeBenchBundle(join(folder, 'one'), variant);
    writeBenchBundle(join(folder, 'two'), variant);
    expect(readFileSync(join(folder, 'one/manifest.json'))).toEqual(readFileSync(join(folder, 'two/manifest.json')));
  });
});

describe('the requests of the bench', () => {
  test('are predict frames of one length, all in range, with a whole context', () => {
    const payloads = predictPayloads('bench/mlp');
    expect(new Set(payloads.map(({ length }) => length))).toEqual(new Set([489]));
    const frame = decodeClientFrame(payloads[3]!);
    if (frame.kind !== FRAME_KINDS.predict) throw new Error('expected predict');
    expect(Object.values(frame.context!)).not.toContain(null);
    expect(new Set(payloads.map((payload) => Buffer.from(payload).toString('hex'))).size).toBe(payloads.length);
  });

  test('features lie inside the valid ranges of the bundle', () => {
    writeBenchBundle(join(folder, 'ranges'), 'mlp');
    const { features } = parseManifest(readFileSync(join(folder, 'ranges/manifest.json')));
    featureRows(64).forEach((value, index) => {
      const { min, max } = features![index % FEATURE_COUNT]!;
      expect(value > min! && value < max!).toBe(true);
    });
  });

  test('httpBytes() counts its body', () => {
    const text = Buffer.from(httpBytes({ path: '/p', headers: { a: 'b' }, body: Buffer.from('xyz') })).toString();
    expect(text).toBe('POST /p HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\na: b\r\n\r\nxyz');
  });
});

describe('replies', () => {
  test('an error frame is never timed as an answer', () => {
    const error = { code: 'unknown_slot', field: null, message: 'no', remedy: 'none', retryable: false };
    const bytes = encodeFrame({ kind: FRAME_KINDS.error, requestId: 1, ...error });
    expect(() => agentPrediction(bytes)).toThrow('unknown_slot');
  });

  test('a prediction of another model is refused', () => {
    expect(() => checkPrediction('peer', expectedPrediction() + 0.005)).not.toThrow();
    expect(() => checkPrediction('peer', expectedPrediction() + 0.5)).toThrow('Cannot time peer');
  });
});
