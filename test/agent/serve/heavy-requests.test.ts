import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { HeavyCall, HeavyLane } from '../../../agent/infer/heavy-lane.ts';
import type { OrtTensors } from '../../../agent/infer/session.ts';
import { HeavyRequests } from '../../../agent/serve/heavy-requests.ts';
import type { Request } from '../../../agent/serve/request.ts';
import type { ServedBundle } from '../../../agent/serve/slot.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { REASONS } from '../../../protocol/frames.ts';
import { floats } from '../bundles/tiny-onnx.ts';
import { outputsOf, predictFrame, requestOf, servedBundle, TENSORS, vector } from './served.ts';

interface Handed {
  readonly bundleId: string;
  readonly directory: string;
  readonly feeds: OrtTensors;
  readonly call: HeavyCall;
}

interface Setup {
  readonly heavy: HeavyRequests;
  readonly handed: Handed[];
  readonly completed: Request[];
  readonly discarded: Request[];
  readonly suspended: string[];
  readonly lane: { isFull: boolean; inFlight: number };
}

/** HeavyRequests over a lane that answers when the test says so. */
function setUp(): Setup {
  const handed: Handed[] = [];
  const completed: Request[] = [];
  const discarded: Request[] = [];
  const suspended: string[] = [];
  const lane = {
    isFull: false,
    inFlight: 0,
    run: (bundleId: string, directory: string, feeds: OrtTensors, call: HeavyCall) => {
      handed.push({ bundleId, directory, feeds, call });
    },
  };
  const heavy = new HeavyRequests({
    lane: lane as unknown as HeavyLane,
    complete: (request) => completed.push(request),
    discarded: (request) => discarded.push(request),
    suspended: (bundleId, why) => suspended.push(`${bundleId}: ${why}`),
  });
  return { heavy, handed, completed, discarded, suspended, lane };
}

const died = new SetpointError('not_ready', 'Cannot run the model: the heavy process ended meanwhile');

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance', 'queueMicrotask', 'setImmediate'] });
});

afterEach(() => {
  vi.useRealTimers();
});

describe('a request to the heavy lane', () => {
  test('is handed over with a copy of its features, and completed with the result', () => {
    const { heavy, handed, completed, discarded } = setUp();
    const bundle = servedBundle('heavy');
    const frame = predictFrame({ features: vector(5, 6) });
    const request = requestOf(bundle, frame);
    const arena = request.bytes;
    heavy.submit(request);
    // What was only borrowed may be overwritten now.
    arena.fill(0);
    if (frame.features.encoding === 'float32') frame.features.bytes.fill(0);
    expect(handed).toMatchObject([{ bundleId: bundle.bundleId, directory: bundle.directory }]);
    expect(handed[0]!.feeds).toEqual({ features: { type: 'float32', data: Float32Array.of(5, 6), dims: [1, 2], location: 'cpu' } });
    expect([...request.bytes]).toEqual([1]);
    handed[0]!.call.onResult(outputsOf(42));
    expect(completed).toEqual([request]);
    expect([request.prediction, request.isExpired, request.laneReasons]).toEqual([42, false, 0]);
    vi.advanceTimersByTime(10_000);
    expect([completed.length, discarded.length]).toEqual([1, 0]);
  });

  test('is completed before its deadline without a result, and the late result is discarded', () => {
    const { heavy, handed, completed, discarded } = setUp();
    const request = requestOf(servedBundle('heavy'), predictFrame({ deadlineMicros: 50_000 }));
    heavy.submit(request);
    vi.advanceTimersByTime(48);
    expect(completed).toEqual([]);
    vi.advanceTimersByTime(1);
    expect([completed, request.isExpired, discarded]).toEqual([[request], true, []]);
    handed[0]!.call.onResult(outputsOf(42));
    expect([completed.length, discarded]).toEqual([1, [request]]);
    expect(request.prediction).toBeNaN();
  });

  test('has only what is left of its deadline: time spent before counts', () => {
    const { heavy, completed } = setUp();
    heavy.submit(requestOf(servedBundle('heavy'), predictFrame({ deadlineMicros: 50_000 }), performance.now() - 30));
    vi.advanceTimersByTime(18);
    expect(completed).toHaveLength(0);
    vi.advanceTimersByTime(1);
    expect(completed).toHaveLength(1);
  });

  test('whose deadline has passed is completed in the next turn of timers', () => {
    const { heavy, completed } = setUp();
    heavy.submit(requestOf(servedBundle('heavy'), predictFrame({ deadlineMicros: 10 }), performance.now() - 5));
    expect(completed).toHaveLength(0);
    vi.advanceTimersByTime(1);
    expect(completed[0]?.isExpired).toBe(true);
  });

  test('whose model threw gets the fallback, or the error where there is none', () => {
    const { heavy, handed, completed } = setUp();
    const error = new SetpointError('invalid_field', 'Cannot run the model: it broke');
    for (const bundle of [servedBundle('heavy'), servedBundle('heavy', TENSORS)]) {
      heavy.submit(requestOf(bundle));
      handed.at(-1)!.call.onFailure(error, false);
    }
    expect(completed.map((request) => [request.laneReasons, request.error])).toEqual([
      [REASONS.model_failed, null],
      [0, error],
    ]);
  });

  test('that finds the lane full is refused for overload, and not handed over', () => {
    const { heavy, handed, completed, lane } = setUp();
    lane.isFull = true;
    lane.inFlight = 64;
    for (const bundle of [servedBundle('heavy'), servedBundle('heavy', TENSORS)]) heavy.submit(requestOf(bundle));
    expect(handed).toEqual([]);
    expect(completed.map((request) => [request.laneReasons, request.error?.code ?? null])).toEqual([
      [REASONS.overload, null],
      [0, 'overloaded'],
    ]);
    expect(completed[1]!.error?.message).toBe('Cannot run the model: 64 runs are waiting');
  });

  test.each([
    ['a vector of another length', vector(1), REASONS.input_count],
    ['NaN', vector(1, Number.NaN), REASONS.input_not_finite],
    ['a value outside its range', vector(1001, 0), REASONS.input_range],
  ])('with %s is not handed over', (_name, features, reasons) => {
    const { heavy, handed, completed } = setUp();
    heavy.submit(requestOf(servedBundle('heavy'), predictFrame({ features })));
    expect([handed.length, completed[0]?.inputReasons]).toEqual([0, reasons]);
  });

  test('of a slot without a guard gets the error of its input, and may hold NaN', () => {
    const { heavy, handed, completed } = setUp();
    const bundle = servedBundle('heavy', TENSORS);
    heavy.submit(requestOf(bundle, predictFrame({ features: vector(1) })));
    expect(completed[0]?.error?.message).toBe("Cannot run the model: input 'features' takes FP32 [-1, 2], [1, 1] was sent");
    heavy.submit(
      requestOf(bundle, predictFrame({ features: { encoding: 'tensors', tensors: [floats('features', [2, 2], [1, NaN, 3, 4])] } })),
    );
    expect(handed[0]?.feeds).toEqual({
      features: { type: 'float32', data: Float32Array.of(1, Number.NaN, 3, 4), dims: [2, 2], location: 'cpu' },
    });
  });
});

describe('suspension', () => {
  /** One run during which the process dies. */
  function crash({ heavy, handed }: Setup, bundle: ServedBundle): void {
    heavy.submit(requestOf(bundle));
    handed.at(-1)!.call.onFailure(died, true);
    vi.runAllTicks();
    vi.advanceTimersByTime(1);
  }

  test('comes with the third death of the process during runs of a bundle, and is told once', () => {
    const setup = setUp();
    const bundle = servedBundle('heavy');
    crash(setup, bundle);
    crash(setup, bundle);
    expect([bundle.isSuspended, setup.suspended]).toEqual([false, []]);
    crash(setup, bundle);
    expect([bundle.isSuspended, setup.suspended]).toEqual([true, [`${bundle.bundleId}: the heavy process died 3 times while it ran`]]);
  });

  test('keeps later requests of the bundle from the process: the fallback answers, or an error', () => {
    const setup = setUp();
    const guarded = servedBundle('heavy');
    const unguarded = servedBundle('heavy', TENSORS);
    guarded.isSuspended = true;
    unguarded.isSuspended = true;
    setup.heavy.submit(requestOf(guarded));
    setup.heavy.submit(requestOf(unguarded));
    expect(setup.handed).toEqual([]);
    expect(setup.completed.map((request) => [request.laneReasons, request.error?.code ?? null])).toEqual([
      [REASONS.model_failed, null],
      [0, 'not_ready'],
    ]);
  });

  test('does not come from failures that are no death of the process', () => {
    const setup = setUp();
    const bundle = servedBundle('heavy');
    for (let index = 0; index < 10; index++) {
      setup.heavy.submit(requestOf(bundle));
      setup.handed.at(-1)!.call.onFailure(died, false);
    }
    expect([bundle.isSuspended, setup.suspended]).toEqual([false, []]);
  });

  test('counts a death after the deadline, too', () => {
    const setup = setUp();
    const bundle = servedBundle('heavy');
    for (let index = 0; index < 3; index++) {
      setup.heavy.submit(requestOf(bundle, predictFrame({ deadlineMicros: 1000 })));
      vi.advanceTimersByTime(100);
      setup.handed.at(-1)!.call.onFailure(died, true);
      vi.runAllTicks();
      vi.advanceTimersByTime(1);
    }
    expect([bundle.isSuspended, setup.completed.length, setup.discarded.length]).toEqual([true, 3, 3]);
  });

  test('is counted for each bundle by itself', () => {
    const setup = setUp();
    const bundles = [servedBundle('heavy'), servedBundle('heavy')];
    for (const bundle of [...bundles, ...bundles]) crash(setup, bundle);
    expect(bundles.map((bundle) => bundle.isSuspended)).toEqual([false, false]);
  });

  test('counts one death of the process once, however many runs of the bundle it ended', () => {
    const setup = setUp();
    const bundle = servedBundle('heavy');
    for (let index = 0; index < 5; index++) setup.heavy.submit(requestOf(bundle));
    for (const { call } of setup.handed) call.onFailure(died, true);
    expect(bundle.isSuspended).toBe(false);
  });

  test('does not come from deaths that are explained by another bundle, until the next process has started', () => {
    const setup = setUp();
    const bundle = servedBundle('heavy');
    for (let index = 0; index < 5; index++) {
      setup.heavy.explainDeath();
      crash(setup, bundle);
      setup.heavy.processStarted();
    }
    expect(bundle.isSuspended).toBe(false);
    for (let index = 0; index < 3; index++) crash(setup, bundle);
    expect(bundle.isSuspended).toBe(true);
  });
});
