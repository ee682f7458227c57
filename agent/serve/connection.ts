import { timingSafeEqual } from 'node:crypto';
import { decodeClientFrame, encodeFrame } from '../../protocol/codec.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { FrameError } from '../../protocol/frame-error.ts';
import {
  type DecisionFrame,
  FRAME_KINDS,
  type HelloFrame,
  type ObserveFrame,
  type PredictFrame,
  type WelcomeFrame,
} from '../../protocol/frames.ts';
import { MAX_BAD_FRAMES, MAX_IN_FLIGHT, PROTOCOL_VERSION, PROTOCOL_VERSION_OLDEST } from '../../protocol/limits.ts';
import type { ReplyTarget } from './request.ts';

/** The socket below a connection, as much of it as is needed. */
export interface Socket {
  /** Runs `write` so that what it sends leaves in one piece. */
  cork(write: () => void): void;
  send(bytes: Uint8Array): void;
  close(code: number, reason: string): void;
}

/** WebSocket close codes of RFC 6455 that the agent uses; protocol/README.md says when. */
export const CLOSE_CODES = { stopping: 1001, protocolBreach: 1002, policy: 1008, tooLarge: 1009 } as const;

/** What a connection needs from its serving thread. */
export interface ConnectionServices {
  /** Null when any controller may connect. */
  readonly controllerToken: string | null;
  welcome(version: number): WelcomeFrame;
  predict(connection: Connection, frame: PredictFrame, bytes: Uint8Array, arrivedMillis: number): void;
  observe(connection: Connection, frame: ObserveFrame, bytes: Uint8Array): void;
  badFrame(): void;
}

/** One controller's connection: its place in the protocol and what it has in flight. */
export class Connection implements ReplyTarget {
  readonly sendsFrames = true;
  handedMillis = 0;
  readonly #socket: Socket;
  readonly #services: ConnectionServices;
  #isWelcome = false;
  #isClosed = false;
  #badFrames = 0;
  #inFlight = 0;
  #outbox: Uint8Array[] = [];

  constructor(socket: Socket, services: ConnectionServices) {
    this.#socket = socket;
    this.#services = services;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  /** The socket is gone; answers on their way to it are dropped (they are in the journal). */
  closed(): void {
    this.#isClosed = true;
    this.#outbox = [];
  }

  /** A message came that is above MAX_FRAME_BYTES. */
  refuseLargeMessage(): void {
    this.#services.badFrame();
    this.#close(CLOSE_CODES.tooLarge, 'frame_too_large');
  }

  /** Takes one message. `bytes` must stay valid until the turn ends. */
  receive(bytes: Uint8Array, isBinary: boolean, arrivedMillis: number): void {
    if (this.#isClosed) return;
    if (!isBinary) {
      this.#breach(new SetpointError('malformed_frame', 'Cannot read a text message: frames are binary messages'));
      return;
    }
    let frame;
    try {
      frame = decodeClientFrame(bytes);
    } catch (error) {
      if (!(error instanceof FrameError)) throw error;
      this.#refuseFrame(error);
      return;
    }
    if (frame.kind === FRAME_KINDS.hello) this.#greet(frame);
    else if (!this.#isWelcome) this.#breach(new SetpointError('hello_required', 'Cannot take this frame: hello must come first'));
    else if (this.#inFlight >= MAX_IN_FLIGHT) {
      this.#sendError(
        frame.requestId,
        new SetpointError(
          'overloaded',
          `Cannot take request ${frame.requestId}: ${this.#inFlight} are in flight, ${MAX_IN_FLIGHT} are allowed`,
        ),
      );
    } else {
      this.#inFlight++;
      if (frame.kind === FRAME_KINDS.predict) this.#services.predict(this, frame, bytes, arrivedMillis);
      else this.#services.observe(this, frame, bytes);
    }
  }

  decided(_decision: DecisionFrame, bytes: Uint8Array): void {
    this.answer(bytes);
  }

  failed(requestId: number, error: SetpointError): void {
    this.answer(errorBytes(requestId, error));
  }

  /** Queues the answer to one request; flush() sends it. */
  answer(bytes: Uint8Array): void {
    this.#inFlight--;
    if (!this.#isClosed) this.#outbox.push(bytes);
  }

  flush(): void {
    if (this.#outbox.length === 0 || this.#isClosed) return;
    // A single frame is one write as it is; corking it would cost a call into the socket and back.
    if (this.#outbox.length === 1) this.#writeOutbox();
    else this.#socket.cork(this.#writeOutbox);
  }

  readonly #writeOutbox = (): void => {
    // A send may find the reader too slow and close the connection.
    for (const bytes of this.#outbox) if (!this.#isClosed) this.#socket.send(bytes);
    this.#outbox.length = 0;
  };

  /** Says goodbye; the peer should reconnect. */
  stop(): void {
    this.#close(CLOSE_CODES.stopping, 'stopping');
  }

  #greet(frame: HelloFrame): void {
    if (this.#isWelcome) {
      this.#breach(new SetpointError('hello_required', 'Cannot take hello: it was already said'));
      return;
    }
    const version = Math.min(frame.versionNewest, PROTOCOL_VERSION);
    if (version < frame.versionOldest || version < PROTOCOL_VERSION_OLDEST) {
      const window = `${PROTOCOL_VERSION_OLDEST} to ${PROTOCOL_VERSION}`;
      this.#breach(
        new SetpointError(
          'unsupported_version',
          `Cannot speak version ${frame.versionOldest} to ${frame.versionNewest}: this agent speaks ${window}`,
          {
            field: 'versionNewest',
          },
        ),
      );
      return;
    }
    if (!isToken(frame.token, this.#services.controllerToken)) {
      this.#sendError(
        null,
        new SetpointError('unauthorized', 'Cannot let this controller in: its token is not the configured one', { field: 'token' }),
      );
      this.#close(CLOSE_CODES.policy, 'unauthorized');
      return;
    }
    this.#isWelcome = true;
    this.#socket.send(encodeFrame(this.#services.welcome(version)));
  }

  #refuseFrame(error: FrameError): void {
    this.#services.badFrame();
    this.#badFrames++;
    this.#sendError(error.requestId, error);
    if (!this.#isWelcome) this.#close(CLOSE_CODES.protocolBreach, 'hello_required');
    else if (this.#badFrames >= MAX_BAD_FRAMES) this.#close(CLOSE_CODES.policy, 'too many bad frames');
  }

  #breach(error: SetpointError): void {
    this.#services.badFrame();
    this.#sendError(null, error);
    this.#close(CLOSE_CODES.protocolBreach, error.code);
  }

  #close(code: number, reason: string): void {
    if (!this.#isClosed) this.#socket.close(code, reason);
  }

  #sendError(requestId: number | null, error: SetpointError): void {
    if (!this.#isClosed) this.#socket.send(errorBytes(requestId, error));
  }
}

function isToken(given: string | null, expected: string | null): boolean {
  if (expected === null) return true;
  const givenBytes = Buffer.from(given ?? '');
  const expectedBytes = Buffer.from(expected);
  return givenBytes.byteLength === expectedBytes.byteLength && timingSafeEqual(givenBytes, expectedBytes);
}

function errorBytes(requestId: number | null, error: SetpointError): Uint8Array {
  const { code, field, message, remedy, retryable } = error;
  return encodeFrame({ kind: FRAME_KINDS.error, requestId, code, field, message, remedy, retryable });
}
