import { describe, expect, test, vi } from 'vitest';
import { controlThreadKey } from '../../../agent/guard/control-thread.ts';
import { decodeServerFrame } from '../../../protocol/codec.ts';
import { REASONS } from '../../../protocol/frames.ts';
import { MAX_FRAME_BYTES } from '../../../protocol/limits.ts';
import { floats } from '../bundles/tiny-onnx.ts';
import { BASELINE, NO_CONTEXT, outputsOf, predictFrame, RecordingTarget, servedBundle, slotWith, TENSORS, vector } from './served.ts';
import { inlineSlot, nextTurn, predict, setUp, WALL_MILLIS } from './turn-setup.ts';

describe('the fallback', () => {
  test('answers what the guard refuses, without a run, and tells the reasons', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1, { features: vector(1) });
    predict(setup, slot, 2, { features: vector(Number.NaN, 0) });
    predict(setup, slot, 3, { features: vector(1001, 0) });
    await nextTurn();
    const reasons = [REASONS.input_count, REASONS.input_not_finite, REASONS.input_range].map((one) => one | REASONS.fallback_missing);
    expect(setup.target.decisions).toMatchObject(
      reasons.map((one) => ({ action: 'fallback', reasons: one, value: BASELINE, rawValue: null })),
    );
    expect(setup.log.some((entry) => entry.startsWith('run'))).toBe(false);
    expect(setup.alerts).toEqual(reasons.map((one) => `etch ${one}`));
  });

  test('answers when the model throws', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    vi.spyOn(slot.active!.model!, 'runRows').mockImplementation(() => {
      throw new Error('it broke');
    });
    predict(setup, slot, 1);
    predict(setup, slot, 2);
    await nextTurn();
    expect(setup.target.decisions.map(({ action, reasons }) => [action, reasons])).toEqual(
      [1, 2].map(() => ['fallback', REASONS.model_failed | REASONS.fallback_missing]),
    );
  });

  test('answers after the deadline', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    const frame = predictFrame({ deadlineMicros: 1000, outputs: [] });
    setup.turn.predict(setup.target, slot, slot.active!, frame, Uint8Array.of(1), performance.now() - 2);
    await nextTurn();
    expect(setup.target.decisions).toMatchObject([
      { action: 'fallback', reasons: REASONS.deadline | REASONS.fallback_missing, outputs: null },
    ]);
  });

  test('answers with the estimate of the control thread of the request', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    const known = {
      count: 5,
      intercept: 71.5,
      drift: 0,
      gapRuns: 1,
      lastRunNumber: null,
      lastProcessMillis: WALL_MILLIS,
      outliers: [],
      outlierSide: 0,
    } as const;
    const context = { ...NO_CONTEXT, equipmentId: 'E1' };
    slot.estimators.set(controlThreadKey('etch', context, ['equipmentId']), { base: known, baseEnd: null, history: [], current: known });
    predict(setup, slot, 1, { features: vector(1), context });
    predict(setup, slot, 2, { features: vector(1), context: { ...context, equipmentId: 'E2' } });
    await nextTurn();
    expect(setup.target.decisions.map(({ value, reasons }) => [value, reasons])).toEqual([
      [71.5, REASONS.input_count],
      [BASELINE, REASONS.input_count | REASONS.fallback_missing],
    ]);
  });
});

describe('a slot without a guard', () => {
  test('answers with its outputs, and refuses what does not fit its model, without a record', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log, TENSORS);
    predict(setup, slot, 1, { outputs: [] });
    predict(setup, slot, 2, { features: vector(1, 2, 3), outputs: [] });
    predict(setup, slot, 3, { features: { encoding: 'tensors', tensors: [floats('features', [2, 2], [7, 0, 8, 0])] }, outputs: ['y'] });
    await nextTurn();
    expect(setup.target.decisions.map(({ requestId, outputs }) => [requestId, outputs])).toEqual([
      [1, [floats('y', [1, 1], [1])]],
      [3, [floats('y', [2, 1], [7, 8])]],
    ]);
    expect(setup.target.errors.map(({ code, message }) => [code, message])).toEqual([
      ['invalid_field', "Cannot run the model: input 'features' takes FP32 [-1, 2], [1, 3] was sent"],
    ]);
    expect([setup.journal.nextSequence, setup.metrics.slotField(0, 'errors')]).toEqual([3, 1]);
  });
});

describe('outputs', () => {
  test('that do not fit a frame are left out of a guarded answer', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    const wide = {
      y: { type: 'float32', data: new Float32Array(MAX_FRAME_BYTES / 4 + 1), dims: [1, MAX_FRAME_BYTES / 4 + 1], location: 'cpu' },
    } as const;
    vi.spyOn(slot.active!.model!, 'runRows').mockReturnValue(wide);
    predict(setup, slot, 1, { outputs: [] });
    await nextTurn();
    expect(setup.target.decisions.map(({ requestId }) => requestId)).toEqual([1]);
    expect(decodeServerFrame(setup.target.frames[0]!)).toMatchObject({ action: 'model', value: 0, outputs: null });
  });

  test('that do not fit a frame are an error where they are the whole answer', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log, TENSORS);
    const wide = {
      y: { type: 'float32', data: new Float32Array(MAX_FRAME_BYTES / 4 + 1), dims: [1, MAX_FRAME_BYTES / 4 + 1], location: 'cpu' },
    } as const;
    vi.spyOn(slot.active!.model!, 'runRows').mockReturnValue(wide);
    predict(setup, slot, 1, { outputs: [] });
    const http = new RecordingTarget(setup.log, false);
    predict({ turn: setup.turn, target: http }, slot, 2, { outputs: [] });
    await nextTurn();
    expect(setup.target.errors.map(({ code }) => code)).toEqual(['frame_too_large']);
    expect(http.decisions.map(({ outputs }) => outputs?.length)).toEqual([1]);
    expect(setup.journal.nextSequence).toBe(2);
  });

  test('are cut to the row of each request', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 4, { outputs: ['y'] });
    predict(setup, slot, 5, { outputs: null });
    predict(setup, slot, 6, { outputs: [] });
    predict(setup, slot, 7, { outputs: ['nothing'] });
    await nextTurn();
    expect(setup.target.decisions.map(({ outputs }) => outputs)).toEqual([
      [floats('y', [1, 1], [4])],
      null,
      [floats('y', [1, 1], [6])],
      [],
    ]);
  });
});

describe('the heavy lane', () => {
  test('takes requests out of the turn, and brings them back into a later one', async () => {
    const setup = setUp();
    const slot = slotWith(servedBundle('heavy'));
    predict(setup, slot, 1);
    await nextTurn();
    expect([setup.heavy.length, setup.log]).toEqual([1, []]);
    const request = setup.heavy[0]!;
    request.prediction = outputsOf(42)['y']!.data[0] as number;
    setup.turn.complete(request);
    await nextTurn();
    expect(setup.log).toEqual(['append 1', 'commit', 'decided 1', 'flush']);
    expect(setup.target.decisions).toMatchObject([{ action: 'model', value: 42 }]);
  });

  test('has the fallback answer what its timer gave up', async () => {
    const setup = setUp();
    predict(setup, slotWith(servedBundle('heavy')), 1);
    setup.heavy[0]!.isExpired = true;
    setup.turn.complete(setup.heavy[0]!);
    await nextTurn();
    expect(setup.target.decisions).toMatchObject([
      { action: 'fallback', reasons: REASONS.deadline | REASONS.fallback_missing, value: BASELINE },
    ]);
  });
});
