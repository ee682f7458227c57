import type { SetpointError } from '../../protocol/errors.ts';
import type { DecisionFrame, PredictFrame } from '../../protocol/frames.ts';
import type { OrtTensors } from '../infer/session.ts';
import type { ServedBundle, Slot } from './slot.ts';

/** Where an answer goes: a WebSocket connection or an HTTP request. */
export interface ReplyTarget {
  /** performance.now() when the answers of a turn were handed to the socket; ends the service time. */
  handedMillis: number;
  /** Whether the frame's bytes are what leaves. */
  readonly sendsFrames: boolean;
  /** The decision is in the journal. `bytes` is its frame, valid only during the call. */
  decided(decision: DecisionFrame, bytes: Uint8Array): void;
  /** The request has no decision: it was not answerable, for the reason given. */
  failed(requestId: number, error: SetpointError): void;
  /** Every answer of this turn has been given: what was collected may leave. */
  flush(): void;
}

/**
 * A predict request on its way through a serving thread. Numbers are NaN until known. One object a request, always of the
 * same shape.
 */
export class Request {
  readonly target: ReplyTarget;
  readonly slot: Slot;
  readonly bundle: ServedBundle;
  readonly frame: PredictFrame;
  /** The frame's bytes; views of the turn's arena unless the request left the turn. */
  bytes: Uint8Array;
  /** performance.now() when the frame came in. */
  readonly arrivedMillis: number;
  readonly deadlineMicros: number;
  inputReasons = 0;
  laneReasons = 0;
  /** Set by the heavy lane's timer: the answer must leave now, whatever the model does. */
  isExpired = false;
  prediction = Number.NaN;
  correctionOutput = Number.NaN;
  reference = Number.NaN;
  gsi = Number.NaN;
  /** Every output of the run this request was part of, when outputs are wanted. */
  outputs: OrtTensors | null = null;
  row = 0;
  rows = 1;
  /** Set instead of an answer for a request that has no fallback. */
  error: SetpointError | null = null;

  constructor(
    target: ReplyTarget,
    slot: Slot,
    bundle: ServedBundle,
    frame: PredictFrame,
    bytes: Uint8Array,
    arrivedMillis: number,
    deadlineMicros: number,
  ) {
    this.target = target;
    this.slot = slot;
    this.bundle = bundle;
    this.frame = frame;
    this.bytes = bytes;
    this.arrivedMillis = arrivedMillis;
    this.deadlineMicros = deadlineMicros;
  }
}
