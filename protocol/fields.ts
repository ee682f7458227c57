import { FrameError } from './frame-error.ts';
import { MAX_STRING_BYTES } from './limits.ts';

/**
 * Checks of single fields. Each returns the value it was given, typed, or throws a FrameError invalid_field that names
 * the field as the frame's own type names it (`context.lotId`, `features.tensors[2].shape`).
 */

/** Latest time of day that both sides can turn into a date, milliseconds since 1970 (ECMA-262, time values). */
export const MAX_MILLIS = 8_640_000_000_000_000;

export function wrongField(field: string, value: unknown, allowed: string): FrameError {
  return new FrameError('invalid_field', `Cannot accept ${field}: value found is ${described(value)}, ${allowed} is allowed`, { field });
}

/** A value for a message: its kind and size, never more than a few dozen characters of what a peer sent. */
function described(value: unknown): string {
  if (typeof value === 'string') return value.length > 40 ? `a string of ${Buffer.byteLength(value)} bytes` : `'${value}'`;
  if (value instanceof Uint8Array) return `${value.length} bytes of binary`;
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  return value === null ? 'nil' : typeof value;
}

/** Whether `text` fits in MAX_STRING_BYTES; a UTF-16 unit is at most 3 bytes of UTF-8, so short text needs no counting. */
function fits(text: string, maxBytes: number): boolean {
  return text.length * 3 <= maxBytes || Buffer.byteLength(text) <= maxBytes;
}

/** A string of 1 to `maxBytes` bytes. */
export function nameAt(value: unknown, field: string, maxBytes: number = MAX_STRING_BYTES): string {
  if (typeof value === 'string' && value.length > 0 && fits(value, maxBytes)) return value;
  throw wrongField(field, value, `a string of 1 to ${maxBytes} bytes`);
}

/** A string of 0 to `maxBytes` bytes. */
export function textAt(value: unknown, field: string, maxBytes: number = MAX_STRING_BYTES): string {
  if (typeof value === 'string' && fits(value, maxBytes)) return value;
  throw wrongField(field, value, `a string of 0 to ${maxBytes} bytes`);
}

/** A string of 0 to MAX_STRING_BYTES bytes, or nil. */
export function optionalTextAt(value: unknown, field: string): string | null {
  if (value === null || (typeof value === 'string' && fits(value, MAX_STRING_BYTES))) return value;
  throw wrongField(field, value, `nil or a string of 0 to ${MAX_STRING_BYTES} bytes`);
}

/** An integer 0 .. `max`. */
export function countAt(value: unknown, field: string, max: number = Number.MAX_SAFE_INTEGER): number {
  // Adding 0 turns the -0 that a float form can carry into 0.
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max) return (value as number) + 0;
  throw wrongField(field, value, `an integer 0 .. ${max}`);
}

/** An integer 0 .. `max`, or nil. */
export function optionalCountAt(value: unknown, field: string, max: number = Number.MAX_SAFE_INTEGER): number | null {
  if (value === null) return null;
  if (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max) return (value as number) + 0;
  throw wrongField(field, value, `nil or an integer 0 .. ${max}`);
}

export function finiteAt(value: unknown, field: string): number {
  if (Number.isFinite(value)) return value as number;
  throw wrongField(field, value, 'a finite number');
}

export function optionalFiniteAt(value: unknown, field: string): number | null {
  if (value === null || Number.isFinite(value)) return value as number | null;
  throw wrongField(field, value, 'nil or a finite number');
}

/** Any number, NaN and infinities included, or nil: what a model said before the guard looked at it. */
export function optionalNumberAt(value: unknown, field: string): number | null {
  if (value === null || typeof value === 'number') return value;
  throw wrongField(field, value, 'nil or a number');
}

export function flagAt(value: unknown, field: string): boolean {
  if (typeof value === 'boolean') return value;
  throw wrongField(field, value, 'true or false');
}

/** A SHA-256, 32 bytes. */
export function digestAt(value: unknown, field: string): Uint8Array {
  if (value instanceof Uint8Array && value.length === 32) return value;
  throw wrongField(field, value, '32 bytes of binary');
}

/** An array of at most `max` values. */
export function listAt(value: unknown, field: string, max: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= max) return value;
  throw wrongField(field, value, `an array of at most ${max}`);
}

/** An array of exactly `length` values. */
export function tupleAt(value: unknown, field: string, length: number): readonly unknown[] {
  if (Array.isArray(value) && value.length === length) return value;
  throw wrongField(field, value, `an array of exactly ${length}`);
}
