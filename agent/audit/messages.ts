import type { ErrorCode } from '../../protocol/errors.ts';

/** What the command and the process that reads for it tell each other: a job as an argument, messages as lines of JSON. */

export const FORMATS = ['text', 'jsonl', 'csv'] as const;
export type Format = (typeof FORMATS)[number];

export type Selection =
  | { readonly by: 'substrate'; readonly substrateId: string }
  /** The first digits of a bundle id, hexadecimal, at least 8 of 64. */
  | { readonly by: 'bundle'; readonly prefix: string }
  | { readonly by: 'decision'; readonly stream: number; readonly sequence: number }
  | { readonly by: 'time' };

export interface Question {
  readonly type: 'ask';
  readonly dataDirectory: string;
  readonly agentId: string | null;
  readonly selection: Selection;
  /** Inclusive, microseconds since 1970. */
  readonly fromMicros: number;
  readonly toMicros: number;
  readonly format: Format;
}

export interface Verification {
  readonly type: 'verify';
  readonly dataDirectory: string;
  /** What every checkpoint must name; null takes the first one's. */
  readonly agentId: string | null;
  readonly keyPath: string;
  /** A checkpoint that was kept elsewhere. */
  readonly checkpointPath: string | null;
  readonly isJson: boolean;
}

export interface CheckpointRequest {
  readonly type: 'checkpoint';
  readonly dataDirectory: string;
  readonly keyPath: string;
}

export type AuditJob = Question | Verification | CheckpointRequest;

/** The descriptor that messages are written to; the answer itself goes to standard output. */
export const MESSAGE_DESCRIPTOR = 3;

export type AuditMessage =
  | { readonly type: 'warning'; readonly message: string }
  /** The answer is complete. `isSound` false: exit code 1. */
  | { readonly type: 'done'; readonly summary: string; readonly isSound: boolean }
  | { readonly type: 'failed'; readonly code: ErrorCode; readonly message: string; readonly remedy: string };
