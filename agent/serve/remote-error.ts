import { ERROR_CODES, type ErrorCode, messageOf, SetpointError } from '../../protocol/errors.ts';
import type { RemoteError } from './messages.ts';

/** Errors on their way between threads: structured clone would lose their class. */

export function toRemote(thrown: unknown): RemoteError {
  if (thrown instanceof SetpointError) {
    return { code: thrown.code, message: thrown.message, remedy: thrown.remedy, field: thrown.field };
  }
  return { code: 'internal', message: messageOf(thrown), remedy: ERROR_CODES.internal.remedy, field: null };
}

export function fromRemote(error: RemoteError): SetpointError {
  const code = Object.hasOwn(ERROR_CODES, error.code) ? (error.code as ErrorCode) : 'internal';
  const options = error.field === null ? { remedy: error.remedy } : { remedy: error.remedy, field: error.field };
  return new SetpointError(code, error.message, options);
}
