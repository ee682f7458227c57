/** What the agent and its store process tell each other, over the IPC channel the process was started with. */

/** Parts of the agent's memory that the store keeps for it, each one JSON value. */
export const STATE_NAMES = ['estimators', 'counters', 'slots'] as const;
type StateName = (typeof STATE_NAMES)[number];

export interface StreamSequence {
  readonly stream: number;
  readonly sequence: number;
}

export type ToStore =
  /**
   * Observations up to these numbers are part of the estimators' snapshot. A finished segment that holds a later one must
   * stay: the estimators learn it again at the next start.
   */
  | { readonly type: 'snapshot'; readonly positions: readonly StreamSequence[] }
  | { readonly type: 'state'; readonly name: StateName; readonly value: unknown }
  /** Drain what the journals hold, for at most this long, then end. */
  | { readonly type: 'stop'; readonly withinMillis: number };

export interface StoreStatus {
  /** 'full': the byte cap is reached and the policy is to hold. */
  readonly state: 'draining' | 'waiting_for_space' | 'full';
  readonly entries: number;
  /** Index of the last entry, 0 when there is none. */
  readonly headIndex: number;
  /** Journal bytes that are not in the store yet. */
  readonly lagBytes: number;
  readonly fileBytes: number;
  /** Pages in use, what `maxBytes` limits. */
  readonly usedBytes: number;
  /** Free bytes of the file system. */
  readonly freeBytes: number;
  /** When the last commit ended, milliseconds since 1970; null before the first. */
  readonly lastCommitMillis: number | null;
  /** How long the commit that is under way has been, 0 when there is none. */
  readonly commitPendingMillis: number;
  /** Since this process started: records whose telemetry was dropped, records dropped, numbers stated as lost. */
  readonly dropped: { readonly telemetry: number; readonly records: number; readonly lost: number };
}

export type StoreAlert =
  | 'store_waiting_for_space'
  | 'store_full'
  | 'store_dropped'
  | 'store_lost'
  | 'store_segment_damaged'
  | 'store_checkpoint_failed';

export type FromStore =
  /** The store is open; `states` is what was kept, by name. Sent once. */
  | { readonly type: 'ready'; readonly states: Readonly<Record<string, unknown>> }
  /** Every second, also while a commit is under way: the heartbeat. */
  | { readonly type: 'status'; readonly status: StoreStatus }
  | { readonly type: 'alert'; readonly alert: StoreAlert; readonly message: string };

/** The process cannot open the store for want of space (EX_TEMPFAIL of sysexits.h). */
export const EXIT_NO_SPACE = 75;
/** The process found the store damaged; the same code as of the check. */
export const EXIT_DAMAGED = 3;
