import { CONTEXT_FIELDS, type Context } from '../../protocol/frames.ts';
import { MAX_DEADLINE_MICROS, MAX_STRING_BYTES } from '../../protocol/limits.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { found, invalidField, isObject } from './replies.ts';

/** What the parameters of an inference request ask for. */
export interface RequestParameters {
  /** All outputs as binary data, unless an output says otherwise. */
  readonly binaryByDefault: boolean;
  /** 0 for the agent's default. */
  readonly deadlineMicros: number;
  readonly context: Context | null;
  readonly lastApplied: number | null;
}

type Scalar = string | number | boolean;

const PREFIX = 'setpoint_';
const NUMBER_FIELDS: ReadonlySet<string> = new Set(['runNumber', 'processEndMillis']);

const encoder = new TextEncoder();

const NO_CONTEXT = Object.fromEntries(CONTEXT_FIELDS.map((name) => [name, null])) as unknown as Context;

export const NO_PARAMETERS: RequestParameters = { binaryByDefault: false, deadlineMicros: 0, context: null, lastApplied: null };

/**
 * Reads the request-level `parameters`. Parameters that this agent does not know are ignored, as the protocol allows,
 * except `setpoint_…` (a misspelt identifier must not get lost) and what would change the meaning of the answer.
 * @throws SetpointError invalid_field, or unsupported for sequences
 */
export function readRequestParameters(given: unknown): RequestParameters {
  const parameters = readParameters(given, 'parameters');
  let context: Record<string, string | number> | null = null;
  let lastApplied: number | null = null;
  for (const [name, value] of Object.entries(parameters)) {
    if (name === 'setpoint_lastApplied') {
      lastApplied = finiteNumber(name, value);
    } else if (name.startsWith(PREFIX)) {
      context ??= {};
      context[name.slice(PREFIX.length)] = contextValue(name, value);
    }
  }
  rejectSequence(parameters);
  integerUpTo('priority', parameters['priority'], Number.MAX_SAFE_INTEGER);
  return {
    binaryByDefault: flag('parameters.binary_data_output', parameters['binary_data_output']) ?? false,
    deadlineMicros: integerUpTo('timeout', parameters['timeout'], MAX_DEADLINE_MICROS) ?? 0,
    context: context === null ? null : { ...NO_CONTEXT, ...context },
    lastApplied,
  };
}

/** A `parameters` object, checked to hold strings, numbers and booleans only; empty when it is missing. */
export function readParameters(given: unknown, field: string): Readonly<Record<string, Scalar>> {
  if (given === undefined) {
    return {};
  }
  if (!isObject(given)) {
    throw invalidField(field, `Cannot read ${field}: value found is ${found(given)}, an object is allowed`);
  }
  for (const [name, value] of Object.entries(given)) {
    if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'boolean') {
      throw invalidField(
        `${field}.${name}`,
        `Cannot read ${field}: ${found(name)}: value found is ${found(value)}, a string, number or boolean is allowed`,
      );
    }
  }
  return given as Readonly<Record<string, Scalar>>;
}

/** A boolean parameter, undefined when it is missing. */
export function flag(field: string, value: unknown): boolean | undefined {
  if (value === undefined || typeof value === 'boolean') {
    return value;
  }
  throw invalidField(field, `Cannot read ${field}: value found is ${found(value)}, true or false is allowed`);
}

/** A parameter that is an integer from 0 to `largest`, undefined when it is missing. */
export function integerUpTo(field: string, value: unknown, largest: number): number | undefined {
  if (value === undefined) {
    return undefined;
  }
  if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) > largest) {
    throw invalidField(field, `Cannot read ${field}: value found is ${found(value)}, an integer from 0 to ${largest} is allowed`);
  }
  return value as number;
}

function contextValue(name: string, value: Scalar): string | number {
  const field = name.slice(PREFIX.length);
  if (!(CONTEXT_FIELDS as readonly string[]).includes(field)) {
    throw invalidField(
      name,
      `Cannot read the parameters: ${found(name)} is unknown: setpoint_lastApplied and setpoint_ with one of ${CONTEXT_FIELDS.join(', ')} are allowed`,
    );
  }
  if (NUMBER_FIELDS.has(field)) {
    return integerUpTo(name, value, Number.MAX_SAFE_INTEGER) as number;
  }
  if (typeof value !== 'string' || !value.isWellFormed() || encoder.encode(value).length > MAX_STRING_BYTES) {
    throw invalidField(
      name,
      `Cannot read ${name}: value found is ${found(value)}, a string of at most ${MAX_STRING_BYTES} bytes of UTF-8 is allowed`,
    );
  }
  return value;
}

function finiteNumber(name: string, value: Scalar): number {
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw invalidField(name, `Cannot read ${name}: value found is ${found(value)}, a finite number is allowed`);
  }
  return value;
}

/** A model with state between requests would answer differently from what the sequence promises. */
function rejectSequence(parameters: Readonly<Record<string, Scalar>>): void {
  const { sequence_id: id = 0, sequence_start: isStart, sequence_end: isEnd } = parameters;
  const isUsed = (id !== 0 && id !== '') || flag('sequence_start', isStart) === true || flag('sequence_end', isEnd) === true;
  if (isUsed) {
    throw new SetpointError(
      'unsupported',
      `Cannot run a sequence: models here keep no state: sequence_id found is ${found(id)}, 0 is allowed`,
      {
        field: 'sequence_id',
        remedy: 'send the request without sequence_id, sequence_start and sequence_end',
      },
    );
  }
}
