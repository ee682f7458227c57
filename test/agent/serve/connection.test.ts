import { describe, expect, test } from 'vitest';
import { CLOSE_CODES, Connection, type Socket } from '../../../agent/serve/connection.ts';
import { decodeServerFrame, encodeFrame } from '../../../protocol/codec.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import {
  type ClientFrame,
  type ErrorFrame,
  FRAME_KINDS,
  type HelloFrame,
  type ObserveFrame,
  type PredictFrame,
  type ServerFrame,
  type WelcomeFrame,
} from '../../../protocol/frames.ts';
import { MAX_BAD_FRAMES, MAX_FRAME_BYTES, MAX_IN_FLIGHT, PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST } from '../../../protocol/limits.ts';
import { observeFrame, predictFrame } from './served.ts';

const TOKEN = 'the-token-of-controllers';

/** A socket that writes down what it is asked to do; like a real one it says that it is closed. */
class FakeSocket implements Socket {
  readonly log: string[] = [];
  readonly frames: ServerFrame[] = [];
  connection: Connection | null = null;
  #isCorked = false;

  cork(write: () => void): void {
    this.log.push('cork');
    this.#isCorked = true;
    write();
    this.#isCorked = false;
  }

  send(bytes: Uint8Array): void {
    const frame = decodeServerFrame(Uint8Array.from(bytes));
    this.frames.push(frame);
    const code = frame.kind === FRAME_KINDS.error ? ` ${frame.code}` : '';
    this.log.push(`${this.#isCorked ? 'corked ' : ''}send ${frame.kind}${code}`);
  }

  close(code: number, reason: string): void {
    this.log.push(`close ${code} ${reason}`);
    this.connection?.closed();
  }

  get errors(): ErrorFrame[] {
    return this.frames.filter((frame) => frame.kind === FRAME_KINDS.error);
  }
}

interface Setup {
  readonly connection: Connection;
  readonly socket: FakeSocket;
  readonly predicted: PredictFrame[];
  readonly observed: ObserveFrame[];
  readonly badFrames: () => number;
}

const WELCOME: WelcomeFrame = {
  kind: FRAME_KINDS.welcome,
  version: 0,
  agentId: 'etch-7',
  software: 'setpoint 0',
  serverTimeMicros: 1,
  limits: { maxFrameBytes: MAX_FRAME_BYTES, maxInFlight: MAX_IN_FLIGHT, defaultDeadlineMicros: 50_000 },
  slots: [],
};

function setUp(controllerToken: string | null = null): Setup {
  const predicted: PredictFrame[] = [];
  const observed: ObserveFrame[] = [];
  let bad = 0;
  const socket = new FakeSocket();
  const connection = new Connection(socket, {
    controllerToken,
    welcome: (version) => ({ ...WELCOME, version }),
    predict: (_, frame) => predicted.push(frame),
    observe: (_, frame) => observed.push(frame),
    badFrame: () => bad++,
  });
  socket.connection = connection;
  return { connection, socket, predicted, observed, badFrames: () => bad };
}

function hello(fields: Partial<HelloFrame> = {}): HelloFrame {
  return { kind: FRAME_KINDS.hello, versionOldest: 1, versionNewest: 1, client: 'test', token: null, ...fields };
}

function say(connection: Connection, frame: ClientFrame): void {
  connection.receive(encodeFrame(frame), true, 0);
}

/** A connection that has been welcomed; its log starts after that. */
function welcomed(): Setup {
  const setup = setUp();
  say(setup.connection, hello());
  setup.socket.log.length = 0;
  return setup;
}

describe('hello', () => {
  test('is answered by welcome with the highest version that both speak', () => {
    const { connection, socket, badFrames } = setUp();
    say(connection, hello({ versionOldest: PROTOCOL_VERSION_OLDEST, versionNewest: PROTOCOL_VERSION + 7 }));
    expect(socket.frames).toEqual([{ ...WELCOME, version: PROTOCOL_VERSION }]);
    expect([socket.log, badFrames()]).toEqual([['send 2'], 0]);
  });

  test.each([
    ['only newer ones', PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2],
    ['only older ones', PROTOCOL_VERSION_OLDEST - 1, PROTOCOL_VERSION_OLDEST - 1],
  ])('that speaks %s is refused with the window, and closed with 1002', (_name, versionOldest, versionNewest) => {
    const { connection, socket } = setUp();
    say(connection, hello({ versionOldest, versionNewest }));
    expect(socket.log).toEqual(['send 7 unsupported_version', 'close 1002 unsupported_version']);
    expect(socket.errors[0]).toMatchObject({
      requestId: null,
      field: 'versionNewest',
      message: `Cannot speak version ${versionOldest} to ${versionNewest}: this agent speaks ${PROTOCOL_VERSION_OLDEST} to ${PROTOCOL_VERSION}`,
    });
  });

  test('said twice is a breach', () => {
    const { connection, socket } = welcomed();
    say(connection, hello());
    expect(socket.log).toEqual(['send 7 hello_required', 'close 1002 hello_required']);
  });

  test.each([
    ['the right token', TOKEN, TOKEN, true],
    ['a token where none is asked for', null, 'whatever', true],
    ['no token', TOKEN, null, false],
    ['another token', TOKEN, TOKEN.replace('t', 'T'), false],
    ['the beginning of the token', TOKEN, TOKEN.slice(0, -1), false],
    ['the token and more', TOKEN, `${TOKEN}x`, false],
    ['a token as long in letters, not in bytes', TOKEN, 'é'.repeat(TOKEN.length), false],
  ])('with %s is let in or not', (_name, configured, token, isLetIn) => {
    const { connection, socket } = setUp(configured);
    say(connection, hello({ token }));
    expect(socket.log).toEqual(isLetIn ? ['send 2'] : ['send 7 unauthorized', 'close 1008 unauthorized']);
  });

  test('that is refused lets nothing else in', () => {
    const { connection, socket, predicted } = setUp(TOKEN);
    say(connection, hello());
    say(connection, predictFrame());
    say(connection, hello({ token: TOKEN }));
    expect([predicted, socket.log]).toEqual([[], ['send 7 unauthorized', 'close 1008 unauthorized']]);
  });
});

describe('before hello', () => {
  test.each([
    ['predict', predictFrame()],
    ['observe', observeFrame()],
  ])('%s is a breach', (_name, frame) => {
    const { connection, socket, predicted, observed, badFrames } = setUp();
    say(connection, frame);
    expect(socket.log).toEqual(['send 7 hello_required', 'close 1002 hello_required']);
    expect([predicted, observed, badFrames()]).toEqual([[], [], 1]);
  });

  test('a frame that cannot be read is answered and closed with 1002', () => {
    const { connection, socket } = setUp();
    connection.receive(Uint8Array.of(0xc1), true, 0);
    expect(socket.log).toEqual(['send 7 malformed_frame', 'close 1002 hello_required']);
  });
});

describe('after welcome', () => {
  test('frames go where they belong, each in flight until it is answered', () => {
    const { connection, predicted, observed } = welcomed();
    say(connection, predictFrame({ requestId: 1 }));
    say(connection, observeFrame({ requestId: 2 }));
    expect([predicted.map(({ requestId }) => requestId), observed.map(({ requestId }) => requestId)]).toEqual([[1], [2]]);
    expect(connection.inFlight).toBe(2);
    connection.answer(Uint8Array.of());
    expect(connection.inFlight).toBe(1);
  });

  test('answers leave together, corked, when they are flushed', () => {
    const { connection, socket } = welcomed();
    for (const requestId of [1, 2]) say(connection, predictFrame({ requestId }));
    for (const requestId of [1, 2]) connection.failed(requestId, new SetpointError('not_ready', 'Cannot predict: not yet'));
    expect(socket.log).toEqual([]);
    connection.flush();
    expect(socket.log).toEqual(['cork', 'corked send 7 not_ready', 'corked send 7 not_ready']);
    connection.flush();
    expect(socket.log).toHaveLength(3);
  });

  test('an error tells everything that its sender needs', () => {
    const { connection, socket } = welcomed();
    say(connection, predictFrame({ requestId: 9 }));
    connection.failed(9, new SetpointError('unknown_slot', 'Cannot predict: there is no slot', { field: 'slot' }));
    connection.flush();
    expect(socket.errors).toEqual([
      {
        kind: FRAME_KINDS.error,
        requestId: 9,
        code: 'unknown_slot',
        field: 'slot',
        message: 'Cannot predict: there is no slot',
        remedy: 'use one of the slots listed in welcome',
        retryable: false,
      },
    ]);
  });

  test(`request ${MAX_IN_FLIGHT + 1} in flight is refused as overloaded, and one more is taken after an answer`, () => {
    const { connection, socket, predicted } = welcomed();
    for (let requestId = 0; requestId < MAX_IN_FLIGHT; requestId++) say(connection, predictFrame({ requestId }));
    expect([predicted.length, socket.log]).toEqual([MAX_IN_FLIGHT, []]);
    say(connection, predictFrame({ requestId: 5000 }));
    say(connection, observeFrame({ requestId: 5001 }));
    expect(socket.errors.map(({ code, requestId, retryable }) => [code, requestId, retryable])).toEqual([
      ['overloaded', 5000, true],
      ['overloaded', 5001, true],
    ]);
    expect([predicted.length, connection.inFlight]).toEqual([MAX_IN_FLIGHT, MAX_IN_FLIGHT]);
    connection.answer(Uint8Array.of());
    say(connection, predictFrame({ requestId: 5002 }));
    expect(predicted.at(-1)?.requestId).toBe(5002);
  });

  test(`bad frame ${MAX_BAD_FRAMES} closes the connection, those before are answered only`, () => {
    const { connection, socket, badFrames } = welcomed();
    for (let index = 1; index < MAX_BAD_FRAMES; index++) connection.receive(Uint8Array.of(0xc1), true, 0);
    expect(socket.log).toEqual(Array(MAX_BAD_FRAMES - 1).fill('send 7 malformed_frame'));
    connection.receive(Uint8Array.of(0xc1), true, 0);
    expect(socket.log.slice(-2)).toEqual(['send 7 malformed_frame', 'close 1008 too many bad frames']);
    expect(badFrames()).toBe(MAX_BAD_FRAMES);
  });

  test('an error for a bad frame names the request where it can be told', () => {
    const { connection, socket } = welcomed();
    const bytes = Uint8Array.from(encodeFrame(predictFrame({ requestId: 77, deadlineMicros: 3 })));
    // Kind, request id and slot are intact; the slot's length is wrong by one from its end.
    connection.receive(bytes.subarray(0, bytes.byteLength - 1), true, 0);
    expect(socket.errors[0]).toMatchObject({ code: 'malformed_frame', requestId: 77 });
  });

  test('a text message is a breach', () => {
    const { connection, socket, badFrames } = welcomed();
    connection.receive(encodeFrame(predictFrame()), false, 0);
    expect([socket.log, badFrames()]).toEqual([['send 7 malformed_frame', 'close 1002 malformed_frame'], 1]);
  });

  test('a frame of a kind that only the agent sends is refused', () => {
    const { connection, socket, predicted } = welcomed();
    connection.receive(encodeFrame(WELCOME), true, 0);
    expect([socket.errors[0]?.code, predicted]).toEqual(['unknown_frame', []]);
  });

  test('a message above the limit closes with 1009', () => {
    const { connection, socket, badFrames } = welcomed();
    connection.refuseLargeMessage();
    expect(socket.log.at(-1)).toMatch(/^close 1009 /);
    expect(badFrames()).toBe(1);
  });
});

describe('a closed connection', () => {
  test('takes nothing more, sends nothing more, and still counts what is answered', () => {
    const { connection, socket, predicted } = welcomed();
    say(connection, predictFrame());
    connection.failed(1, new SetpointError('not_ready', 'Cannot predict: not yet'));
    say(connection, predictFrame());
    connection.closed();
    connection.flush();
    connection.failed(2, new SetpointError('not_ready', 'Cannot predict: not yet'));
    connection.flush();
    say(connection, predictFrame());
    connection.receive(Uint8Array.of(0xc1), true, 0);
    connection.stop();
    expect([socket.log, predicted.length, connection.inFlight]).toEqual([[], 2, 0]);
  });

  test('is what stop() makes, with 1001', () => {
    const { connection, socket } = welcomed();
    connection.stop();
    expect(socket.log).toEqual([`close ${CLOSE_CODES.stopping} stopping`]);
  });
});
