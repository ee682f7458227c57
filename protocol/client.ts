import { ClientLink, errorFrom, NODE_ENVIRONMENT, type ClientEnvironment, type ConnectionState } from './client-link.ts';
import type { Answer, ClientOptions, ClientStatistics, LocalCause, Observation, ObserveAnswer, PredictOptions } from './client-types.ts';
import { encodeFrame } from './codec.ts';
import type { WireTensor } from './datatype.ts';
import { SetpointError } from './errors.ts';
import { FrameError } from './frame-error.ts';
import { CONTEXT_FIELDS, FRAME_KINDS, type Context, type DecisionFrame, type Features, type ObservedFrame } from './frames.ts';
import type { ErrorFrame, ObserveFrame, PredictFrame, SlotInfo, WelcomeFrame } from './frames.ts';
import { MAX_DEADLINE_MICROS } from './limits.ts';

/** Round trip of a plant network with a switch or two, and the scheduling of both machines: 20 ms covers its p99.9. */
const NETWORK_ALLOWANCE_MICROS = 20_000;

/** How long an observation may take, milliseconds: it waits for a disk, and no recipe step waits for it. */
const OBSERVE_TIMEOUT_MILLIS = 2_000;

/** After a time-out, how long nothing at all may arrive before the connection counts as dead, milliseconds. */
const SILENCE_MILLIS = 5_000;

/** Most unsent bytes: 16 frames of the largest size. Beyond it requests are answered locally instead of queued. */
const MAX_BUFFERED_BYTES = 16 * 1024 * 1024;

interface Failure {
  readonly cause: LocalCause;
  readonly error: SetpointError;
}

type Reply = DecisionFrame | ObservedFrame;

interface Pending {
  readonly settle: (outcome: Reply | Failure) => void;
  readonly cancelTimer: () => void;
}

/**
 * A controller's connection to one agent. `predict` always resolves by its deadline plus the network allowance (and the
 * resolution of the process's timers, about 1 ms): with the agent's decision, or with the caller's own local fallback.
 * It rejects only for programmer errors, such as an argument of the wrong type.
 */
export class SetpointClient {
  readonly #link: ClientLink;
  readonly #environment: ClientEnvironment;
  readonly #networkAllowanceMicros: number;
  readonly #onState: (state: ConnectionState, error: SetpointError | null) => void;
  /** Requests not yet settled. At most the agent's maxInFlight: `#unanswered` bounds it. */
  readonly #pending = new Map<number, Pending>();
  readonly #waiters = new Set<(isConnected: boolean) => void>();
  #welcome: WelcomeFrame | null = null;
  #lastError: SetpointError | null = null;
  #nextRequestId = 1;
  /** Requests the agent still owes a reply, timed-out ones included: it counts them too. */
  #unanswered = 0;
  #cancelSilence: (() => void) | null = null;
  readonly #counts = {
    connections: 0,
    requests: 0,
    answered: 0,
    disconnected: 0,
    timedOut: 0,
    refused: 0,
    lateReplies: 0,
    protocolBreaches: 0,
  };

  constructor(options: ClientOptions) {
    this.#environment = { ...NODE_ENVIRONMENT, ...options.environment };
    this.#networkAllowanceMicros = options.networkAllowanceMicros ?? NETWORK_ALLOWANCE_MICROS;
    this.#onState = options.onState ?? (() => {});
    const { url, token = null, clientName = 'setpoint-client' } = options;
    const events = {
      onWelcome: (welcome: WelcomeFrame) => {
        this.#welcome = welcome;
        this.#counts.connections += 1;
      },
      onReply: (frame: Reply | ErrorFrame) => {
        this.#receive(frame);
      },
      onBreach: () => {
        this.#counts.protocolBreaches += 1;
      },
      onState: (state: ConnectionState, error: SetpointError | null) => {
        this.#follow(state, error);
      },
    };
    this.#link = new ClientLink({ url, token, clientName }, events, this.#environment);
  }

  get state(): ConnectionState {
    return this.#link.state;
  }

  /** The slots that the agent listed when it last welcomed this client. */
  get slots(): readonly SlotInfo[] {
    return this.#welcome?.slots ?? [];
  }

  get agentId(): string | null {
    return this.#welcome?.agentId ?? null;
  }

  get statistics(): ClientStatistics {
    return { ...this.#counts };
  }

  /** Starts connecting, for good, and waits for the agent's welcome at most `timeoutMillis`: whether it came. */
  connect(timeoutMillis = 1_000): Promise<boolean> {
    this.#link.open();
    return this.ready(timeoutMillis);
  }

  /** Whether the agent welcomes this client within `timeoutMillis`. */
  ready(timeoutMillis: number): Promise<boolean> {
    if (this.state === 'connected' || this.state === 'closed') return Promise.resolve(this.state === 'connected');
    return new Promise((resolve) => {
      const finish = (isConnected: boolean): void => {
        cancelTimer();
        this.#waiters.delete(finish);
        resolve(isConnected);
      };
      const cancelTimer = this.#environment.schedule(() => {
        finish(false);
      }, timeoutMillis);
      this.#waiters.add(finish);
    });
  }

  async predict(slot: string, input: Float32Array | Float64Array | readonly WireTensor[], options: PredictOptions = {}): Promise<Answer> {
    const deadlineMicros = options.deadlineMicros ?? 0;
    const allowedMicros =
      deadlineMicros === 0 ? (this.#welcome?.limits.defaultDeadlineMicros ?? 0) : Math.min(deadlineMicros, MAX_DEADLINE_MICROS);
    const frame: PredictFrame = {
      kind: FRAME_KINDS.predict,
      requestId: this.#nextRequestId++,
      slot,
      context: options.context ? contextFrom(options.context) : null,
      deadlineMicros,
      lastApplied: options.lastApplied ?? null,
      features: featuresFrom(input),
      outputs: options.outputs ?? null,
    };
    const reply = await this.#ask(frame, (allowedMicros + this.#networkAllowanceMicros) / 1_000);
    if ('kind' in reply && reply.kind === FRAME_KINDS.decision) {
      return { source: 'agent', value: reply.value, correction: reply.correction, action: reply.action, decision: reply };
    }
    const { value = null, correction = null } = options.localFallback ?? {};
    return { source: 'local', value, correction, ...failureOf(reply) };
  }

  async observe(slot: string, observation: Observation): Promise<ObserveAnswer> {
    const frame: ObserveFrame = {
      kind: FRAME_KINDS.observe,
      requestId: this.#nextRequestId++,
      slot,
      ...observation,
      context: contextFrom(observation.context),
      unit: observation.unit ?? null,
      appliedInput: observation.appliedInput ?? null,
    };
    const reply = await this.#ask(frame, OBSERVE_TIMEOUT_MILLIS);
    if ('kind' in reply && reply.kind === FRAME_KINDS.observed) {
      return { recorded: true, outcome: reply.outcome, estimate: reply.estimate, observed: reply };
    }
    return { recorded: false, ...failureOf(reply) };
  }

  /** Closes the connection for good; what is unanswered is answered locally. */
  close(): void {
    this.#link.close();
  }

  #ask(frame: PredictFrame | ObserveFrame, waitMillis: number): Promise<Reply | Failure> {
    this.#counts.requests += 1;
    const sent = this.#send(frame);
    if (sent !== null) {
      this.#counts[sent.cause === 'refused' ? 'refused' : 'disconnected'] += 1;
      return Promise.resolve(sent);
    }
    return new Promise((resolve) => {
      const cancelTimer = this.#environment.schedule(() => {
        this.#timeOut(frame.requestId, waitMillis);
      }, waitMillis);
      this.#pending.set(frame.requestId, { settle: resolve, cancelTimer });
    });
  }

  /** Sends `frame`, or says why not. */
  #send(frame: PredictFrame | ObserveFrame): Failure | null {
    const welcome = this.#welcome;
    if (this.state !== 'connected' || welcome === null) return { cause: 'disconnected', error: this.#absence() };
    if (this.#unanswered >= welcome.limits.maxInFlight || this.#link.bufferedBytes > MAX_BUFFERED_BYTES) {
      const found = `${this.#unanswered} requests and ${this.#link.bufferedBytes} bytes wait`;
      const allowed = `${welcome.limits.maxInFlight} and ${MAX_BUFFERED_BYTES} are allowed`;
      return { cause: 'refused', error: new SetpointError('overloaded', `Cannot send the request: ${found}, ${allowed}`) };
    }
    try {
      const bytes = encodeFrame(frame);
      const { maxFrameBytes } = welcome.limits;
      if (bytes.length > maxFrameBytes) {
        throw new FrameError('frame_too_large', `Cannot send the frame: it has ${bytes.length} bytes, ${maxFrameBytes} are allowed`);
      }
      this.#link.send(bytes);
    } catch (thrown) {
      if (thrown instanceof FrameError) return { cause: 'refused', error: thrown };
      throw thrown;
    }
    this.#unanswered += 1;
    return null;
  }

  #absence(): SetpointError {
    return this.#lastError ?? new SetpointError('not_ready', 'Cannot ask the agent: no connection to it');
  }

  #timeOut(requestId: number, waitMillis: number): void {
    this.#counts.timedOut += 1;
    this.#settle(requestId, {
      cause: 'timeout',
      error: new SetpointError('not_ready', `Cannot wait for the agent any longer: no answer within ${waitMillis} ms`),
    });
    this.#cancelSilence ??= this.#environment.schedule(() => {
      this.#cancelSilence = null;
      this.#link.drop(new SetpointError('not_ready', `Cannot keep the connection: nothing arrived for ${SILENCE_MILLIS} ms`));
    }, SILENCE_MILLIS);
  }

  #settle(requestId: number, outcome: Reply | Failure): boolean {
    const pending = this.#pending.get(requestId);
    if (pending === undefined) return false;
    this.#pending.delete(requestId);
    pending.cancelTimer();
    pending.settle(outcome);
    return true;
  }

  #receive(frame: Reply | ErrorFrame): void {
    this.#endSilence();
    this.#unanswered = Math.max(0, this.#unanswered - 1);
    const isError = frame.kind === FRAME_KINDS.error;
    const wasPending =
      frame.requestId !== null && this.#settle(frame.requestId, isError ? { cause: 'refused', error: errorFrom(frame) } : frame);
    if (frame.requestId === null) return;
    if (!wasPending) this.#counts.lateReplies += 1;
    else if (isError) this.#counts.refused += 1;
    else this.#counts.answered += 1;
  }

  #follow(state: ConnectionState, error: SetpointError | null): void {
    if (error !== null) this.#lastError = error;
    if (state === 'connected') {
      this.#lastError = null;
      for (const finish of this.#waiters) finish(true);
    } else if (state === 'waiting' || state === 'closed') {
      this.#abandon(state);
    }
    this.#onState(state, error);
  }

  /** The connection is gone, and with it every answer that was under way. */
  #abandon(state: ConnectionState): void {
    this.#endSilence();
    this.#unanswered = 0;
    this.#counts.disconnected += this.#pending.size;
    for (const requestId of this.#pending.keys()) this.#settle(requestId, { cause: 'disconnected', error: this.#absence() });
    if (state === 'closed') for (const finish of this.#waiters) finish(false);
  }

  #endSilence(): void {
    this.#cancelSilence?.();
    this.#cancelSilence = null;
  }
}

function failureOf(reply: Reply | Failure): Failure {
  if (!('kind' in reply)) return reply;
  return {
    cause: 'refused',
    error: new SetpointError('internal', `Cannot use the answer: a frame of kind ${reply.kind} does not answer this`),
  };
}

/** All thirteen positions; what the caller does not know is nil. */
function contextFrom(known: Partial<Context>): Context {
  return Object.fromEntries(CONTEXT_FIELDS.map((field) => [field, known[field] ?? null])) as unknown as Context;
}

function featuresFrom(input: Float32Array | Float64Array | readonly WireTensor[]): Features {
  if (input instanceof Float32Array) return { encoding: 'float32', bytes: bytesOf(input) };
  if (input instanceof Float64Array) return { encoding: 'float64', bytes: bytesOf(input) };
  return { encoding: 'tensors', tensors: input };
}

function bytesOf(vector: Float32Array | Float64Array): Uint8Array {
  return new Uint8Array(vector.buffer, vector.byteOffset, vector.byteLength);
}
