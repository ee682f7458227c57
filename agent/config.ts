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

/** Keys an environment variable may override, with the variable's name. */
const OVERRIDES: readonly (readonly [string, readonly string[]])[] = [
  ['SETPOINT_AGENT_ID', ['agentId']],
  ['SETPOINT_DATA_DIR', ['dataDir']],
  ['SETPOINT_LISTEN_HOST', ['listen', 'host']],
  ['SETPOINT_LISTEN_PORT', ['listen', 'port']],
  ['SETPOINT_THREADS', ['threads']],
  ['SETPOINT_CONTROLLER_TOKEN', ['controllerToken']],
  ['SETPOINT_DEFAULT_DEADLINE_MICROS', ['defaultDeadlineMicros']],
  ['SETPOINT_INLINE_BUDGET_MICROS', ['inlineBudgetMicros']],
  ['SETPOINT_BUNDLE_POLL_MILLIS', ['bundlePollMillis']],
  ['SETPOINT_MAX_CONNECTIONS', ['maxConnections']],
  ['SETPOINT_DRAIN_MILLIS', ['drainMillis']],
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
    throw new SetpointError('invalid_config', `Cannot read ${source}: it is not YAML: ${messageOf(cause)}`, { cause });
  }
  const result = configSchema.safeParse(overridden(value, environment));
  if (!result.success) {
    const issue = result.error.issues[0];
    const key = issue?.path.join('.') || '(top level)';
    const found = JSON.stringify(valueAt(value, issue?.path ?? []));
    throw new SetpointError(
      'invalid_config',
      `Cannot accept ${source}: ${key}: ${issue?.message ?? 'is wrong'}: value found is ${found ?? 'nothing'}`,
      { field: key },
    );
  }
  const { slots, dataDir, ...rest } = result.data;
  return {
    ...rest,
    dataDir: resolve(baseDirectory, dataDir),
    slots: Object.fromEntries(Object.entries(slots).map(([name, slot]) => [name, { bundle: resolve(baseDirectory, slot.bundle) }])),
  };
}

function overridden(value: unknown, environment: Readonly<Record<string, string | undefined>>): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const copy = structuredClone(value) as Record<string, unknown>;
  for (const [variable, path] of OVERRIDES) {
    const text = environment[variable];
    if (text === undefined || text === '') continue;
    setAt(copy, path, /^-?\d+$/.test(text) ? Number(text) : text);
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
