import { z } from 'zod';

/** What the benches read of the agent's own account of itself. Pure: the caller fetches the texts. */

const storeSchema = z.object({
  state: z.string(),
  /** Null while no process runs. */
  processId: z.number().nullable(),
  restarts: z.number(),
  /** Index of the last entry: it only grows, also while old entries are dropped. */
  headIndex: z.number(),
  lagBytes: z.number(),
  fileBytes: z.number(),
  usedBytes: z.number(),
  lastCommitMillis: z.number().nullable(),
  dropped: z.object({ telemetry: z.number(), records: z.number(), lost: z.number() }),
});

const journalSchema = z.object({
  isFailing: z.boolean(),
  failures: z.number(),
  ringRecords: z.number(),
  lostRecords: z.number(),
});

const readinessSchema = z.object({ detail: z.object({ journal: journalSchema, store: storeSchema.nullable() }) });

export type StoreStatus = z.infer<typeof storeSchema>;

export interface AgentStatus {
  readonly journal: z.infer<typeof journalSchema>;
  /** Null when there is no store by configuration. */
  readonly store: StoreStatus | null;
}

/** The body of `GET /v2/health/ready`. */
export function parseStatus(body: unknown): AgentStatus {
  const result = readinessSchema.safeParse(body);
  if (result.success) return result.data.detail;
  const issue = result.error.issues[0];
  throw new Error(`Cannot read the agent's readiness: ${issue?.path.join('.') || '(top level)'}: ${issue?.message ?? 'is wrong'}`);
}

/** The sum of a metric over all its labels, from the Prometheus text; null when the text does not have it. */
export function metricOf(text: string, name: string): number | null {
  let sum: number | null = null;
  for (const line of text.split('\n')) {
    if (line !== name && !line.startsWith(`${name} `) && !line.startsWith(`${name}{`)) continue;
    const value = Number(line.slice(line.lastIndexOf(' ') + 1));
    if (Number.isFinite(value)) sum = (sum ?? 0) + value;
  }
  return sum;
}

/** What must not happen, each by its count. */
export interface AgentErrors {
  readonly lostRecords: number;
  readonly journalFailures: number;
  /** Numbers the store had to state as lost. */
  readonly lostInStore: number;
  readonly storeRestarts: number;
}

export function errorsOf({ journal, store }: AgentStatus): AgentErrors {
  return {
    lostRecords: journal.lostRecords,
    journalFailures: journal.failures,
    lostInStore: store?.dropped.lost ?? 0,
    storeRestarts: store?.restarts ?? 0,
  };
}

/** Why the agent's answers cannot be timed, or null: one that is not in the journal or the store is not what is promised. */
export function durabilityDefect({ journal, store }: AgentStatus): string | null {
  if (journal.lostRecords > 0) return `${journal.lostRecords} records never reached the journal`;
  if (journal.isFailing) return 'the journal cannot be written';
  if (journal.failures > 0) return `${journal.failures} journal writes failed`;
  if (store !== null && store.restarts > 0) return `its store process ended and was started again, ${store.restarts} times`;
  return null;
}
