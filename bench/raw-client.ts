import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { clientFrame, OPCODES, ServerFrameReader } from './websocket-frames.ts';

/**
 * The cheapest client Node allows over node:net: reads land in one reused buffer, replies are counted and not decoded,
 * and requests leave as prebuilt bytes, many in one write. Anything dearer would measure the client.
 */

/** Holds the replies to 1,024 requests in flight at a few hundred bytes each; larger reads bring no more. */
const READ_BUFFER_BYTES = 256 * 1024;

/** Longest HTTP response head to an upgrade; a real one is under 300 bytes. */
const LONGEST_HEAD_BYTES = 16 * 1024;

/**
 * Requests of equal length, as they go on the wire, in a row and then in a row again: any run of up to `count` of them,
 * from wherever the last one stopped, is one slice of one buffer.
 */
export class RequestRing {
  readonly count: number;
  readonly requestBytes: number;
  readonly #bytes: Uint8Array;
  #next = 0;

  constructor(requests: readonly Uint8Array[]) {
    const first = requests[0];
    if (first === undefined) throw new Error('Cannot build a request ring: no request was given');
    if (requests.some((request) => request.length !== first.length)) {
      throw new Error('Cannot build a request ring: the requests differ in length');
    }
    this.count = requests.length;
    this.requestBytes = first.length;
    this.#bytes = new Uint8Array(Buffer.concat([...requests, ...requests]));
  }

  /** The next `count` requests, 1 <= count <= this.count. */
  take(count: number): Uint8Array {
    const start = this.#next * this.requestBytes;
    this.#next = (this.#next + count) % this.count;
    return this.#bytes.subarray(start, start + count * this.requestBytes);
  }
}

/** One connection that pipelines: `send` any number, `onReplies` tells how many answers each read completed. */
export interface PipelinedConnection {
  onReplies: (count: number) => void;
  onFailure: (error: Error) => void;
  send(count: number): void;
  /** The payload of the next whole reply that starts from now on. */
  captureReply(): Promise<Uint8Array>;
  close(): void;
}

export interface SocketAddress {
  readonly host: string;
  readonly port: number;
}

export interface WebSocketTarget extends SocketAddress {
  readonly path: string;
  readonly subprotocol: string | null;
  /** Sent once after the handshake, its one reply awaited: the hello of protocol v1. Null for servers without one. */
  readonly greeting: Uint8Array | null;
  /** Message payloads of equal length, sent in turn. */
  readonly payloads: readonly Uint8Array[];
}

/** A socket whose reads go to `receive` through one reused buffer; the view is valid only during the call. */
export function openSocket({ host, port }: SocketAddress, receive: (bytes: Uint8Array) => void): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const buffer = new Uint8Array(READ_BUFFER_BYTES);
  const socket = connect({
    host,
    port,
    noDelay: true,
    onread: {
      buffer,
      callback: (length) => {
        receive(buffer.subarray(0, length));
        return true;
      },
    },
  });
  socket.once('error', reject);
  socket.once('connect', () => {
    socket.off('error', reject);
    resolve(socket);
  });
  return promise;
}

/** Connects, upgrades, greets. Resolves when the connection is ready for requests. */
export async function openWebSocket(target: WebSocketTarget): Promise<PipelinedConnection> {
  const reader = new ServerFrameReader();
  const ring = new RequestRing(target.payloads.map((payload) => clientFrame(payload)));
  const upgrade = new UpgradeReader();
  let onData: (bytes: Uint8Array) => void = (bytes) => upgrade.feed(bytes);
  const socket = await openSocket(target, (bytes) => onData(bytes));
  socket.on('error', (error) => upgrade.fail(error));
  socket.on('close', () => upgrade.fail(new Error(`Cannot talk to ${target.host}:${target.port}: the server closed the connection`)));
  const connection = new RawConnection(socket, reader, ring);
  reader.onControl = (opcode, payload) => answerControl(connection, opcode, payload);
  // In the same turn as the last byte of the response: what follows it must not be read as a response head.
  upgrade.onUpgraded = () => {
    onData = (bytes) => connection.receive(bytes);
  };
  socket.write(upgradeRequest(target));
  const rest = await upgrade.done;
  const reply = target.greeting === null ? null : connection.captureReply();
  if (target.greeting !== null) connection.write(clientFrame(target.greeting));
  if (rest.length > 0) connection.receive(rest);
  await reply;
  return connection;
}

function upgradeRequest(target: WebSocketTarget): string {
  const lines = [
    `GET ${target.path} HTTP/1.1`,
    `Host: ${target.host}:${target.port}`,
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
    ...(target.subprotocol === null ? [] : [`Sec-WebSocket-Protocol: ${target.subprotocol}`]),
  ];
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** Reads the response to the upgrade; `done` gives the bytes that followed it in the same read. */
export class UpgradeReader {
  readonly done: Promise<Uint8Array>;
  onUpgraded: () => void = () => {};
  readonly #resolve: (rest: Uint8Array) => void;
  readonly #reject: (error: Error) => void;
  #head: Buffer = Buffer.alloc(0);

  constructor() {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.done = promise;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  feed(bytes: Uint8Array): void {
    this.#head = Buffer.concat([this.#head, bytes]);
    const end = this.#head.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.#head.length > LONGEST_HEAD_BYTES) {
        this.fail(new Error(`Cannot upgrade: the response head exceeds ${LONGEST_HEAD_BYTES} bytes`));
      }
      return;
    }
    const status = this.#head.toString('latin1', 0, this.#head.indexOf('\r\n'));
    if (/^HTTP\/1\.1 101\b/.test(status)) {
      this.onUpgraded();
      this.#resolve(new Uint8Array(this.#head.subarray(end + 4)));
      return;
    }
    this.fail(new Error(`Cannot upgrade: the server answered '${status}', HTTP/1.1 101 is needed`));
  }

  fail(error: Error): void {
    this.#reject(error);
  }
}

/** Counts replies in whatever pieces they arrive. */
export interface ReplyReader {
  /** Returns how many replies became complete; throws when the bytes are none. */
  feed(bytes: Uint8Array): number;
  /** Calls `receive` once with the payload of the next whole reply. */
  captureNext(receive: (payload: Uint8Array) => void): void;
}

export class RawConnection implements PipelinedConnection {
  onReplies: (count: number) => void = () => {};
  onFailure: (error: Error) => void = () => {};
  readonly #socket: Socket;
  readonly #reader: ReplyReader;
  readonly #ring: RequestRing;
  #closed = false;

  constructor(socket: Socket, reader: ReplyReader, ring: RequestRing) {
    this.#socket = socket;
    this.#reader = reader;
    this.#ring = ring;
    socket.on('error', (error) => this.fail(error));
    socket.on('close', () => this.fail(new Error('the server closed the connection')));
  }

  receive(bytes: Uint8Array): void {
    let replies: number;
    try {
      replies = this.#reader.feed(bytes);
    } catch (thrown) {
      this.fail(thrown instanceof Error ? thrown : new Error(String(thrown)));
      return;
    }
    if (replies > 0) this.onReplies(replies);
  }

  send(count: number): void {
    for (let left = count; left > 0; left -= this.#ring.count) this.#socket.write(this.#ring.take(Math.min(left, this.#ring.count)));
  }

  write(bytes: Uint8Array): void {
    this.#socket.write(bytes);
  }

  captureReply(): Promise<Uint8Array> {
    const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
    this.onFailure = reject;
    this.#reader.captureNext(resolve);
    return promise;
  }

  close(): void {
    this.#closed = true;
    this.#socket.destroy();
  }

  fail(error: Error): void {
    if (this.#closed) return;
    this.close();
    this.onFailure(error);
  }
}

/** What RFC 6455 asks of a client: a pong for a ping; a close frame ends the run with the server's reason. */
function answerControl(connection: RawConnection, opcode: number, payload: Uint8Array): void {
  if (opcode === OPCODES.ping) connection.write(clientFrame(payload, OPCODES.pong));
  if (opcode !== OPCODES.close) return;
  const code = payload.length >= 2 ? new DataView(payload.buffer, payload.byteOffset).getUint16(0) : 1005;
  connection.fail(new Error(`the server closed the connection: ${code} ${Buffer.from(payload.subarray(2)).toString('utf8')}`));
}
