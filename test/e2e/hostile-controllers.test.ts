import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { OPCODES } from '../../bench/websocket-frames.ts';
import { encodeFrame } from '../../protocol/codec.ts';
import { FRAME_KINDS, type PredictFrame, reasonNames, type ServerFrame } from '../../protocol/frames.ts';
import { MAX_BAD_FRAMES, MAX_FRAME_BYTES, MAX_IN_FLIGHT } from '../../protocol/limits.ts';
import { type RunningAgent, startAgent, temporaryDirectory, waitFor } from '../support/agent.ts';
import { countingInput, goldenFeatures, shippedBundle, writeCountingBundle, writeWideBundle } from '../support/models.ts';
import { asDecision, connectTcp, delay, openController, predictFrame, RawSocket, startWitness } from '../support/raw-socket.ts';

/** Whatever one controller does, the others go on getting the model's answers. */

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const HELLO = { kind: FRAME_KINDS.hello, versionOldest: 1, versionNewest: 1, client: 'raw', token: null } as const;
const GARBAGE = Uint8Array.of(0xc1, 0xff, 0x00, 0x93);

function predict(requestId = 1, more: Partial<PredictFrame> = {}): PredictFrame {
  return predictFrame(requestId, SLOT, FEATURES, more);
}

function errorCode(frame: ServerFrame): string {
  return frame.kind === FRAME_KINDS.error ? frame.code : `kind ${frame.kind}`;
}

async function metric(agent: RunningAgent, name: string): Promise<number> {
  const text = await (await fetch(`${agent.http}/metrics`)).text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

function residentBytes(agent: RunningAgent): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${agent.process.pid}/status`, 'latin1'))?.[1]) * 1024;
}

function openFiles(agent: RunningAgent): number {
  return readdirSync(`/proc/${agent.process.pid}/fd`).length;
}

/** Runs `act` while another controller asks the agent, which must not notice. */
async function withWitness(agent: RunningAgent, act: () => Promise<void>): Promise<void> {
  const witness = await startWitness(agent.port, SLOT, FEATURES);
  await act();
  // At least one answer after the last act.
  await delay(30);
  const { answers, failures } = await witness.stop();
  expect(failures).toEqual([]);
  expect(answers).toBeGreaterThan(1);
}

describe('a request that the model must not see', () => {
  const requests: Record<string, { frame: PredictFrame; reason: string }> = {
    'a NaN feature': {
      frame: predictFrame(
        1,
        SLOT,
        FEATURES.map((one, at) => (at === 3 ? Number.NaN : one)),
      ),
      reason: 'input_not_finite',
    },
    'an infinite feature': {
      frame: predictFrame(
        2,
        SLOT,
        FEATURES.map((one, at) => (at === 3 ? Infinity : one)),
      ),
      reason: 'input_not_finite',
    },
    'a feature too few': { frame: predictFrame(3, SLOT, FEATURES.slice(1)), reason: 'input_count' },
    'ten times the features': { frame: predictFrame(4, SLOT, new Float32Array(FEATURES.length * 10)), reason: 'input_count' },
    'tensors of another name': {
      frame: predictFrame(5, SLOT, [{ name: 'x', datatype: 'FP32', shape: [1, 1], bytes: new Uint8Array(4) }]),
      reason: 'input_count',
    },
    'a feature out of range': { frame: predictFrame(6, SLOT, new Float32Array(FEATURES.length).fill(1e9)), reason: 'input_range' },
    'a deadline of a microsecond': { frame: predict(7, { deadlineMicros: 1 }), reason: 'deadline' },
  };

  test('gets the fallback with the reason, beside requests that get the model', async () => {
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE } });
    await withWitness(agent, async () => {
      const controller = await openController(agent.port);
      // Together in one turn of the agent, so that a spoilt row could spoil its neighbours' batch.
      const sound = [101, 102, 103].map((requestId) => controller.ask(predict(requestId)));
      for (const [name, { frame, reason }] of Object.entries(requests)) {
        const decision = asDecision(await controller.ask(frame));
        expect(decision.action, name).toBe('fallback');
        expect(reasonNames(decision.reasons), name).toEqual([reason, 'fallback_missing']);
        expect(decision.value, name).toBe(45);
      }
      for (const answer of sound) expect(asDecision(await answer).action).toBe('model');
      const unknown = await controller.ask(predictFrame(8, 'cd/scanner-z', FEATURES));
      expect(unknown).toMatchObject({ kind: FRAME_KINDS.error, requestId: 8, code: 'unknown_slot', field: 'slot', retryable: false });
      expect(unknown.kind === FRAME_KINDS.error && unknown.message).toContain('cd/scanner-z');
      expect(asDecision(await controller.ask(predict(9))).action).toBe('model');
    });
  });
});

describe('a controller that breaks the protocol', () => {
  /** What it does after the upgrade, the errors it gets for it, and how the agent closes. */
  const breaches: Record<string, { act: (socket: RawSocket) => void | Promise<void>; errors: readonly string[]; close: number }> = {
    'a text message first': {
      act: (socket) => void socket.send(Buffer.from('hello'), OPCODES.text),
      errors: ['malformed_frame'],
      close: 1002,
    },
    'a text message after hello': {
      act: async (socket) => {
        await socket.hello();
        socket.send(Buffer.from('{"slot":"x"}'), OPCODES.text);
      },
      errors: ['malformed_frame'],
      close: 1002,
    },
    'predict before hello': { act: (socket) => void socket.send(predict()), errors: ['hello_required'], close: 1002 },
    'garbage before hello': { act: (socket) => void socket.send(GARBAGE), errors: ['malformed_frame'], close: 1002 },
    'a second hello': {
      act: async (socket) => {
        await socket.hello();
        socket.send(HELLO);
      },
      errors: ['hello_required'],
      close: 1002,
    },
    'versions of the future': {
      act: (socket) => void socket.send({ ...HELLO, versionOldest: 7, versionNewest: 9 }),
      errors: ['unsupported_version'],
      close: 1002,
    },
    'a frame above the limit': {
      act: async (socket) => {
        await socket.hello();
        socket.send(new Uint8Array(MAX_FRAME_BYTES + 1));
      },
      errors: [],
      close: 1009,
    },
    'a message far above the limit': {
      act: async (socket) => {
        await socket.hello();
        socket.send(new Uint8Array(4 * MAX_FRAME_BYTES));
      },
      // It is dropped at its header: nothing of it is kept, and no close frame is sent.
      errors: [],
      close: 1006,
    },
    'garbage without end': {
      act: async (socket) => {
        await socket.hello();
        for (let frame = 0; frame < MAX_BAD_FRAMES; frame++) socket.send(GARBAGE);
      },
      errors: Array<string>(MAX_BAD_FRAMES).fill('malformed_frame'),
      close: 1008,
    },
    'bytes that are no WebSocket frame': { act: (socket) => void socket.write(new Uint8Array(64).fill(0xff)), errors: [], close: 1006 },
  };

  test('gets the error and the close code that the specification gives', async () => {
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE } });
    await withWitness(agent, async () => {
      for (const [name, { act, errors, close }] of Object.entries(breaches)) {
        const socket = await RawSocket.open(agent.port);
        await act(socket);
        const { code } = await socket.closed;
        expect(socket.frames.map(errorCode), name).toEqual(errors);
        expect(code, name).toBe(close);
      }
      await refusesOtherSubprotocols(agent);
      await forgivesSomeBadFrames(agent);
      await waitsForHalfAFrame(agent);
    });
    expect(agent.process.exitCode).toBeNull();
  });

  async function refusesOtherSubprotocols(agent: RunningAgent): Promise<void> {
    for (const subprotocol of [null, 'mqtt', 'setpoint.v2', '']) {
      const socket = await RawSocket.open(agent.port, { subprotocol });
      expect(socket.status, String(subprotocol)).toBe(400);
      expect(socket.head).toContain('setpoint.v1');
      socket.destroy();
    }
    const several = await RawSocket.open(agent.port, { subprotocol: 'mqtt, setpoint.v1' });
    expect(several.status).toBe(101);
    several.destroy();
  }

  async function forgivesSomeBadFrames(agent: RunningAgent): Promise<void> {
    const socket = await openController(agent.port);
    const bad = [GARBAGE, Uint8Array.of(0x92, 0x63, 0x01), encodeFrame(predict(5)).subarray(0, 40), new Uint8Array(0), Uint8Array.of(0x80)];
    for (const bytes of bad) socket.send(bytes);
    const codes = [];
    for (let frame = 0; frame < bad.length; frame++) codes.push(errorCode(await socket.next()));
    expect(codes).toEqual(['malformed_frame', 'unknown_frame', 'malformed_frame', 'malformed_frame', 'malformed_frame']);
    expect(asDecision(await socket.ask(predict(6))).action).toBe('model');
    socket.destroy();
  }

  async function waitsForHalfAFrame(agent: RunningAgent): Promise<void> {
    const socket = await openController(agent.port);
    const open = await metric(agent, 'setpoint_connections_open');
    // The header promises 100,000 bytes, 10 come.
    socket.write(Uint8Array.of(0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x86, 0xa0, 0, 0, 0, 0, ...new Uint8Array(10)));
    await delay(100);
    const other = await openController(agent.port);
    expect(asDecision(await other.ask(predict())).action).toBe('model');
    other.destroy();
    socket.destroy();
    await waitFor(
      async () => (await metric(agent, 'setpoint_connections_open')) < open,
      10_000,
      () => 'the connection with half a frame is still counted',
    );
  }
});

test('a token that is configured is asked of every controller', async () => {
  const token = 'a-token-of-enough-letters';
  const agent = await startAgent({ slots: { [SLOT]: BUNDLE }, config: { controllerToken: token } });
  for (const wrong of [null, '', `${token}x`, token.slice(1), token.toUpperCase()]) {
    const socket = await RawSocket.open(agent.port);
    socket.send({ ...HELLO, token: wrong });
    socket.send(predict());
    const { code } = await socket.closed;
    expect(socket.frames.map(errorCode), String(wrong)).toEqual(['unauthorized']);
    expect(JSON.stringify(socket.frames)).not.toContain(token);
    expect(code, String(wrong)).toBe(1008);
  }
  const controller = await openController(agent.port, token);
  expect(asDecision(await controller.ask(predict())).action).toBe('model');
  expect(agent.log()).not.toContain(token);
});

test('a connection above the limit is refused with 503 until another one ends', async () => {
  const agent = await startAgent({ slots: { [SLOT]: BUNDLE }, config: { maxConnections: 3 } });
  const inside = [await openController(agent.port), await openController(agent.port), await openController(agent.port)];
  const refused = await RawSocket.open(agent.port);
  expect(refused.status).toBe(503);
  expect(refused.head).toContain('3 are allowed');
  expect(await metric(agent, 'setpoint_connections_refused_total')).toBe(1);
  for (const controller of inside) expect(asDecision(await controller.ask(predict())).action).toBe('model');
  inside[0]!.destroy();
  await waitFor(
    async () => (await metric(agent, 'setpoint_connections_open')) === 2,
    10_000,
    () => 'the place is not free',
  );
  const late = await openController(agent.port);
  expect(asDecision(await late.ask(predict())).action).toBe('model');
});

test('requests beyond those allowed in flight are refused as overloaded and the others answered', async () => {
  const directory = temporaryDirectory();
  const counting = writeCountingBundle(join(directory, 'counting'), 'prediction');
  const slots = { [SLOT]: BUNDLE, counting };
  const agent = await startAgent({ slots, config: { heavy: { queueLength: 4096 } } });
  await withWitness(agent, async () => {
    const controller = await openController(agent.port);
    await controller.ask(predictFrame(1, 'counting', countingInput(3)));
    const extra = 100;
    // The first one keeps the heavy lane busy until the last one has arrived.
    const answers = Array.from({ length: MAX_IN_FLIGHT + extra }, (_, at) =>
      controller.ask(predictFrame(10 + at, 'counting', countingInput(at === 0 ? 1_000_000 : 3), { deadlineMicros: 60_000_000 })),
    );
    const frames = await Promise.all(answers);
    const refused = frames.filter((frame) => frame.kind === FRAME_KINDS.error);
    expect(refused).toHaveLength(extra);
    for (const frame of refused) expect(frame).toMatchObject({ code: 'overloaded', retryable: true });
    expect(frames.slice(0, MAX_IN_FLIGHT).map((frame) => asDecision(frame).action)).toEqual(Array(MAX_IN_FLIGHT).fill('model'));
    expect(asDecision(await controller.ask(predictFrame(5, 'counting', countingInput(3)))).value).toBe(5);
  });
});

test('outputs that do not fit a frame are refused, and only they', async () => {
  const directory = temporaryDirectory();
  const wide = writeWideBundle(join(directory, 'wide'), MAX_FRAME_BYTES / 4);
  const agent = await startAgent({ slots: { [SLOT]: BUNDLE, wide } });
  const controller = await openController(agent.port);
  const answers = await Promise.all([
    controller.ask(predictFrame(1, 'wide', Float32Array.of(1), { outputs: [] })),
    controller.ask(predictFrame(2, 'wide', Float32Array.of(1))),
    controller.ask(predict(3)),
  ]);
  expect(answers.map((frame) => (frame.kind === FRAME_KINDS.error ? frame.code : asDecision(frame).action))).toEqual([
    'frame_too_large',
    'model',
    'model',
  ]);
});

test('a controller that never reads is disconnected and costs bounded memory', async () => {
  const directory = temporaryDirectory();
  const wide = writeWideBundle(join(directory, 'wide'), 4096);
  const agent = await startAgent({ slots: { [SLOT]: BUNDLE, wide } });
  const readers = 6;
  const requests = 8000;
  const replyBytes = 4096 * 4;
  // The buffers of six connections are 6 MiB; the rest is what a flood of requests in flight leaves to the garbage collector.
  const allowedBytes = 384 * 1024 * 1024;
  // What would be buffered without a limit, had the kernel taken 8 MiB of each connection.
  expect(readers * (requests * replyBytes - 8 * 1024 * 1024)).toBeGreaterThan(allowedBytes * 1.5);
  await withWitness(agent, async () => {
    const warm = await openController(agent.port);
    for (let round = 0; round < 50; round++) {
      await warm.ask(predictFrame(round, 'wide', Float32Array.of(1), { outputs: [] }));
    }
    warm.destroy();
    const before = residentBytes(agent);
    let peak = 0;
    const sampler = setInterval(() => {
      peak = Math.max(peak, residentBytes(agent));
    }, 20);
    onTestFinished(() => clearInterval(sampler));
    const flood = async (): Promise<void> => {
      const socket = await openController(agent.port);
      socket.pause();
      for (let sent = 0; sent < requests && !socket.isClosed; sent += 50) {
        for (let at = 0; at < 50; at++) socket.send(predictFrame(sent + at, 'wide', Float32Array.of(1), { outputs: [] }));
        await delay(2);
      }
      // Only a write tells a client that does not read that it was disconnected.
      while (!socket.isClosed) {
        socket.send(new Uint8Array(8), OPCODES.ping);
        await delay(20);
      }
    };
    await Promise.all(Array.from({ length: readers }, flood));
    clearInterval(sampler);
    expect(peak - before).toBeLessThan(allowedBytes);
    expect(await metric(agent, 'setpoint_connections_open')).toBe(1);
    expect(await metric(agent, 'setpoint_slow_readers_total')).toBe(readers);
  });
});

describe('ten thousand connections', () => {
  const CONNECTIONS = 10_000;
  const WAVE = 400;

  /** What a connection does before it is dropped. */
  const visits: readonly ((port: number) => Promise<void>)[] = [
    async (port) => void (await connectTcp(port)).destroy(),
    async (port) => void (await connectTcp(port)).resetAndDestroy(),
    async (port) => {
      const socket = await connectTcp(port);
      socket.write('GET /v2/health/live HTTP/1.1\r\nHost: x\r\n');
      socket.destroy();
    },
    async (port) => (await RawSocket.open(port)).destroy(),
    async (port) => {
      const socket = await RawSocket.open(port);
      socket.send(HELLO);
      for (let request = 0; request < 3; request++) socket.send(predict(request));
      socket.destroy();
    },
  ];

  test('opened and dropped leave nothing behind', { timeout: 90_000 }, async () => {
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE } });
    const first = await openController(agent.port);
    await first.ask(predict());
    const before = openFiles(agent);
    await withWitness(agent, async () => {
      for (let opened = 0; opened < CONNECTIONS; opened += WAVE) {
        await Promise.all(Array.from({ length: WAVE }, async (_, at) => await visits[at % visits.length]!(agent.port)));
      }
    });
    await waitFor(
      async () => (await metric(agent, 'setpoint_connections_open')) === 1,
      10_000,
      () => 'connections are still counted',
    );
    expect(await metric(agent, 'setpoint_connections_total')).toBeGreaterThanOrEqual((CONNECTIONS / visits.length) * 2);
    expect(asDecision(await first.ask(predict(2))).action).toBe('model');
    // The HTTP connection of the metrics stays open for a while.
    await waitFor(
      () => openFiles(agent) <= before + 2,
      10_000,
      () => `${openFiles(agent)} files are open, ${before} were`,
    );
  });
});
