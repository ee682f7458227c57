import { join, resolve } from 'node:path';
import { parseArgs, type ParseArgsConfig } from 'node:util';
import { messageOf } from '../../protocol/errors.ts';
import { loadConfig } from '../config.ts';
import { type AuditJob, FORMATS, type Format, type Selection } from './messages.ts';
import { parseTime, TIME_FORM } from './times.ts';

/** The command line is wrong: exit code 2, with the usage. */
export class UsageError extends Error {}

export interface AuditCommand {
  readonly job: AuditJob;
  /** Null writes to standard output. */
  readonly output: { readonly path: string; readonly isForced: boolean } | null;
}

type Environment = Readonly<Record<string, string | undefined>>;
type Values = Readonly<Record<string, string | boolean | undefined>>;

const text = { type: 'string' } as const;
const flag = { type: 'boolean' } as const;
const PLACE = { config: text, 'data-dir': text };
const OUTPUT = { output: { ...text, short: 'o' }, force: flag };
const OPTIONS = {
  ask: { ...PLACE, ...OUTPUT, substrate: text, bundle: text, decision: text, from: text, to: text, format: text },
  verify: { ...PLACE, ...OUTPUT, checkpoint: text, key: text, json: flag },
  checkpoint: { ...PLACE, ...OUTPUT, key: text },
} as const satisfies Record<string, ParseArgsConfig['options']>;

/** The last microsecond that a record can carry. */
const END_OF_TIME = Number.MAX_SAFE_INTEGER;
const KEY_FILE = join('keys', 'agent.pub.pem');

/**
 * What `setpoint-agent audit ...args` asks for.
 * @throws UsageError; SetpointError invalid_config for a configuration that cannot be read
 */
export function parseArguments(args: readonly string[], environment: Environment): AuditCommand {
  const [first] = args;
  const type = first === 'verify' || first === 'checkpoint' ? first : 'ask';
  const values = valuesOf(type, type === 'ask' ? args : args.slice(1));
  const output = outputOf(values);
  const place = placeOf(values, environment);
  const keyPath = resolve(textOf(values, 'key') ?? join(place.dataDirectory, KEY_FILE));
  if (type === 'checkpoint') return { job: { type, dataDirectory: place.dataDirectory, keyPath }, output };
  if (type === 'verify') {
    const checkpoint = textOf(values, 'checkpoint');
    const checkpointPath = checkpoint === null ? null : resolve(checkpoint);
    return { job: { type, ...place, keyPath, checkpointPath, isJson: values['json'] === true }, output };
  }
  return { job: { type, ...place, ...questionOf(values) }, output };
}

function valuesOf(type: keyof typeof OPTIONS, args: readonly string[]): Values {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: OPTIONS[type], allowPositionals: true, strict: true });
    if (positionals.length > 0) throw new UsageError(`'${positionals[0]}' is not expected here; questions are options`);
    return values as Values;
  } catch (cause) {
    if (cause instanceof UsageError) throw cause;
    throw new UsageError(messageOf(cause), { cause });
  }
}

function placeOf(values: Values, environment: Environment): { dataDirectory: string; agentId: string | null } {
  const config = textOf(values, 'config');
  const directory = textOf(values, 'data-dir');
  if (config !== null && directory !== null) throw new UsageError('--config and --data-dir exclude each other');
  if (directory !== null) return { dataDirectory: resolve(directory), agentId: null };
  if (config === null) throw new UsageError('--config FILE or --data-dir DIR is required');
  const { dataDir, agentId } = loadConfig(config, environment);
  return { dataDirectory: dataDir, agentId };
}

function outputOf(values: Values): AuditCommand['output'] {
  const path = textOf(values, 'output');
  if (path === null && values['force'] === true) throw new UsageError('--force is for --output');
  return path === null ? null : { path: resolve(path), isForced: values['force'] === true };
}

function questionOf(values: Values): { selection: Selection; fromMicros: number; toMicros: number; format: Format } {
  const from = timeOf(values, 'from');
  const to = timeOf(values, 'to');
  if (from !== null && to !== null && from > to) throw new UsageError('--from is later than --to');
  const selection = selectionOf(values, from !== null || to !== null);
  const format = textOf(values, 'format') ?? 'text';
  const known = FORMATS.find((one) => one === format);
  if (known === undefined) throw new UsageError(`--format is '${format}', ${FORMATS.join(', ')} are allowed`);
  return { selection, fromMicros: from ?? 0, toMicros: to ?? END_OF_TIME, format: known };
}

function selectionOf(values: Values, hasTime: boolean): Selection {
  const substrateId = textOf(values, 'substrate');
  const bundle = textOf(values, 'bundle');
  const decision = textOf(values, 'decision');
  const given = [substrateId, bundle, decision].filter((one) => one !== null).length;
  if (given > 1) throw new UsageError('--substrate, --bundle and --decision exclude each other');
  if (substrateId !== null) return { by: 'substrate', substrateId };
  if (bundle !== null) {
    const prefix = bundle.toLowerCase();
    if (!/^[0-9a-f]{8,64}$/.test(prefix)) throw new UsageError(`--bundle is '${bundle}', 8 to 64 hexadecimal digits are allowed`);
    return { by: 'bundle', prefix };
  }
  if (decision !== null) {
    if (hasTime) throw new UsageError('--decision names one record: --from and --to do not go with it');
    const [, stream, sequence] = /^(\d{1,10})\/(\d{1,16})$/.exec(decision) ?? [];
    if (stream === undefined || !Number.isSafeInteger(Number(sequence))) {
      throw new UsageError(`--decision is '${decision}', STREAM/SEQUENCE is allowed, as 0/1041`);
    }
    return { by: 'decision', stream: Number(stream), sequence: Number(sequence) };
  }
  if (!hasTime) throw new UsageError('one of --substrate, --bundle, --decision, --from or --to is required');
  return { by: 'time' };
}

function timeOf(values: Values, name: 'from' | 'to'): number | null {
  const given = textOf(values, name);
  if (given === null) return null;
  const micros = parseTime(given, name === 'to');
  if (micros === null) throw new UsageError(`--${name} is '${given}', ${TIME_FORM} is allowed`);
  return micros;
}

function textOf(values: Values, name: string): string | null {
  const value = values[name];
  if (value === '') throw new UsageError(`--${name} is empty`);
  return typeof value === 'string' ? value : null;
}
