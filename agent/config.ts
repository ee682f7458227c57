import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, resolve } from 'node:path';
import { parse as parseYaml } from 'yaml';
import { z } from 'zod';
import { messageOf, SetpointError } from '../protocol/errors.ts';
import { MAX_DEADLINE_MICROS, MAX_SLOTS, MAX_STRING_BYTES } from '../protocol/limits.ts';

/**
 * The agent's configuration: one YAML file, checked once. Every number carries its unit. Environment variables override
 * single values: SETPOINT_ and the key in capitals, words and levels joined by '_' (SETPOINT_LISTEN_PORT=7500).
 */
const slotName = z
  .string()
  .max(MAX_STRING_BYTES)
  .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/, {
    message: "must be names of letters, digits, '.', '_' and '-', joined by '/'",
  });

const configSchema = z.strictObject({
  /** Names this agent in every record, for ever. */
  agentId: z
    .string()
    .min(1)
    .max(64)
    .regex(/^[^\p{Cc}\p{Cs}\u2028\u2029]+$/u, { message: 'must have no control characters: it is a line of what is signed' })
    .default(() => hostname()),
  dataDir: z.string().min(1),
  listen: z
    .strictObject({
      host: z.string().min(1).default('127.0.0.1'),
      /** 0 takes any free port. */
      port: z.int().min(0).max(65_535).default(7433),
    })
    .prefault({}),
  /** Serving threads; 0 takes one less than there are cores, at least one. */
  threads: z.int().min(0).max(64).default(0),
  /** Token that every controller must send in hello; null lets any controller in. */
  controllerToken: z.string().min(16).max(MAX_STRING_BYTES).nullable().default(null),
  /** Deadline of a request that names none. */
  defaultDeadlineMicros: z.int().min(1).max(MAX_DEADLINE_MICROS).default(50_000),
  /** A model whose 99th percentile run time is above this runs on the heavy lane. */
  inlineBudgetMicros: z.int().min(1).max(100_000).default(300),
  /** How often bundle paths are looked at for a new bundle. */
  bundlePollMillis: z.int().min(50).max(3_600_000).default(1000),
  /** Connections a serving thread holds; the next one is refused. 4,096 idle connections take about 20 MB. */
  maxConnections: z.int().min(1).max(100_000).default(4096),
  /** Longest wait for requests in flight when stopping. */
  drainMillis: z.int().min(0).max(600_000).default(5000),
  /** 'process' loses no answer when the process dies, 'power' none when the power goes: replies then wait for the disk. */
  durability: z.enum(['process', 'power']).default('process'),
  /** What is answered while the journal cannot be written. */
  onJournalFailure: z.enum(['serve', 'fallback', 'refuse']).default('serve'),
  journal: z
    .strictObject({
      /** A file of a stream is finished at this size and the next one begun. */
      segmentMebibytes: z.int().min(1).max(1024).default(16),
      /** All files of all streams together: what fits while the store cannot take them over. */
      maxMebibytes: z.int().min(2).max(1_048_576).default(1024),
      /** Memory for records that cannot be written, of each serving thread. */
      ringMebibytes: z.int().min(1).max(4096).default(16),
    })
    .prefault({}),
  store: z
    .strictObject({
      /** Without a store process the journal only grows, up to its limit. */
      enabled: z.boolean().default(true),
      /** Pages that the store's records may take. */
      maxMebibytes: z.int().min(8).max(16_777_216).default(10_240),
      /** Features and outputs older than this are dropped; null keeps them while there is room. */
      telemetryMaxDays: z.number().positive().max(36_500).nullable().default(90),
      /** Decisions older than this are dropped; null keeps them for ever. */
      auditMaxDays: z.number().positive().max(36_500).nullable().default(null),
      /** When nothing but decisions is left to drop: 'hold' takes no more over from the journal, 'drop_oldest' drops decisions. */
      onFull: z.enum(['hold', 'drop_oldest']).default('hold'),
      /** Free space on the disk below which the store writes nothing. */
      minFreeMebibytes: z.int().min(1).max(1_048_576).default(64),
      /** A file that is given up when the disk fills, so that the journal can go on for a while. */
      ballastMebibytes: z.int().min(0).max(65_536).default(64),
      /** A store process silent for longer is hung: it is killed and started again. */
      hangMillis: z.int().min(1000).max(3_600_000).default(30_000),
      /** Longest time between signed checkpoints while there are new records. */
      checkpointSeconds: z.int().min(1).max(86_400).default(60),
    })
    .prefault({}),
  heavy: z
    .strictObject({
      threads: z.int().min(1).max(64).default(1),
      /** Requests that may wait; the next one gets the fallback with reason overload. */
      queueLength: z.int().min(1).max(65_536).default(64),
      /** A run longer than this is hung: its process is killed and its bundle suspended. */
      hangMillis: z.int().min(10).max(3_600_000).default(10_000),
      memoryLimitMebibytes: z.int().min(64).max(1_048_576).default(2048),
    })
    .prefault({}),
  vetting: z
    .strictObject({
      deadlineMillis: z.int().min(100).max(3_600_000).default(30_000),
      memoryLimitMebibytes: z.int().min(64).max(1_048_576).default(1024),
    })
    .prefault({}),
  slots: z
    .record(slotName, z.strictObject({ bundle: z.string().min(1) }))
    .refine((slots) => Object.keys(slots).length <= MAX_SLOTS, { message: `holds more than ${MAX_SLOTS} slots` })
    .default({}),
});

export type Config = z.infer<typeof configSchema>;

/** Keys an environment variable may override, with the variable's name. A text stays text though it may look like a number. */
const OVERRIDES: readonly (readonly [string, readonly string[], 'number' | 'text'])[] = [
  ['SETPOINT_AGENT_ID', ['agentId'], 'text'],
  ['SETPOINT_DATA_DIR', ['dataDir'], 'text'],
  ['SETPOINT_LISTEN_HOST', ['listen', 'host'], 'text'],
  ['SETPOINT_LISTEN_PORT', ['listen', 'port'], 'number'],
  ['SETPOINT_THREADS', ['threads'], 'number'],
  ['SETPOINT_CONTROLLER_TOKEN', ['controllerToken'], 'text'],
  ['SETPOINT_DEFAULT_DEADLINE_MICROS', ['defaultDeadlineMicros'], 'number'],
  ['SETPOINT_INLINE_BUDGET_MICROS', ['inlineBudgetMicros'], 'number'],
  ['SETPOINT_BUNDLE_POLL_MILLIS', ['bundlePollMillis'], 'number'],
  ['SETPOINT_MAX_CONNECTIONS', ['maxConnections'], 'number'],
  ['SETPOINT_DRAIN_MILLIS', ['drainMillis'], 'number'],
  ['SETPOINT_DURABILITY', ['durability'], 'text'],
  ['SETPOINT_ON_JOURNAL_FAILURE', ['onJournalFailure'], 'text'],
];

export const OVERRIDE_NAMES = OVERRIDES.map(([variable]) => variable);

/**
 * Reads and checks the configuration.
 * @throws SetpointError invalid_config that names the key, the value found and what is allowed
 */
export function loadConfig(file: string, environment: Readonly<Record<string, string | undefined>>): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (cause) {
    throw new SetpointError('invalid_config', `Cannot read the configuration: ${messageOf(cause)}`, {
      remedy: 'give the path of a readable YAML file with --config',
      cause,
    });
  }
  return parseConfig(text, environment, dirname(resolve(file)), file);
}

/** As loadConfig, from text; relative paths are taken from `baseDirectory`. */
export function parseConfig(
  text: string,
  environment: Readonly<Record<string, string | undefined>>,
  baseDirectory: string,
  source = 'configuration',
): Config {
  let value: unknown;
  try {
    value = parseYaml(text) ?? {};
  } catch (cause) {
    // The lines after the first show the text around the defect, which may be a secret.
    const [why] = messageOf(cause).split('\n');
    throw new SetpointError('invalid_config', `Cannot read ${source}: it is not YAML: ${why?.replace(/:$/, '')}`, { cause });
  }
  const given = overridden(value, environment);
  const result = configSchema.safeParse(given);
  if (!result.success) throw refusal(result.error.issues[0], given, source);
  const { slots, dataDir, ...rest } = result.data;
  return {
    ...rest,
    dataDir: resolve(baseDirectory, dataDir),
    slots: Object.fromEntries(Object.entries(slots).map(([name, slot]) => [name, { bundle: resolve(baseDirectory, slot.bundle) }])),
  };
}

function refusal(issue: z.core.$ZodIssue | undefined, given: unknown, source: string): SetpointError {
  const unknownKeys = issue?.code === 'unrecognized_keys' ? issue.keys.slice(0, 1) : [];
  const path = [...(issue?.path ?? []), ...unknownKeys];
  const key = path.join('.') || '(top level)';
  let why = issue?.message ?? 'is wrong';
  if (unknownKeys.length > 0) why = 'there is no such key';
  else if (issue?.code === 'invalid_key') why = issue.issues[0]?.message ?? why;
  // The value of a misspelt key may be a secret, too.
  const isSecret = unknownKeys.length > 0 || path.includes('controllerToken');
  const found = foundText(valueAt(given, path), isSecret);
  return new SetpointError('invalid_config', `Cannot accept ${source}: ${key}: ${why}: value found is ${found}`, { field: key });
}

/** A value for a message: never a secret, and never a whole section, which may hold one. */
function foundText(found: unknown, isSecret: boolean): string {
  if (found === undefined) return 'nothing';
  if (Array.isArray(found)) return 'a list';
  if (typeof found === 'object' && found !== null) return 'a section';
  if (typeof found === 'string' && isSecret) return `a text of ${found.length} characters`;
  return typeof found === 'number' ? found.toString() : JSON.stringify(found);
}

function overridden(value: unknown, environment: Readonly<Record<string, string | undefined>>): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const copy = structuredClone(value) as Record<string, unknown>;
  for (const [variable, path, form] of OVERRIDES) {
    const text = environment[variable];
    if (text === undefined || text === '') continue;
    setAt(copy, path, form === 'number' && /^-?\d+$/.test(text) ? Number(text) : text);
  }
  return copy;
}

function setAt(target: Record<string, unknown>, path: readonly string[], value: unknown): void {
  const [first, ...rest] = path;
  if (first === undefined) return;
  if (rest.length === 0) {
    target[first] = value;
    return;
  }
  const inner = target[first];
  if (inner === undefined) target[first] = {};
  if (typeof target[first] === 'object' && target[first] !== null) setAt(target[first] as Record<string, unknown>, rest, value);
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (inner, key) => (typeof inner === 'object' && inner !== null ? (inner as Record<PropertyKey, unknown>)[key] : undefined),
    value,
  );
}
