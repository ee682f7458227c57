import type { AddressInfo } from 'node:net';
import { describe, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { SetpointClient } from '../../protocol/client.ts';
import type { ClientOptions } from '../../protocol/client-types.ts';
import { decodeClientFrame, encodeFrame } from '../../protocol/codec.ts';
import type { DecisionFrame } from '../../protocol/frames.ts';
import { PROTOCOL_VERSION, SUBPROTOCOL } from '../../protocol/limits.ts';
import { FakeWorld, golden } from './fake-agent.ts';

const FEATURES = Float32Array.of(1.5, -2);
const LOCAL = { value: 44, correction: 12 };

function decisionFor(requestId: number): DecisionFrame {
  return { ...golden('decision of the model', 4), requestId };
}

function start(options: Partial<ClientOptions> = {}): { world: FakeWorld; client: SetpointClient; states: string[] } {
  const world = new FakeWorld();
  const states: string[] = [];
  const onState: ClientOptions['onState'] = (state, error) => states.push(error === null ? state : `${state}: ${error.message}`);
  const client = new SetpointClient({ url: 'ws://agent', environment: world.environment, onState, ...options });
  return { world, client, states };
}

function connected(options: Partial<ClientOptions> = {}): ReturnType<typeof start> {
  const started = start(options);
  void started.client.connect();
  started.world.welcome();
  return started;
}

describe('connecting', () => {
  test('says hello with the whole version window, name and token, and knows the slots from welcome', async () => {
    const { world, client, states } = start({ token: 's3cret', clientName: 'etch-host 4.2' });
    const connecting = client.connect();
    expect(world.socket).toMatchObject({ url: 'ws://agent', subprotocol: SUBPROTOCOL, binaryType: 'arraybuffer' });
    world.welcome();
    expect(await connecting).toBe(true);
    expect(world.socket.received).toEqual([
      { kind: 1, versionOldest: 1, versionNewest: PROTOCOL_VERSION, client: 'etch-host 4.2', token: 's3cret' },
    ]);
    expect(client.slots.map(({ slot }) => slot)).toEqual(['cd/scanner-a/x', 'image']);
    expect(client.agentId).toBe('agent-7');
    expect(states).toEqual(['connecting', 'connected']);
  });

  test('connect() resolves to false when no agent answers in time, and goes on trying', async () => {
    const { world, client } = start();
    const connecting = client.connect(1_000);
    world.advance(1_000);
    expect(await connecting).toBe(false);
    const ready = client.ready(60_000);
    world.advance(5_000);
    world.welcome();
    expect(await ready).toBe(true);
    expect(world.sockets).toHaveLength(2);
  });

  test('reconnects with full jitter: each delay is a random part of a window that doubles', () => {
    const { world, client } = start();
    void client.connect();
    const delays: number[] = [];
    for (const random of [0.5, 0.25, 0, 0.75, 0.5, 0.5, 0.5, 0.5, 0.5]) {
      const before = world.sockets.length;
      const lostAt = world.nowMillis;
      world.random = random;
      world.socket.fail();
      while (world.sockets.length === before) world.advance(25);
      delays.push(world.nowMillis - lostAt);
    }
    expect(delays).toEqual([50, 50, 25, 600, 800, 1600, 3200, 5000, 5000]);
  });

  test('starts again with the shortest delay only after a connection that lasted', () => {
    const { world } = connected();
    world.socket.fail();
    world.advance(50);
    world.welcome();
    world.socket.fail();
    world.advance(99);
    expect(world.sockets).toHaveLength(2);
    world.advance(1);
    expect(world.sockets).toHaveLength(3);
    world.welcome();
    world.advance(10_000);
    world.socket.fail();
    world.advance(50);
    expect(world.sockets).toHaveLength(4);
  });

  test('tells why the agent refused hello', () => {
    const { world, client, states } = start();
    void client.connect();
    world.socket.accept();
    const error = { ...golden('error', 7), requestId: null, code: 'unauthorized', message: 'Cannot accept hello: the token is wrong' };
    world.socket.answer(error);
    world.socket.fail(1008, 'unauthorized');
    expect(states).toEqual(['connecting', 'waiting: Cannot accept hello: the token is wrong']);
  });

  test('gives up an attempt without a welcome after 5 s', () => {
    const { world, client, states } = start();
    void client.connect();
    world.socket.accept();
    world.advance(5_000);
    expect(states.at(-1)).toBe('waiting: Cannot connect to ws://agent: no welcome within 5000 ms');
    expect(world.sockets[0]?.closedWith).toBe(1000);
  });

  test('survives an address that cannot be opened', async () => {
    const { world, client } = start();
    world.refusesSockets = true;
    void client.connect();
    expect(client.state).toBe('waiting');
    expect(await client.predict('s', FEATURES, { localFallback: LOCAL })).toMatchObject({ source: 'local', cause: 'disconnected' });
  });

  test('drops an agent that breaks the protocol', () => {
    for (const breach of ['text', new Uint8Array([0xc1]).buffer, Uint8Array.from(encodeFrame(golden('welcome', 2))).buffer]) {
      const { world, client } = connected();
      world.socket.answerRaw(breach);
      expect(client.state).toBe('waiting');
      expect(client.statistics.protocolBreaches).toBe(1);
    }
    const { world, client, states } = start();
    void client.connect();
    world.socket.accept();
    world.socket.answer({ ...golden('welcome', 2), version: PROTOCOL_VERSION + 1 });
    expect(client.state).toBe('waiting');
    expect(states.at(-1)).toContain('the agent chose protocol version 2, 1 .. 1 is allowed');
  });
});

describe('predict()', () => {
  test("resolves with the agent's decision", async () => {
    const { world, client } = connected();
    const asked = client.predict('cd/scanner-a/x', FEATURES, { context: { lotId: 'LOT42' }, deadlineMicros: 5_000, lastApplied: 12.5 });
    const sent = world.socket.received[1];
    expect(sent).toMatchObject({
      kind: 3,
      slot: 'cd/scanner-a/x',
      context: { lotId: 'LOT42', substrateId: null, processEndMillis: null },
      deadlineMicros: 5_000,
      lastApplied: 12.5,
      features: { encoding: 'float32', bytes: new Uint8Array(FEATURES.buffer) },
      outputs: null,
    });
    world.socket.answer(decisionFor(1));
    expect(await asked).toEqual({ source: 'agent', value: 45.125, correction: 12.75, action: 'model', decision: decisionFor(1) });
    expect(client.statistics).toMatchObject({ requests: 1, answered: 1, connections: 1 });
    expect(world.timers).toBe(0);
  });

  test('sends the viewed part of a float64 vector, and named tensors as they are', () => {
    const { world, client } = connected();
    void client.predict('s', Float64Array.of(1, 2, 3).subarray(1));
    expect(world.socket.received[1]).toMatchObject({
      features: { encoding: 'float64', bytes: new Uint8Array(Float64Array.of(2, 3).buffer) },
    });
    const { features } = golden('predict tensors', 3);
    if (features.encoding !== 'tensors') throw new Error('wrong golden frame');
    void client.predict('s', features.tensors, { outputs: [] });
    expect(world.socket.received[2]).toMatchObject({ features, outputs: [], context: null });
    client.close();
  });

  test('answers locally at the deadline plus the network allowance, not before', async () => {
    const { world, client } = connected({ networkAllowanceMicros: 3_000 });
    let answer: unknown = null;
    const asked = client.predict('s', FEATURES, { deadlineMicros: 5_000, localFallback: LOCAL }).then((given) => (answer = given));
    world.advance(7.9);
    await Promise.resolve();
    expect(answer).toBeNull();
    world.advance(0.1);
    await asked;
    expect(answer).toMatchObject({ source: 'local', cause: 'timeout', value: 44, correction: 12 });
    expect(client.statistics.timedOut).toBe(1);
  });

  test("waits for the agent's default deadline when it asks for none", async () => {
    const { world, client } = start();
    void client.connect();
    world.welcome({ defaultDeadlineMicros: 7_000 });
    const asked = client.predict('s', FEATURES);
    world.advance(26.9);
    expect(client.statistics.timedOut).toBe(0);
    world.advance(0.1);
    expect(await asked).toMatchObject({ source: 'local', cause: 'timeout', value: null, correction: null });
  });

  test('discards and counts a late reply', async () => {
    const { world, client } = connected();
    const asked = client.predict('s', FEATURES, { deadlineMicros: 1_000, localFallback: LOCAL });
    world.advance(21);
    world.socket.answer(decisionFor(1));
    expect(await asked).toMatchObject({ source: 'local', cause: 'timeout' });
    expect(client.statistics).toMatchObject({ lateReplies: 1, answered: 0 });
  });

  test('answers locally and at once without a connection', async () => {
    const { client } = start();
    expect(await client.predict('s', FEATURES, { localFallback: LOCAL })).toMatchObject({
      source: 'local',
      cause: 'disconnected',
      value: 44,
    });
    expect(client.statistics.disconnected).toBe(1);
  });

  test('answers locally at once when the connection is lost before the answer', async () => {
    const { world, client } = connected();
    const asked = client.predict('s', FEATURES, { localFallback: { correction: 12 } });
    world.socket.fail(1001, 'stopping');
    const answer = await asked;
    expect(answer).toMatchObject({ source: 'local', cause: 'disconnected', value: null, correction: 12 });
    expect(answer.source === 'local' && answer.error.message).toContain('close code 1001: stopping');
  });

  test("answers locally with the agent's own error when it refuses", async () => {
    const { world, client } = connected();
    const asked = client.predict('cd/scanner-b/x', FEATURES, { localFallback: LOCAL });
    world.socket.answer({ ...golden('error', 7), requestId: 1 });
    const error = { code: 'unknown_slot', field: 'slot', remedy: 'use one of the slots listed in welcome' };
    expect(await asked).toMatchObject({ source: 'local', cause: 'refused', value: 44, error });
    expect(client.statistics.refused).toBe(1);
  });

  test('keeps the text of an error code it does not know', async () => {
    const { world, client } = connected();
    const asked = client.predict('s', FEATURES);
    world.socket.answer({ ...golden('error', 7), requestId: 1, code: 'too_new', message: 'Cannot predict' });
    expect(await asked).toMatchObject({ error: { code: 'internal', message: 'too_new: Cannot predict' } });
  });

  test("keeps within the agent's bound of unanswered requests, timed-out ones included", async () => {
    const { world, client } = start();
    void client.connect();
    world.welcome({ maxInFlight: 2 });
    const first = client.predict('s', FEATURES, { deadlineMicros: 1_000 });
    const second = client.predict('s', FEATURES, { deadlineMicros: 1_000 });
    expect(await client.predict('s', FEATURES, { localFallback: LOCAL })).toMatchObject({
      cause: 'refused',
      value: 44,
      error: { code: 'overloaded' },
    });
    world.advance(21);
    await Promise.all([first, second]);
    expect(await client.predict('s', FEATURES)).toMatchObject({ cause: 'refused' });
    expect(world.socket.received).toHaveLength(3);
    world.socket.answer(decisionFor(1));
    void client.predict('s', FEATURES);
    expect(world.socket.received).toHaveLength(4);
    client.close();
  });

  test('answers locally when the socket no longer takes bytes', async () => {
    const { world, client } = connected();
    world.socket.bufferedAmount = 16 * 1024 * 1024 + 1;
    expect(await client.predict('s', FEATURES)).toMatchObject({ cause: 'refused', error: { code: 'overloaded' } });
  });

  test('answers locally when the frame is larger than the agent takes', async () => {
    const { world, client } = start();
    void client.connect();
    world.welcome({ maxFrameBytes: 100 });
    expect(await client.predict('s', new Float32Array(100))).toMatchObject({ cause: 'refused', error: { code: 'frame_too_large' } });
    expect(await client.predict('s', new Float32Array(300_000))).toMatchObject({ cause: 'refused', error: { code: 'frame_too_large' } });
  });

  test('drops a connection that stays silent for 5 s after a time-out', async () => {
    const { world, client, states } = connected();
    const asked = client.predict('s', FEATURES, { deadlineMicros: 1_000 });
    world.advance(5_020);
    expect(client.state).toBe('connected');
    world.advance(1);
    await asked;
    expect(states.at(-1)).toBe('waiting: Cannot keep the connection: nothing arrived for 5000 ms');
  });

  test('keeps a connection on which anything arrives after a time-out', () => {
    const { world, client } = connected();
    void client.predict('s', FEATURES, { deadlineMicros: 1_000 });
    world.advance(3_000);
    world.socket.answer(decisionFor(1));
    world.advance(60_000);
    expect(client.state).toBe('connected');
  });
});

describe('observe()', () => {
  const observation = {
    context: { lotId: 'LOT42' },
    measurementId: 'm1',
    parameter: 'CD',
    value: 45.25,
    measuredAtMillis: 1_795_000_360_000,
  };

  test('resolves with what became of the observation', async () => {
    const { world, client } = connected();
    const asked = client.observe('s', { ...observation, unit: 'nm' });
    expect(world.socket.received[1]).toMatchObject({ kind: 5, slot: 's', measurementId: 'm1', unit: 'nm', appliedInput: null });
    world.socket.answer({ ...golden('observed', 6), requestId: 1 });
    expect(await asked).toMatchObject({ recorded: true, outcome: 'applied', estimate: 45.1875 });
  });

  test('says that it was not recorded when there is no agent, no answer or a refusal', async () => {
    const { world, client } = connected();
    const unanswered = client.observe('s', observation);
    world.advance(2_000);
    expect(await unanswered).toMatchObject({ recorded: false, cause: 'timeout' });
    const refused = client.observe('s', observation);
    world.socket.answer({ ...golden('error', 7), requestId: 2 });
    expect(await refused).toMatchObject({ recorded: false, cause: 'refused' });
    client.close();
    expect(await client.observe('s', observation)).toMatchObject({ recorded: false, cause: 'disconnected' });
  });

  test('does not take a decision for an answer', async () => {
    const { world, client } = connected();
    const asked = client.observe('s', observation);
    world.socket.answer(decisionFor(1));
    expect(await asked).toMatchObject({ recorded: false, cause: 'refused', error: { code: 'internal' } });
  });
});

describe('close()', () => {
  test('answers what is open, connects no more, and leaves no timer behind', async () => {
    const { world, client, states } = connected();
    const asked = client.predict('s', FEATURES, { localFallback: LOCAL });
    client.close();
    client.close();
    expect(await asked).toMatchObject({ source: 'local', cause: 'disconnected' });
    expect(world.socket.closedWith).toBe(1000);
    expect(states.at(-1)).toBe('closed');
    expect(world.timers).toBe(0);
    world.advance(60_000);
    expect(world.sockets).toHaveLength(1);
    expect(await client.connect()).toBe(false);
  });

  test('ends a connect() that is still waiting', async () => {
    const { world, client } = start();
    const connecting = client.connect();
    client.close();
    expect(await connecting).toBe(false);
    expect(world.timers).toBe(0);
  });
});

test("works over the runtime's own WebSocket", async () => {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', handleProtocols: () => SUBPROTOCOL });
  server.on('connection', (socket) => {
    socket.on('message', (message: Buffer) => {
      const frame = decodeClientFrame(message);
      if (frame.kind === 1) socket.send(encodeFrame(golden('welcome', 2)));
      if (frame.kind === 3) socket.send(encodeFrame(decisionFor(frame.requestId)));
      if (frame.kind === 5) socket.send(encodeFrame({ ...golden('observed', 6), requestId: frame.requestId }));
    });
  });
  await new Promise((resolve) => server.once('listening', resolve));
  const client = new SetpointClient({ url: `ws://127.0.0.1:${(server.address() as AddressInfo).port}` });
  try {
    expect(await client.connect(5_000)).toBe(true);
    const answers = await Promise.all(Array.from({ length: 100 }, () => client.predict('s', FEATURES, { deadlineMicros: 5_000_000 })));
    expect(answers.every(({ source, value }) => source === 'agent' && value === 45.125)).toBe(true);
    server.clients.forEach((socket) => socket.terminate());
    const context = { lotId: 'L' };
    while (client.state === 'connected') await new Promise((resolve) => setImmediate(resolve));
    expect(await client.ready(5_000)).toBe(true);
    expect(await client.observe('s', { context, measurementId: 'm', parameter: 'p', value: 1, measuredAtMillis: 0 })).toMatchObject({
      recorded: true,
    });
    expect(client.statistics.connections).toBe(2);
  } finally {
    client.close();
    server.close();
  }
});
