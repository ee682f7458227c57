import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { clientFrame, OPCODES } from '../../bench/websocket-frames.ts';
import { decodeServerFrame, encodeFrame } from '../../protocol/codec.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import {
  type ClientFrame,
  type Context,
  CONTEXT_FIELDS,
  type DecisionFrame,
  FRAME_KINDS,
  type PredictFrame,
} from '../../protocol/frames.ts';
import type { ServerFrame, WelcomeFrame } from '../../protocol/frames.ts';
import { SUBPROTOCOL } from '../../protocol/limits.ts';

/** What a client that behaves never does: a WebSocket client over node:net that sends any bytes and reads when it likes. */

export interface RawSocketOptions {
  /** The Sec-WebSocket-Protocol header; null leaves it out. */
  readonly subprotocol?: string | null;
  /** Nothing is read after the upgrade until resume(). */
  readonly isPaused?: boolean;
}

export interface Closing {
  /** 1006 when the connection ended without a close frame. */
  readonly code: number;
  readonly reason: string;
}

/** Longest wait for anything; a slow machine needs a small part of it. */
const WITHIN_MILLIS = 20_000;

const HEAD_END = Buffer.from('\r\n\r\n');

export class RawSocket {
  /** HTTP status of the upgrade, 101 when it is a WebSocket now. */
  readonly status: number;
  /** Head and, where the upgrade was refused, the beginning of the body. */
  readonly head: string;
  /** Every frame that came and was not taken by next() or ask(). */
  readonly frames: ServerFrame[] = [];
  /** How the connection ended. */
  readonly closed: Promise<Closing>;
  isClosed = false;
  readonly #socket: Socket;
  readonly #answers = new Map<number, (frame: ServerFrame) => void>();
  #arrived: (() => void) | null = null;
  #pending: Buffer = Buffer.alloc(0);
  #closing: Closing = { code: 1006, reason: '' };
  #nextId = 1;

  private constructor(socket: Socket, status: number, head: string, rest: Buffer) {
    this.#socket = socket;
    this.status = status;
    this.head = head;
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.isClosed = true;
        this.#arrived?.();
        resolve(this.#closing);
      });
    });
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#receive(rest);
  }

  /** Connects and asks for the upgrade; resolves with whatever status the agent gives. */
  static async open(port: number, options: RawSocketOptions = {}): Promise<RawSocket> {
    const socket = await connectTcp(port);
    const { subprotocol = SUBPROTOCOL, isPaused = false } = options;
    const protocol = subprotocol === null ? '' : `Sec-WebSocket-Protocol: ${subprotocol}\r\n`;
    socket.write(
      `GET / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
        `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}\r\nSec-WebSocket-Version: 13\r\n${protocol}\r\n`,
    );
    const bytes = await readHead(socket);
    if (isPaused) socket.pause();
    const end = bytes.indexOf(HEAD_END) + HEAD_END.byteLength;
    const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(bytes.toString('latin1'))?.[1]);
    const isWebSocket = status === 101;
    return new RawSocket(
      socket,
      status,
      bytes.subarray(0, isWebSocket ? end : undefined).toString(),
      isWebSocket ? bytes.subarray(end) : Buffer.alloc(0),
    );
  }

  /** Sends one WebSocket message. Returns false when the kernel takes no more. */
  send(payload: Uint8Array | ClientFrame, opcode: number = OPCODES.binary): boolean {
    return this.write(clientFrame(payload instanceof Uint8Array ? payload : encodeFrame(payload), opcode));
  }

  /** Sends bytes as they are. */
  write(bytes: Uint8Array): boolean {
    return this.#socket.write(bytes);
  }

  /** The oldest frame that nobody took. */
  async next(): Promise<ServerFrame> {
    for (;;) {
      const frame = this.frames.shift();
      if (frame !== undefined) return frame;
      if (this.isClosed) throw new Error(`the connection ended with ${this.#closing.code} ${this.#closing.reason}`);
      await within(
        new Promise<void>((resolve) => {
          this.#arrived = resolve;
        }),
        'no frame came',
      );
    }
  }

  /** Sends a request and waits for the frame that answers it. */
  async ask(frame: ClientFrame & { readonly requestId: number }): Promise<ServerFrame> {
    const answer = new Promise<ServerFrame>((resolve, reject) => {
      this.#answers.set(frame.requestId, resolve);
      void this.closed.then(({ code, reason }) => reject(new Error(`the connection ended with ${code} ${reason}`)));
    });
    this.send(frame);
    return await within(answer, `request ${frame.requestId} was not answered`);
  }

  /** A new request id. */
  nextId(): number {
    return this.#nextId++;
  }

  /** Says hello and takes the welcome. */
  async hello(token: string | null = null): Promise<WelcomeFrame> {
    this.send({ kind: FRAME_KINDS.hello, versionOldest: 1, versionNewest: 1, client: 'raw', token });
    const frame = await this.next();
    if (frame.kind !== FRAME_KINDS.welcome) throw new Error(`not welcome: ${JSON.stringify(frame)}`);
    return frame;
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Drops the connection without a word. */
  destroy(): void {
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    if (this.status !== 101) return;
    this.#pending = this.#pending.byteLength === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    for (;;) {
      const message = takeMessage(this.#pending);
      if (message === null) return;
      this.#pending = this.#pending.subarray(message.size);
      this.#take(message.opcode, message.payload);
    }
  }

  #take(opcode: number, payload: Buffer): void {
    if (opcode === OPCODES.ping) this.send(payload, OPCODES.pong);
    if (opcode === OPCODES.close) {
      const code = payload.byteLength >= 2 ? payload.readUInt16BE(0) : 1005;
      this.#closing = { code, reason: payload.subarray(2).toString() };
      this.#socket.end(clientFrame(payload.subarray(0, 2), OPCODES.close));
    }
    if (opcode !== OPCODES.binary) return;
    const frame = decodeServerFrame(Uint8Array.from(payload));
    const requestId = 'requestId' in frame ? frame.requestId : null;
    const settle = requestId === null ? undefined : this.#answers.get(requestId);
    if (settle === undefined || requestId === null) {
      this.frames.push(frame);
      this.#arrived?.();
    } else {
      this.#answers.delete(requestId);
      settle(frame);
    }
  }
}

/** A connection that has been welcomed. */
export async function openController(port: number, token: string | null = null): Promise<RawSocket> {
  const socket = await RawSocket.open(port);
  await socket.hello(token);
  return socket;
}

/** A TCP connection that says nothing yet. Errors end it silently: being dropped is what is tested. */
export async function connectTcp(port: number): Promise<Socket> {
  const socket = connect({ host: '127.0.0.1', port, noDelay: true });
  socket.on('error', () => socket.destroy());
  await within(
    new Promise<void>((resolve, reject) => {
      socket.once('connect', () => resolve());
      socket.once('close', () => reject(new Error('cannot connect')));
    }),
    'no connection',
  );
  return socket;
}

/** A predict frame with the fields that matter to most tests. */
export function predictFrame(
  requestId: number,
  slot: string,
  input: Float32Array | readonly WireTensor[],
  more: Partial<PredictFrame> = {},
): PredictFrame {
  return {
    kind: FRAME_KINDS.predict,
    requestId,
    slot,
    context: null,
    // Long enough for a machine that does something else for seconds.
    deadlineMicros: 10_000_000,
    lastApplied: null,
    features:
      input instanceof Float32Array
        ? { encoding: 'float32', bytes: new Uint8Array(input.buffer, input.byteOffset, input.byteLength) }
        : { encoding: 'tensors', tensors: input },
    outputs: null,
    ...more,
  };
}

/** A context with every position, null where not given. */
export function contextOf(known: Partial<Context>): Context {
  return Object.fromEntries(CONTEXT_FIELDS.map((field) => [field, known[field] ?? null])) as unknown as Context;
}

export interface Testimony {
  readonly answers: number;
  /** What was not the model's own answer. */
  readonly failures: readonly string[];
  readonly longestMillis: number;
}

/**
 * Another controller that goes on asking every few milliseconds while something else happens, on a connection of its own.
 * stop() tells what it got.
 */
export async function startWitness(port: number, slot: string, features: Float32Array): Promise<{ stop: () => Promise<Testimony> }> {
  const socket = await openController(port);
  const failures: string[] = [];
  let answers = 0;
  let longestMillis = 0;
  const stopping = new AbortController();
  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      const started = performance.now();
      const frame = await socket.ask(predictFrame(socket.nextId(), slot, features));
      longestMillis = Math.max(longestMillis, performance.now() - started);
      answers += 1;
      if (frame.kind !== FRAME_KINDS.decision || frame.action !== 'model') failures.push(JSON.stringify(frame));
      await delay(5);
    }
  };
  const running = run().catch((error: unknown) => void failures.push(String(error)));
  return {
    stop: async () => {
      stopping.abort();
      await running;
      socket.destroy();
      return { answers, failures, longestMillis };
    },
  };
}

export function asDecision(frame: ServerFrame): DecisionFrame {
  if (frame.kind !== FRAME_KINDS.decision) throw new Error(`not a decision: ${JSON.stringify(frame)}`);
  return frame;
}

export async function delay(millis: number): Promise<void> {
  await new Promise((resolve) => {
    setTimeout(resolve, millis);
  });
}

async function within<Value>(promise: Promise<Value>, problem: string): Promise<Value> {
  const { promise: late, reject } = Promise.withResolvers<never>();
  const timer = setTimeout(() => reject(new Error(`${problem} within ${WITHIN_MILLIS} ms`)), WITHIN_MILLIS);
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** The bytes up to the end of the HTTP head, with what came behind it. */
async function readHead(socket: Socket): Promise<Buffer> {
  return await within(
    new Promise<Buffer>((resolve, reject) => {
      let bytes = Buffer.alloc(0);
      const onData = (chunk: Buffer): void => {
        bytes = Buffer.concat([bytes, chunk]);
        if (!bytes.includes(HEAD_END)) return;
        socket.off('data', onData);
        resolve(bytes);
      };
      socket.on('data', onData);
      socket.once('close', () => reject(new Error(`the connection ended before the upgrade was answered: ${bytes.toString()}`)));
    }),
    'the upgrade was not answered',
  );
}

/** The WebSocket message at the start of `bytes`, null while it is not whole. Agents send no fragments. */
function takeMessage(bytes: Buffer): { opcode: number; payload: Buffer; size: number } | null {
  if (bytes.byteLength < 2) return null;
  const marker = bytes.readUInt8(1) & 0x7f;
  const headerBytes = marker < 126 ? 2 : marker === 126 ? 4 : 10;
  if (bytes.byteLength < headerBytes) return null;
  const length = marker < 126 ? marker : marker === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  const size = headerBytes + length;
  if (bytes.byteLength < size) return null;
  return { opcode: bytes.readUInt8(0) & 0x0f, payload: bytes.subarray(headerBytes, size), size };
}
