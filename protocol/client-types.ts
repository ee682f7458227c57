import type { ClientEnvironment, ConnectionState } from './client-link.ts';
import type { SetpointError } from './errors.ts';
import type { Action, Context, DecisionFrame, ObservedFrame, Outcome } from './frames.ts';

export interface ClientOptions {
  /** `ws://` or `wss://` address of the agent's predict door. */
  readonly url: string;
  readonly token?: string | null;
  /** Name and version of the controller software, for the agent's log. */
  readonly clientName?: string;
  /** How long beyond the deadline an answer may still travel, microseconds. */
  readonly networkAllowanceMicros?: number;
  /** Called on every change; `error` says why a connection ended. */
  readonly onState?: (state: ConnectionState, error: SetpointError | null) => void;
  readonly environment?: Partial<ClientEnvironment>;
}

interface LocalFallback {
  readonly value?: number | null;
  readonly correction?: number | null;
}

export interface PredictOptions {
  readonly context?: Partial<Context> | null;
  /** Time the agent may take, microseconds; 0 or absent asks for the agent's default. */
  readonly deadlineMicros?: number;
  readonly lastApplied?: number | null;
  /** Model outputs to return: null for none, an empty list for all. */
  readonly outputs?: readonly string[] | null;
  /** What to answer with when the agent cannot. */
  readonly localFallback?: LocalFallback;
}

/** disconnected: no agent. timeout: no answer in time. refused: the agent, or a limit, refused the request. */
export type LocalCause = 'disconnected' | 'timeout' | 'refused';

interface AgentAnswer {
  readonly source: 'agent';
  readonly value: number | null;
  readonly correction: number | null;
  readonly action: Action;
  readonly decision: DecisionFrame;
}

interface LocalAnswer {
  readonly source: 'local';
  readonly value: number | null;
  readonly correction: number | null;
  readonly cause: LocalCause;
  readonly error: SetpointError;
}

export type Answer = AgentAnswer | LocalAnswer;

/** What observe sends; as ObserveFrame, with everything optional that the frame allows to be null. */
export interface Observation {
  readonly context: Partial<Context>;
  readonly measurementId: string;
  readonly parameter: string;
  readonly value: number;
  readonly unit?: string | null;
  readonly appliedInput?: number | null;
  readonly measuredAtMillis: number;
}

/** `recorded: false` means that nobody knows: send it again with the same measurementId. */
export type ObserveAnswer =
  | { readonly recorded: true; readonly outcome: Outcome; readonly estimate: number | null; readonly observed: ObservedFrame }
  | { readonly recorded: false; readonly cause: LocalCause; readonly error: SetpointError };

export interface ClientStatistics {
  readonly connections: number;
  readonly requests: number;
  readonly answered: number;
  readonly disconnected: number;
  readonly timedOut: number;
  readonly refused: number;
  /** Replies that came after their request had been answered locally. */
  readonly lateReplies: number;
  readonly protocolBreaches: number;
}
