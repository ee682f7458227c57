import { ERROR_CODES, messageOf, SetpointError } from '../../protocol/errors.ts';
import type { HttpReply } from './services.ts';

const JSON_HEADERS: HttpReply['headers'] = [['Content-Type', 'application/json']];

/** Longest part of a client's own text that an error repeats, characters. */
const QUOTE_LENGTH = 80;

export function jsonReply(status: number, value: unknown): HttpReply {
  return { status, headers: JSON_HEADERS, body: JSON.stringify(value) };
}

/** A JSON reply whose text is already made. */
export function jsonTextReply(text: string): HttpReply {
  return { status: 200, headers: JSON_HEADERS, body: text };
}

/** The text of an error as this door sends it: what failed and why, then what to do. */
export function errorText(error: SetpointError): string {
  return `${error.message}; ${error.remedy}`;
}

/** {"error": text} with the status of the error's code; anything but a SetpointError is a defect of the agent, 500. */
export function errorReply(thrown: unknown): HttpReply {
  if (thrown instanceof SetpointError) {
    return jsonReply(thrown.status, { error: errorText(thrown) });
  }
  const { status, remedy } = ERROR_CODES.internal;
  return jsonReply(status, { error: `Cannot answer the request: ${messageOf(thrown)}; ${remedy}` });
}

/** An invalid_field error of this door. `message` follows "Cannot X: why: value found is Y, Z is allowed". */
export function invalidField(field: string, message: string, remedy?: string): SetpointError {
  return new SetpointError('invalid_field', message, {
    field,
    remedy: remedy ?? 'correct the named field; agent/http/README.md gives its type and range',
  });
}

/** A value found in a request, short enough for a message. */
export function found(value: unknown): string {
  if (typeof value === 'string') {
    return JSON.stringify(value.length > QUOTE_LENGTH ? `${value.slice(0, QUOTE_LENGTH)}...` : value);
  }
  if (Array.isArray(value)) {
    return `an array of ${value.length}`;
  }
  if (typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean') {
    return String(value);
  }
  return value === undefined ? 'missing' : value === null ? 'null' : 'an object';
}

/** Narrows to a JSON object (not an array, not null). */
export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
