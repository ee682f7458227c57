import { reconnectDelayMillis } from './backoff.ts';
import { decodeServerFrame, encodeFrame } from './codec.ts';
import { ERROR_CODES, messageOf, SetpointError, type ErrorCode } from './errors.ts';
import { FRAME_KINDS, type DecisionFrame, type ErrorFrame, type ObservedFrame, type WelcomeFrame } from './frames.ts';
import { PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST, SUBPROTOCOL } from './limits.ts';

/** The part of the standard WebSocket that a client needs; Node's global one fits. */
export interface ClientSocket {
  binaryType: string;
  readonly bufferedAmount: number;
  onopen: ((event: never) => void) | null;
  onmessage: ((event: never) => void) | null;
  onclose: ((event: never) => void) | null;
  onerror: ((event: never) => void) | null;
  send(bytes: Uint8Array<ArrayBuffer>): void;
  close(code?: number, reason?: string): void;
}

/** What a client takes from its surroundings, so that a test can hand in its own. */
export interface ClientEnvironment {
  /** A clock that never jumps, milliseconds. */
  readonly now: () => number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** Runs `task` once after `delayMillis`; returns how to cancel it. */
  readonly schedule: (task: () => void, delayMillis: number) => () => void;
  readonly openSocket: (url: string, subprotocol: string) => ClientSocket;
}

export const NODE_ENVIRONMENT: ClientEnvironment = {
  now: () => performance.now(),
  random: Math.random,
  schedule: (task, delayMillis) => {
    const timer = setTimeout(task, delayMillis);
    return () => {
      clearTimeout(timer);
    };
  },
  openSocket: (url, subprotocol) => new WebSocket(url, subprotocol),
};

/** idle: connect() was not called. waiting: between two attempts. closed: close() was called; the end. */
export type ConnectionState = 'idle' | 'connecting' | 'connected' | 'waiting' | 'closed';

export interface LinkOptions {
  readonly url: string;
  readonly token: string | null;
  readonly clientName: string;
}

export interface LinkEvents {
  readonly onWelcome: (welcome: WelcomeFrame) => void;
  readonly onReply: (frame: DecisionFrame | ObservedFrame | ErrorFrame) => void;
  /** The agent broke the protocol; the link drops the connection by itself. */
  readonly onBreach: () => void;
  /** `error` says why a connection or an attempt ended, null when nothing is known. */
  readonly onState: (state: ConnectionState, error: SetpointError | null) => void;
}

/** Longest wait for the connection and its welcome, milliseconds: three TCP retransmissions (1 + 2 + 4 s) do not fit. */
const HANDSHAKE_MILLIS = 5_000;

/** A connection that lasted this long was a good one: the next loss starts again with the shortest delay. */
const STABLE_MILLIS = 10_000;

/** The error that an error frame carries; a code of a newer agent keeps its text and becomes `internal`. */
export function errorFrom(frame: ErrorFrame): SetpointError {
  const isKnown = Object.hasOwn(ERROR_CODES, frame.code);
  const options = frame.field === null ? { remedy: frame.remedy } : { remedy: frame.remedy, field: frame.field };
  return isKnown
    ? new SetpointError(frame.code as ErrorCode, frame.message, options)
    : new SetpointError('internal', `${frame.code}: ${frame.message}`, options);
}

/** Keeps one connection to one agent: opens it, says hello, and opens it again after a jittered delay, until closed. */
export class ClientLink {
  readonly #options: LinkOptions;
  readonly #events: LinkEvents;
  readonly #environment: ClientEnvironment;
  #socket: ClientSocket | null = null;
  #state: ConnectionState = 'idle';
  #attempt = 0;
  #connectedAt = 0;
  #lastError: SetpointError | null = null;
  #cancelTimer: () => void = () => {};

  constructor(options: LinkOptions, events: LinkEvents, environment: ClientEnvironment) {
    this.#options = options;
    this.#events = events;
    this.#environment = environment;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Bytes handed over and not yet in the operating system's hands. */
  get bufferedBytes(): number {
    return this.#socket?.bufferedAmount ?? 0;
  }

  open(): void {
    if (this.#state === 'idle') this.#attach();
  }

  send(bytes: Uint8Array): void {
    this.#socket?.send(bytes as Uint8Array<ArrayBuffer>);
  }

  /** Gives up the connection, if there is one, and starts over. */
  drop(error: SetpointError): void {
    if (this.#state === 'connected' || this.#state === 'connecting') this.#lose(error);
  }

  close(): void {
    if (this.#state === 'closed') return;
    this.#detach(1000);
    this.#enter('closed', null);
  }

  #enter(state: ConnectionState, error: SetpointError | null): void {
    this.#state = state;
    this.#events.onState(state, error);
  }

  #attach(): void {
    this.#lastError = null;
    this.#enter('connecting', null);
    // A state listener may have closed the client.
    if (this.state !== 'connecting') return;
    this.#cancelTimer = this.#environment.schedule(() => {
      this.#lose(new SetpointError('not_ready', `Cannot connect to ${this.#options.url}: no welcome within ${HANDSHAKE_MILLIS} ms`));
    }, HANDSHAKE_MILLIS);
    try {
      this.#socket = this.#environment.openSocket(this.#options.url, SUBPROTOCOL);
    } catch (cause) {
      this.#lose(new SetpointError('not_ready', `Cannot connect to ${this.#options.url}: ${messageOf(cause)}`, { cause }));
      return;
    }
    this.#listen(this.#socket);
  }

  #listen(socket: ClientSocket): void {
    socket.binaryType = 'arraybuffer';
    socket.onopen = () => {
      const { token, clientName } = this.#options;
      const window = { versionOldest: PROTOCOL_VERSION_OLDEST, versionNewest: PROTOCOL_VERSION };
      this.send(encodeFrame({ kind: FRAME_KINDS.hello, ...window, client: clientName, token }));
    };
    socket.onmessage = (event: { readonly data: unknown }) => {
      this.#receive(event.data);
    };
    socket.onclose = (event: { readonly code: number; readonly reason: string }) => {
      const { code, reason } = event;
      const text = reason === '' ? `close code ${code}` : `close code ${code}: ${reason}`;
      this.#lose(this.#lastError ?? new SetpointError('not_ready', `Cannot keep the connection to ${this.#options.url}: ${text}`));
    };
    // The standard gives an error event no detail, and a close event always follows it.
    socket.onerror = () => {};
  }

  #receive(data: unknown): void {
    try {
      if (!(data instanceof ArrayBuffer))
        throw new SetpointError('malformed_frame', 'Cannot read the message: it is text, binary is wanted');
      this.#dispatch(decodeServerFrame(new Uint8Array(data)));
    } catch (thrown) {
      if (!(thrown instanceof SetpointError)) throw thrown;
      this.#events.onBreach();
      this.#lose(thrown);
    }
  }

  #dispatch(frame: ReturnType<typeof decodeServerFrame>): void {
    if (frame.kind === FRAME_KINDS.welcome) {
      this.#welcome(frame);
    } else if (this.#state === 'connected') {
      this.#events.onReply(frame);
    } else if (frame.kind === FRAME_KINDS.error) {
      this.#lastError = errorFrom(frame);
    } else {
      throw new SetpointError('hello_required', 'Cannot use the connection: a reply came before welcome');
    }
  }

  #welcome(frame: WelcomeFrame): void {
    if (this.#state !== 'connecting') throw new SetpointError('malformed_frame', 'Cannot use the connection: welcome came twice');
    if (frame.version < PROTOCOL_VERSION_OLDEST || frame.version > PROTOCOL_VERSION) {
      const found = `the agent chose protocol version ${frame.version}, ${PROTOCOL_VERSION_OLDEST} .. ${PROTOCOL_VERSION} is allowed`;
      throw new SetpointError('unsupported_version', `Cannot use the connection: ${found}`);
    }
    this.#cancelTimer();
    this.#connectedAt = this.#environment.now();
    this.#events.onWelcome(frame);
    this.#enter('connected', null);
  }

  #lose(error: SetpointError): void {
    const wasStable = this.#state === 'connected' && this.#environment.now() - this.#connectedAt >= STABLE_MILLIS;
    this.#detach(1000);
    if (wasStable) this.#attempt = 0;
    const delayMillis = reconnectDelayMillis(this.#attempt, this.#environment.random());
    this.#attempt += 1;
    this.#cancelTimer = this.#environment.schedule(() => {
      this.#attach();
    }, delayMillis);
    this.#enter('waiting', error);
  }

  #detach(code: number): void {
    this.#cancelTimer();
    const socket = this.#socket;
    this.#socket = null;
    if (socket === null) return;
    socket.onopen = null;
    socket.onmessage = null;
    socket.onclose = null;
    // Kept: an error event without a listener would still be reported by some implementations.
    socket.onerror = () => {};
    socket.close(code);
  }
}
