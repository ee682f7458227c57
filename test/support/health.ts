import { onTestFinished } from 'vitest';
import { type RunningAgent, waitFor } from './agent.ts';
import type { Load } from './load.ts';
import type { SmallDisk } from './small-disk.ts';

/** What an agent says of its journal and its store. */
interface Health {
  readonly journal: {
    readonly isFailing: boolean;
    readonly failures: number;
    readonly ringRecords: number;
    readonly recoveredRecords: number;
    readonly lostRecords: number;
  };
  readonly store: {
    readonly state: 'draining' | 'waiting_for_space' | 'full' | 'down' | 'checking';
    readonly processId: number | null;
    readonly restarts: number;
    readonly entries: number;
    readonly lagBytes: number;
  };
}

const WITHIN_MILLIS = 20_000;

export async function healthOf(agent: RunningAgent): Promise<Health> {
  const reply = (await (await fetch(`${agent.http}/v2/health/ready`)).json()) as { detail: Health };
  return reply.detail;
}

/** Waits until the agent says so, and returns what it says then. */
export async function waitForHealth(agent: RunningAgent, isThere: (health: Health) => boolean): Promise<Health> {
  let health = await healthOf(agent);
  await waitFor(
    async () => {
      health = await healthOf(agent);
      return isThere(health);
    },
    WITHIN_MILLIS,
    () => `${JSON.stringify({ journal: health.journal, store: health.store })}\n${agent.log()}`,
  );
  return health;
}

/** The process that has the store open. */
export async function storeProcess(agent: RunningAgent, otherThan: number | null = null): Promise<number> {
  const { store } = await waitForHealth(agent, ({ store: { processId, state } }) => {
    return processId !== null && processId !== otherThan && (state === 'draining' || state === 'waiting_for_space');
  });
  return store.processId!;
}

/** Stops a process in its tracks, and does not leave it so. */
export function freeze(processId: number): void {
  process.kill(processId, 'SIGSTOP');
  onTestFinished(() => {
    try {
      process.kill(processId, 'SIGKILL');
    } catch {
      // It has ended, as it should.
    }
  });
}

/**
 * Takes every byte of the disk until the agent's journal cannot be written, and the store has no reserve left to give up for
 * it. Something must be written meanwhile.
 */
export async function fillUntilFailing(agent: RunningAgent, disk: SmallDisk): Promise<Health> {
  return await waitForHealth(agent, ({ journal, store }) => {
    disk.fillTo(0);
    return journal.isFailing && store.state === 'waiting_for_space';
  });
}

/** Waits until controllers have got so many answers more. */
export async function waitForAnswers(load: Load, more: number): Promise<void> {
  const wanted = load.answered + more;
  await waitFor(
    () => load.answered >= wanted,
    WITHIN_MILLIS,
    () => `${load.answered} of ${wanted} answers`,
  );
}

/** The value of a metric; its labels, if it has any, as they are written. */
export async function metricOf(agent: RunningAgent, name: string): Promise<number> {
  const text = await (await fetch(`${agent.http}/metrics`)).text();
  const line = text.split('\n').find((one) => one.startsWith(`${name} `));
  return Number(line?.slice(name.length + 1));
}

/** How often the agent told this alert in its log. */
export function alertCount(agent: RunningAgent, alert: string): number {
  return agent
    .log()
    .split('\n')
    .filter((line) => line.includes(` alert ${alert} `)).length;
}
