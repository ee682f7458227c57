import { connect, type Socket } from 'node:net';
import { UpgradeReader } from '../../bench/raw-client.ts';
import { clientFrame, OPCODES } from '../../bench/websocket-frames.ts';
import { decodeServerFrame, encodeFrame } from '../../protocol/codec.ts';
import { type DecisionFrame, FRAME_KINDS } from '../../protocol/frames.ts';
import { SUBPROTOCOL } from '../../protocol/limits.ts';
import { digestOf } from './digest.ts';
import type { Ledger } from './ledger.ts';
import { expectedValue, requestBytes, type RequestIds } from './requests.ts';

/** Several controllers that ask at a steady rate, whether they are answered or not, and remember every answer. */

const CONTROLLERS = 6;
const TICK_MILLIS = 3;
/** A third of what the agent allows: what is unanswered when the agent dies. */
const MAX_IN_FLIGHT = 300;
const RECONNECT_MILLIS = 20;
/** After an error, one request at a time is tried, so often: a starting agent must not be busy with refusing. */
const PAUSE_MILLIS = 30;
const HELLO = clientFrame(encodeFrame({ kind: FRAME_KINDS.hello, versionOldest: 1, versionNewest: 1, client: 'crash', token: null }));
const SEC_WEBSOCKET_KEY = Buffer.alloc(16).toString('base64');

export interface LoadSettings {
  readonly port: number;
  readonly ratePerSecond: number;
  readonly ids: RequestIds;
  readonly ledger: Ledger;
}

/** Kept over all rounds: a controller outlives many agents. */
export class Controllers {
  round = 0;
  isObserving = false;
  sent = 0;
  /** Requests that were refused with an error: not ready yet, stopping. */
  refused = 0;
  /** Decisions that are not the model's. */
  fallbacks = 0;
  /** Answers that cannot be: to the wrong request, or with a wrong value. */
  readonly wrong: string[] = [];
  readonly #settings: LoadSettings;
  readonly #controllers: Controller[] = [];
  #timer: NodeJS.Timeout | null = null;
  #due = 0;
  #lastTick = 0;
  #turn = 0;

  constructor(settings: LoadSettings) {
    this.#settings = settings;
  }

  /** Connects, as soon as the agent listens, and asks until stop(); a connection that ends is opened again. */
  start(): void {
    for (let opened = 0; opened < CONTROLLERS; opened++) {
      const isMoving = opened % 2 === 1;
      this.#controllers.push(new Controller(this.#settings.port, isMoving, (controller, payload) => this.#take(controller, payload)));
    }
    this.#lastTick = performance.now();
    this.#timer = setInterval(() => this.#tick(), TICK_MILLIS);
  }

  /** Resolves when everything that arrived has been taken. */
  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    await Promise.all(this.#controllers.splice(0).map((controller) => controller.stop()));
  }

  #tick(): void {
    const now = performance.now();
    this.#due = Math.min(this.#due + ((now - this.#lastTick) * this.#settings.ratePerSecond) / 1000, this.#settings.ratePerSecond / 10);
    this.#lastTick = now;
    const open = this.#controllers.filter((controller) => controller.mayAsk(now));
    for (; this.#due >= 1 && open.length > 0; this.#due -= 1) {
      const controller = open[this.#turn++ % open.length]!;
      if (!controller.mayAsk(now)) continue;
      const requestId = this.#settings.ids.next(this.isObserving);
      controller.ask(requestId, requestBytes(requestId));
      this.sent += 1;
    }
    for (const controller of open) controller.flush();
  }

  #take(controller: Controller, payload: Uint8Array): void {
    const { asked } = controller;
    const frame = decodeServerFrame(payload);
    if (frame.kind === FRAME_KINDS.error) {
      this.refused += 1;
      controller.refused();
      if (frame.requestId !== null) asked.delete(frame.requestId);
    }
    if (frame.kind !== FRAME_KINDS.decision && frame.kind !== FRAME_KINDS.observed) return;
    controller.answered();
    const { stream, sequence, requestId } = frame;
    if (!asked.delete(requestId)) this.wrong.push(`an answer to request ${requestId}, which was not asked here or is answered already`);
    const isDecision = frame.kind === FRAME_KINDS.decision;
    if (isDecision) this.#compare(frame);
    this.#settings.ledger.add({ stream, sequence, requestId, digest: isDecision ? digestOf(payload) : null, round: this.round });
  }

  #compare({ requestId, action, value }: DecisionFrame): void {
    if (action !== 'model') this.fallbacks += 1;
    else if (value !== expectedValue(requestId))
      this.wrong.push(`request ${requestId} was answered with ${value}, ${expectedValue(requestId)} is right`);
  }
}

/** One controller, with the connection that it has at the moment. */
class Controller {
  isWelcome = false;
  readonly asked = new Set<number>();
  readonly #port: number;
  readonly #isMoving: boolean;
  readonly #onMessage: (controller: Controller, payload: Uint8Array) => void;
  #socket: Socket | null = null;
  #ended: Promise<void> = Promise.resolve();
  #retry: NodeJS.Timeout | null = null;
  #isStopped = false;
  #waiting: Uint8Array[] = [];
  /** Zero while requests are answered. */
  #pausedUntil = 0;
  #move: 'due' | 'moving' | 'done' = 'done';

  /** @param isMoving connects again when an agent is ready: the first connections all come to the serving thread that listens first */
  constructor(port: number, isMoving: boolean, onMessage: (controller: Controller, payload: Uint8Array) => void) {
    this.#port = port;
    this.#isMoving = isMoving;
    this.#onMessage = onMessage;
    this.#connect();
  }

  mayAsk(now: number): boolean {
    return this.isWelcome && now >= this.#pausedUntil && this.asked.size < (this.#pausedUntil === 0 ? MAX_IN_FLIGHT : 1);
  }

  answered(): void {
    this.#pausedUntil = 0;
    if (this.#move !== 'due') return;
    this.#move = 'moving';
    this.#socket?.destroy();
  }

  refused(): void {
    this.#pausedUntil = performance.now() + PAUSE_MILLIS;
  }

  ask(requestId: number, bytes: Uint8Array): void {
    this.asked.add(requestId);
    this.#waiting.push(clientFrame(bytes));
  }

  /** One write for everything that was asked since the last one. */
  flush(): void {
    if (this.#waiting.length === 0) return;
    this.#socket?.write(Buffer.concat(this.#waiting));
    this.#waiting = [];
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#socket?.destroy();
    await this.#ended;
  }

  #connect(): void {
    const messages = new MessageReader((opcode, payload) => this.#receive(opcode, payload));
    const upgrade = new UpgradeReader();
    let onData = (bytes: Buffer): void => upgrade.feed(bytes);
    const socket = connect({ host: '127.0.0.1', port: this.#port, noDelay: true });
    this.#socket = socket;
    upgrade.onUpgraded = () => {
      onData = (bytes) => messages.feed(bytes);
      socket.write(HELLO);
    };
    upgrade.done.then((rest) => messages.feed(Buffer.from(rest))).catch(() => socket.destroy());
    socket.on('connect', () => socket.write(upgradeRequest(this.#port)));
    socket.on('data', (bytes) => onData(bytes));
    // The agent is killed all the time; 'close' follows.
    socket.on('error', () => socket.destroy());
    this.#ended = new Promise((resolve) => {
      socket.once('close', () => {
        this.isWelcome = false;
        // The next agent may not be ready when it welcomes.
        this.refused();
        this.#move = this.#isMoving && this.#move !== 'moving' ? 'due' : 'done';
        this.asked.clear();
        this.#waiting = [];
        if (!this.#isStopped) this.#retry = setTimeout(() => this.#connect(), RECONNECT_MILLIS);
        resolve();
      });
    });
  }

  #receive(opcode: number, payload: Uint8Array): void {
    if (opcode === OPCODES.ping) this.#socket?.write(clientFrame(payload, OPCODES.pong));
    if (opcode === OPCODES.close) this.#socket?.end();
    if (opcode !== OPCODES.binary) return;
    if (this.isWelcome) this.#onMessage(this, payload);
    this.isWelcome = true;
  }
}

function upgradeRequest(port: number): string {
  return (
    `GET / HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${SEC_WEBSOCKET_KEY}\r\nSec-WebSocket-Protocol: ${SUBPROTOCOL}\r\n\r\n`
  );
}

/** Whole messages out of any pieces; the agent sends no fragments. A message that is cut short by a kill never comes out. */
class MessageReader {
  readonly #onMessage: (opcode: number, payload: Uint8Array) => void;
  #pending: Buffer = Buffer.alloc(0);

  constructor(onMessage: (opcode: number, payload: Uint8Array) => void) {
    this.#onMessage = onMessage;
  }

  feed(bytes: Buffer): void {
    let rest = this.#pending.byteLength === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    for (let size = messageBytes(rest); size !== null && size.total <= rest.byteLength; size = messageBytes(rest)) {
      this.#onMessage(rest.readUInt8(0) & 0x0f, Uint8Array.from(rest.subarray(size.header, size.total)));
      rest = rest.subarray(size.total);
    }
    this.#pending = rest;
  }
}

function messageBytes(bytes: Buffer): { header: number; total: number } | null {
  if (bytes.byteLength < 2) return null;
  const marker = bytes.readUInt8(1) & 0x7f;
  const header = marker < 126 ? 2 : marker === 126 ? 4 : 10;
  if (bytes.byteLength < header) return null;
  const length = marker < 126 ? marker : marker === 126 ? bytes.readUInt16BE(2) : Number(bytes.readBigUInt64BE(2));
  return { header, total: header + length };
}
