import { SetpointError, type ErrorCode, type SetpointErrorOptions } from './errors.ts';

export type FrameErrorCode = Extract<ErrorCode, 'malformed_frame' | 'unknown_frame' | 'invalid_field' | 'frame_too_large'>;

/** A frame that cannot be read (or is too large to send): what is wrong, where, and which request it belonged to. */
export class FrameError extends SetpointError {
  /** The request that the frame named, null when that could not be told. */
  readonly requestId: number | null;

  constructor(code: FrameErrorCode, message: string, options: SetpointErrorOptions & { requestId?: number | null } = {}) {
    super(code, message, options);
    this.requestId = options.requestId ?? null;
  }

  /** This error for the request it turned out to belong to. */
  withRequestId(requestId: number | null): FrameError {
    const options = { remedy: this.remedy, requestId };
    return new FrameError(this.code as FrameErrorCode, this.message, this.field === null ? options : { ...options, field: this.field });
  }
}
