import {
  App,
  type HttpRequest as UwsRequest,
  type HttpResponse as UwsResponse,
  type TemplatedApp,
  us_listen_socket_close,
  type us_listen_socket,
  type WebSocket,
} from 'uWebSockets.js';
import { SetpointError } from '../../protocol/errors.ts';
import { MAX_FRAME_BYTES, SUBPROTOCOL } from '../../protocol/limits.ts';
import { errorReply } from '../http/replies.ts';
import { type HttpReply, type HttpRequest, MAX_BODY_BYTES } from '../http/services.ts';
import { Connection, type ConnectionServices, type Socket } from './connection.ts';
import type { ThreadMetrics } from './metrics.ts';

/**
 * The one door to uWebSockets.js: a WebSocket and HTTP server on the port that all serving threads share (SO_REUSEPORT;
 * the kernel spreads connections over them). It knows bytes and connections, nothing of models.
 */

/** Unsent bytes of one reader; beyond this it is too slow to be served and is disconnected. 4,000 decisions. */
const MAX_BACKPRESSURE_BYTES = 1024 * 1024;

/**
 * uWebSockets.js drops a connection whose message is above its limit without a close frame. Up to this the agent sees the
 * message and closes with the reason; the usual mistake, a frame somewhat too large, is then told to the controller.
 */
const MAX_PAYLOAD_BYTES = 2 * MAX_FRAME_BYTES;

/** Seconds without a byte or a pong after which a connection is dead. uWebSockets.js pings in time by itself. */
const IDLE_TIMEOUT_SECONDS = 60;

const FORBIDDEN_TEXT_HEADERS = /[\r\n]/;

export interface DoorOptions {
  readonly host: string;
  readonly port: number;
  readonly maxConnections: number;
  readonly metrics: ThreadMetrics;
  readonly connectionServices: ConnectionServices;
  /** Keeps a borrowed message until the turn ends. */
  readonly keep: (borrowed: Uint8Array) => Uint8Array;
  readonly route: (request: HttpRequest, respond: (reply: HttpReply) => void) => void;
}

interface SocketData {
  connection: Connection | null;
}

export class Door {
  readonly #options: DoorOptions;
  readonly #app: TemplatedApp;
  readonly #connections = new Set<Connection>();
  #listenSocket: us_listen_socket | null = null;

  constructor(options: DoorOptions) {
    this.#options = options;
    this.#app = App();
    this.#app.ws<SocketData>('/*', {
      maxPayloadLength: MAX_PAYLOAD_BYTES,
      maxBackpressure: MAX_BACKPRESSURE_BYTES,
      // UwsSocket does it: uWebSockets.js would go on reading, and running, what the slow reader sent before.
      closeOnBackpressureLimit: false,
      idleTimeout: IDLE_TIMEOUT_SECONDS,
      sendPingsAutomatically: true,
      upgrade: (response, request, context) => this.#upgrade(response, request, context),
      open: (socket) => this.#open(socket),
      message: (socket, message, isBinary) => this.#message(socket, message, isBinary),
      close: (socket) => this.#close(socket),
    });
    this.#app.any('/*', (response, request) => this.#http(response, request));
  }

  /** @throws SetpointError when the port cannot be had */
  listen(): void {
    const { host, port } = this.#options;
    this.#app.listen(host, port, (token) => {
      if (token === false)
        throw new SetpointError('internal', `Cannot listen on ${host}:${port}: the port is taken`, {
          remedy: 'choose another listen.port',
        });
      this.#listenSocket = token;
    });
  }

  /** Takes no more connections; those that are open stay so. */
  stopListening(): void {
    if (this.#listenSocket !== null) us_listen_socket_close(this.#listenSocket);
    this.#listenSocket = null;
  }

  get connections(): ReadonlySet<Connection> {
    return this.#connections;
  }

  /** Stops listening and drops what is still connected. */
  close(): void {
    this.#app.close();
  }

  #upgrade(response: UwsResponse, request: UwsRequest, context: Parameters<UwsResponse['upgrade']>[4]): void {
    const { metrics, maxConnections } = this.#options;
    const offered = request
      .getHeader('sec-websocket-protocol')
      .split(',')
      .map((one) => one.trim());
    if (!offered.includes(SUBPROTOCOL)) {
      send(response, errorReply(new SetpointError('unsupported_version', `Cannot upgrade: the sub-protocol must be ${SUBPROTOCOL}`)));
    } else if (metrics.get('connectionsOpen') >= maxConnections) {
      metrics.add('connectionsRefused');
      send(
        response,
        errorReply(
          new SetpointError('overloaded', `Cannot take this connection: ${maxConnections} are open, ${maxConnections} are allowed`),
        ),
      );
    } else {
      const data: SocketData = { connection: null };
      const key = request.getHeader('sec-websocket-key');
      response.upgrade(data, key, SUBPROTOCOL, request.getHeader('sec-websocket-extensions'), context);
    }
  }

  #open(socket: WebSocket<SocketData>): void {
    const { metrics, connectionServices } = this.#options;
    metrics.add('connectionsOpen');
    metrics.add('connectionsTotal');
    const connection = new Connection(new UwsSocket(socket, metrics), connectionServices);
    socket.getUserData().connection = connection;
    this.#connections.add(connection);
  }

  #message(socket: WebSocket<SocketData>, message: ArrayBuffer, isBinary: boolean): void {
    const arrivedMillis = performance.now();
    if (message.byteLength > MAX_FRAME_BYTES) {
      socket.getUserData().connection?.refuseLargeMessage();
      return;
    }
    const bytes = this.#options.keep(new Uint8Array(message));
    socket.getUserData().connection?.receive(bytes, isBinary, arrivedMillis);
  }

  #close(socket: WebSocket<SocketData>): void {
    this.#options.metrics.add('connectionsOpen', -1);
    const { connection } = socket.getUserData();
    if (connection === null) return;
    connection.closed();
    this.#connections.delete(connection);
  }

  #http(response: UwsResponse, request: UwsRequest): void {
    this.#options.metrics.add('httpRequests');
    let isAborted = false;
    response.onAborted(() => {
      isAborted = true;
    });
    const headers = new Map<string, string>();
    request.forEach((name, value) => headers.set(name, value));
    const head = {
      method: request.getCaseSensitiveMethod().toUpperCase(),
      path: request.getUrl(),
      query: request.getQuery() ?? '',
      headers: (name: string) => headers.get(name) ?? '',
      isLoopback: isLoopback(new Uint8Array(response.getRemoteAddress())),
    };
    collectBody(response, Number(head.headers('content-length') || 0), (body) => {
      const respond = (reply: HttpReply): void => {
        if (!isAborted) send(response, reply);
      };
      if (body === null)
        respond(errorReply(new SetpointError('frame_too_large', `Cannot take this body: ${MAX_BODY_BYTES} bytes are allowed`)));
      else this.#options.route({ ...head, body }, respond);
    });
  }
}

class UwsSocket implements Socket {
  readonly #socket: WebSocket<SocketData>;
  readonly #metrics: ThreadMetrics;

  constructor(socket: WebSocket<SocketData>, metrics: ThreadMetrics) {
    this.#socket = socket;
    this.#metrics = metrics;
  }

  cork(write: () => void): void {
    this.#socket.cork(write);
  }

  send(bytes: Uint8Array): void {
    // 2: dropped, the reader's backpressure limit is reached. A close frame would wait behind the rest: it is cut off.
    if (this.#socket.send(bytes, true) !== 2) return;
    this.#metrics.add('slowReaders');
    this.#socket.close();
  }

  close(code: number, reason: string): void {
    this.#socket.end(code, reason);
  }
}

/** Collects a body up to MAX_BODY_BYTES, or null beyond; the parts are only borrowed, so they are copied. */
function collectBody(response: UwsResponse, contentLength: number, done: (body: Uint8Array | null) => void): void {
  let body = new Uint8Array(Math.min(Number.isSafeInteger(contentLength) && contentLength > 0 ? contentLength : 0, MAX_BODY_BYTES));
  let length = 0;
  let isTooLarge = false;
  response.onData((chunk, isLast) => {
    if (isTooLarge) return;
    const needed = length + chunk.byteLength;
    if (needed > MAX_BODY_BYTES) {
      isTooLarge = true;
      done(null);
      return;
    }
    if (needed > body.byteLength) {
      const larger = new Uint8Array(Math.min(Math.max(needed, body.byteLength * 2), MAX_BODY_BYTES));
      larger.set(body.subarray(0, length));
      body = larger;
    }
    body.set(new Uint8Array(chunk), length);
    length = needed;
    if (isLast) done(body.subarray(0, length));
  });
}

function send(response: UwsResponse, reply: HttpReply): void {
  response.cork(() => {
    response.writeStatus(`${reply.status} ${STATUS_TEXTS[reply.status] ?? 'Status'}`);
    for (const [name, value] of reply.headers) {
      if (!FORBIDDEN_TEXT_HEADERS.test(value)) response.writeHeader(name, value);
    }
    response.end(reply.body);
  });
}

const STATUS_TEXTS: Readonly<Record<number, string>> = {
  200: 'OK',
  400: 'Bad Request',
  401: 'Unauthorized',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  413: 'Content Too Large',
  422: 'Unprocessable Content',
  500: 'Internal Server Error',
  501: 'Not Implemented',
  503: 'Service Unavailable',
};

/** 127.0.0.0/8, ::1 or ::ffff:127.0.0.0/8, from the address bytes. */
function isLoopback(address: Uint8Array): boolean {
  if (address.byteLength === 4) return address[0] === 127;
  if (address.byteLength !== 16) return false;
  const isMapped = address[10] === 0xff && address[11] === 0xff && address.subarray(0, 10).every((byte) => byte === 0);
  return isMapped ? address[12] === 127 : address[15] === 1 && address.subarray(0, 15).every((byte) => byte === 0);
}
