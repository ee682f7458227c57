import type { SetpointError } from '../../protocol/errors.ts';
import { type Files, SYSTEM_FILES, SYSTEM_TIMERS, type Timers } from './files.ts';
import type { Durability } from './mark.ts';
import { readBootId } from './mark-file.ts';

const MEBIBYTE = 1024 * 1024;

export interface JournalOptions {
  readonly directory: string;
  readonly stream: number;
  /** Random 64 bits that name a new stream of numbers. */
  readonly newEpoch: () => bigint;
  /**
   * Told when a sync fails: what was written since the one before may be lost in a power cut. A new segment is begun. Also told
   * when the mark cannot be written though records can.
   */
  readonly onSyncFailure: (error: SetpointError) => void;
  /** Told when the journal writes again after a failure: how many records it wrote late, and how many it had to drop. */
  readonly onRecovered?: (episode: { readonly lost: number; readonly recovered: number }) => void;
  /** Size at which a segment is finished and the next one begun. Default 16 MiB. */
  readonly segmentBytes?: number;
  /** All segments of the stream together; above it the journal fails with journal_full. Default 1 GiB. */
  readonly maxBytes?: number;
  /** Memory for records that cannot be written. Default 16 MiB. */
  readonly ringBytes?: number;
  /** Default 'process'. 'power' is for a caller that answers in whenSynced() only. */
  readonly durability?: Durability;
  /** Tells this run of the machine from others; null when nothing does. Default: the kernel's. */
  readonly bootId?: string | null;
  readonly nowMicros?: () => number;
  readonly files?: Files;
  readonly timers?: Timers;
}

export type JournalSettings = Required<JournalOptions>;

export function withDefaults(options: JournalOptions): JournalSettings {
  return {
    ...options,
    onRecovered: options.onRecovered ?? (() => {}),
    segmentBytes: options.segmentBytes ?? 16 * MEBIBYTE,
    maxBytes: options.maxBytes ?? 1024 * MEBIBYTE,
    ringBytes: options.ringBytes ?? 16 * MEBIBYTE,
    durability: options.durability ?? 'process',
    bootId: options.bootId === undefined ? readBootId() : options.bootId,
    nowMicros: options.nowMicros ?? (() => Date.now() * 1000),
    files: options.files ?? SYSTEM_FILES,
    timers: options.timers ?? SYSTEM_TIMERS,
  };
}
