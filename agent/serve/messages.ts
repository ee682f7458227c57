import type { Outcome } from '../../protocol/frames.ts';
import type { EstimatorState, Observation } from '../guard/estimator.ts';
import type { LifetimeCounts } from './lifetime-counts.ts';
import type { StoreReport } from './store-supervisor.ts';
import type { JournalFailurePolicy } from './turn.ts';

/** What the control thread and a serving thread say to each other. Plain data: it crosses by structured clone. */

/** A vetted bundle that a serving thread shall load. */
export interface BundleOrder {
  readonly bundleId: string;
  /** Folder in the agent's own bundle store. */
  readonly directory: string;
  readonly lane: 'inline' | 'heavy';
  readonly isBatchable: boolean;
}

/** Limits of one stream, bytes. */
interface JournalLimits {
  readonly segmentBytes: number;
  readonly maxBytes: number;
  readonly ringBytes: number;
}

interface SlotPlace {
  readonly name: string;
  readonly index: number;
}

export interface ThreadSettings {
  readonly agentId: string;
  readonly software: string;
  readonly stream: number;
  readonly host: string;
  readonly port: number;
  readonly journalDirectory: string;
  readonly journal: JournalLimits;
  readonly durability: 'process' | 'power';
  readonly onJournalFailure: JournalFailurePolicy;
  readonly controllerToken: string | null;
  readonly defaultDeadlineMicros: number;
  readonly maxConnections: number;
  readonly heavyLimit: number;
  readonly slots: readonly SlotPlace[];
  /** Metrics blocks of all serving threads, in the order of their streams. */
  readonly metrics: readonly SharedArrayBuffer[];
}

export type ControlMessage =
  /** Load and warm up this bundle beside the active one; answered by 'prepared'. */
  | { readonly type: 'prepare'; readonly slot: string; readonly order: BundleOrder }
  /** Let the prepared bundle take over (or, without one, the slot stop answering). Answered by 'activated'. */
  | { readonly type: 'activate'; readonly slot: string; readonly bundleId: string | null }
  | { readonly type: 'suspend'; readonly bundleId: string }
  | { readonly type: 'heavy'; readonly socketPath: string }
  | { readonly type: 'estimate'; readonly slot: string; readonly key: string; readonly state: EstimatorState | null }
  | { readonly type: 'observed'; readonly token: number; readonly outcome: Outcome; readonly estimate: number | null }
  /** What readiness depends on, for every thread's HTTP door. */
  | { readonly type: 'status'; readonly isReady: boolean; readonly detail: StatusDetail }
  | { readonly type: 'store'; readonly view: StoreView }
  /** An alert of the control thread, for the journal; sent to one serving thread. */
  | { readonly type: 'alert'; readonly alert: string; readonly slot: string | null; readonly message: string }
  | { readonly type: 'repository'; readonly token: number; readonly error: RemoteError | null }
  /** The door may open: every slot that could be activated is. */
  | { readonly type: 'listen' }
  | { readonly type: 'stop'; readonly drainMillis: number };

export type ThreadMessage =
  | { readonly type: 'prepared'; readonly slot: string; readonly bundleId: string; readonly error: RemoteError | null }
  | { readonly type: 'activated'; readonly slot: string; readonly bundleId: string | null }
  | { readonly type: 'listening'; readonly error: RemoteError | null }
  | {
      readonly type: 'observation';
      readonly token: number;
      readonly slot: string;
      readonly key: string;
      readonly observation: Observation;
      readonly sequence: number;
    }
  | { readonly type: 'repository'; readonly token: number; readonly action: 'load' | 'unload'; readonly slot: string }
  | { readonly type: 'alert'; readonly alert: string; readonly slot: string | null; readonly message: string }
  | { readonly type: 'suspended'; readonly bundleId: string; readonly why: string }
  | { readonly type: 'stopped' };

export interface SlotStatus {
  readonly slot: string;
  readonly state: 'ready' | 'loading' | 'refused' | 'suspended' | 'unloaded';
  readonly bundleId: string | null;
  readonly version: string | null;
  readonly lane: 'inline' | 'heavy' | null;
  /** Why the slot is not ready, or why the bundle offered last was refused. */
  readonly reason: string | null;
}

/** How the store process is (null: there is none by configuration), and what slots had decided before this agent started. */
export interface StoreView {
  readonly report: StoreReport | null;
  readonly lifetime: LifetimeCounts;
}

export interface StatusDetail {
  readonly isStopping: boolean;
  readonly slots: readonly SlotStatus[];
}

/** A SetpointError as it crosses between threads. */
export interface RemoteError {
  readonly code: string;
  readonly message: string;
  readonly remedy: string;
  readonly field: string | null;
}
