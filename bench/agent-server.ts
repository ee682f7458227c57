import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { freePort } from './fab/agent-process.ts';
import { type ServerProcess, stopProcess } from './processes.ts';

/** The agent as it is shipped: its own command line, one serving thread, journal and guard on. */
const ENTRY = resolve(import.meta.dirname, '../agent/main.ts');

/** Two vettings and the start of the processes beside it. */
const READY_MILLIS = 60_000;
const POLL_MILLIS = 50;

/**
 * As high as the agent allows. Vetting on a busy machine can see a 10 us model take more than the default of 300 us and
 * put it on the heavy lane, and the bench would then time another path from one run to the next.
 */
const INLINE_BUDGET_MICROS = 100_000;

export interface AgentProcess extends ServerProcess {
  /** Forgets the service times so far. */
  resetServiceTimes(): Promise<void>;
  serviceTimes(): Promise<ServiceTimes>;
}

const serviceTimesSchema = z.object({
  count: z.number(),
  p50Micros: z.number().nullable(),
  p90Micros: z.number().nullable(),
  p99Micros: z.number().nullable(),
  p999Micros: z.number().nullable(),
  maxMicros: z.number().nullable(),
});

/** From the arrival of the frame to the reply handed to the socket, as the agent itself measures it. */
export type ServiceTimes = z.infer<typeof serviceTimesSchema>;

/** @param slots slot name -> bundle folder */
export async function startAgent(folder: string, slots: Readonly<Record<string, string>>): Promise<AgentProcess> {
  const port = await freePort(0);
  const config = join(folder, 'agent.yaml');
  // JSON is YAML.
  writeFileSync(
    config,
    JSON.stringify({
      agentId: 'bench',
      dataDir: join(folder, 'data'),
      listen: { host: '127.0.0.1', port },
      threads: 1,
      inlineBudgetMicros: INLINE_BUDGET_MICROS,
      slots: Object.fromEntries(Object.entries(slots).map(([slot, bundle]) => [slot, { bundle }])),
    }),
  );
  const child = spawn(process.execPath, [ENTRY, 'serve', '--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (bytes: Buffer) => {
    log = `${log}${bytes.toString('utf8')}`.slice(-LOG_TAIL_CHARACTERS);
  });
  const url = `http://127.0.0.1:${port}`;
  try {
    await untilReady(url, () => child.exitCode === null && child.signalCode === null);
  } catch (thrown) {
    await stopProcess(child);
    throw new Error(`${thrown instanceof Error ? thrown.message : String(thrown)}\n${log}`, { cause: thrown });
  }
  const reportExit = (code: number | null, signal: NodeJS.Signals | null): void => {
    process.stderr.write(`The agent exited with ${signal ?? code} in the middle of the bench:\n${log}`);
  };
  child.once('exit', reportExit);
  return {
    pid: child.pid ?? 0,
    port,
    stop: () => {
      child.off('exit', reportExit);
      return stopProcess(child);
    },
    resetServiceTimes: async () => void (await request(`${url}/debug/service-time/reset`, 'POST')),
    serviceTimes: async () => serviceTimesSchema.parse(await (await request(`${url}/debug/service-time`, 'GET')).json()),
  };
}

/** Enough of the agent's log to tell why it did not start. */
const LOG_TAIL_CHARACTERS = 4000;

async function untilReady(url: string, isAlive: () => boolean): Promise<void> {
  const giveUp = performance.now() + READY_MILLIS;
  while (performance.now() < giveUp) {
    if (!isAlive()) throw new Error('Cannot start the agent: it exited');
    if (await isReady(url)) return;
    await sleep(POLL_MILLIS);
  }
  throw new Error(`Cannot start the agent: it is not ready after ${READY_MILLIS} ms`);
}

/** False also while nothing listens yet. */
async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/v2/health/ready`);
    await response.arrayBuffer();
    return response.status === 200;
  } catch {
    return false;
  }
}

async function request(url: string, method: string): Promise<Response> {
  const response = await fetch(url, { method });
  if (!response.ok) throw new Error(`Cannot read service times: ${method} ${url} answered ${response.status}`);
  return response;
}
