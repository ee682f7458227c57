/** The closed table of error codes: what HTTP status it maps to, whether trying again can help, and what to do. */
export const ERROR_CODES = {
  malformed_frame: { status: 400, retryable: false, remedy: 'send one well-formed MessagePack array per message' },
  invalid_field: { status: 400, retryable: false, remedy: 'correct the named field; protocol/README.md gives its type and range' },
  unknown_frame: { status: 400, retryable: false, remedy: 'send only hello, predict and observe frames' },
  hello_required: { status: 400, retryable: false, remedy: 'send hello as the first frame, once' },
  unsupported_version: { status: 400, retryable: false, remedy: 'speak a protocol version inside the named window' },
  unauthorized: { status: 401, retryable: false, remedy: 'send the controller token that this agent is configured with' },
  forbidden: { status: 403, retryable: false, remedy: 'ask from the machine of the agent' },
  unknown_slot: { status: 404, retryable: false, remedy: 'use one of the slots listed in welcome' },
  unknown_version: { status: 404, retryable: false, remedy: 'ask for a version that the model metadata lists' },
  not_found: { status: 404, retryable: false, remedy: 'check the path against agent/http/README.md' },
  method_not_allowed: { status: 405, retryable: false, remedy: 'use the method that agent/http/README.md gives for this path' },
  frame_too_large: { status: 413, retryable: false, remedy: 'send fewer or smaller tensors; welcome gives the limit' },
  not_ready: { status: 503, retryable: true, remedy: 'wait until the slot is ready and try again' },
  overloaded: { status: 503, retryable: true, remedy: 'wait for answers before sending more; welcome gives the limit in flight' },
  stopping: { status: 503, retryable: true, remedy: 'reconnect; this agent is draining' },
  journal_failed: { status: 503, retryable: true, remedy: 'free disk space or repair the data directory; the alert names it' },
  unsupported: { status: 501, retryable: false, remedy: 'use a feature this agent lists' },
  invalid_bundle: { status: 422, retryable: false, remedy: 'correct the named part of the bundle and create it again' },
  invalid_config: { status: 400, retryable: false, remedy: 'correct the named key; agent/README.md describes every key' },
  internal: { status: 500, retryable: true, remedy: 'report this with the agent log; it is a defect of the agent' },
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

export interface SetpointErrorOptions {
  /** The field, key, tensor or file that was wrong, as the sender would name it. */
  readonly field?: string;
  /** What to do, when the code's own remedy is too general. */
  readonly remedy?: string;
  readonly cause?: unknown;
}

/**
 * An operating error: something outside this code was wrong. The message says what was attempted, why it failed and the
 * value found; `remedy` says what to do. Programmer errors are `assert` failures instead.
 */
export class SetpointError extends Error {
  override readonly name = 'SetpointError';
  readonly code: ErrorCode;
  readonly field: string | null;
  readonly remedy: string;

  constructor(code: ErrorCode, message: string, options: SetpointErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.field = options.field ?? null;
    this.remedy = options.remedy ?? ERROR_CODES[code].remedy;
  }

  get retryable(): boolean {
    return ERROR_CODES[this.code].retryable;
  }

  get status(): number {
    return ERROR_CODES[this.code].status;
  }
}

/** Fails loudly on a broken invariant of our own code; never on anything a peer or a file can cause. */
export function assert(condition: unknown, message: string): asserts condition {
  if (condition === false || condition === null || condition === undefined || condition === 0 || condition === '') {
    throw new Error(`Assertion failed: ${message}`);
  }
}

/** The text of anything thrown, for messages and logs. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
