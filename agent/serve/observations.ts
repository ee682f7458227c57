import { encodeFrame } from '../../protocol/codec.ts';
import { FRAME_KINDS, type ObserveFrame, type Outcome } from '../../protocol/frames.ts';
import { controlThreadKey } from '../guard/control-thread.ts';
import type { GuardPolicy } from '../guard/policy.ts';
import type { Observation } from '../guard/estimator.ts';
import type { Connection } from './connection.ts';

/** How an observe frame becomes an observation of a control thread; the same at arrival and when the journal is replayed. */
export function observationOf(frame: ObserveFrame, policy: GuardPolicy, nowMillis: number): { key: string; observation: Observation } {
  const { context } = frame;
  return {
    key: controlThreadKey(frame.slot, context, policy.threadFields),
    observation: {
      measurementId: frame.measurementId,
      // A clock ahead of ours must not push an observation into the future, where nothing would come after it.
      processMillis: Math.min(context.processEndMillis ?? frame.measuredAtMillis, nowMillis),
      runNumber: context.runNumber,
      value: frame.value,
      appliedInput: frame.appliedInput,
    },
  };
}

interface Waiting {
  readonly connection: Connection;
  readonly requestId: number;
  readonly sequence: number;
}

/** Observations that the control thread has not answered yet. Bounded by the requests in flight of all connections. */
export class WaitingObservations {
  readonly #stream: number;
  readonly #waiting = new Map<number, Waiting>();
  #nextToken = 1;

  constructor(stream: number) {
    this.#stream = stream;
  }

  add(connection: Connection, requestId: number, sequence: number): number {
    const token = this.#nextToken++;
    this.#waiting.set(token, { connection, requestId, sequence });
    return token;
  }

  settle(token: number, outcome: Outcome, estimate: number | null): void {
    const waiting = this.#waiting.get(token);
    this.#waiting.delete(token);
    if (waiting === undefined) return;
    const { connection, requestId, sequence } = waiting;
    connection.answer(encodeFrame({ kind: FRAME_KINDS.observed, requestId, sequence, stream: this.#stream, outcome, estimate }));
    connection.flush();
  }
}
