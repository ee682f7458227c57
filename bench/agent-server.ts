import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { type AgentStatus, durabilityDefect, metricOf, parseStatus } from './agent-status.ts';
import { freePort } from './fab/agent-process.ts';
import { familyOf, identityOf, isAlive, type ProcessIdentity, processorMicros } from './processor-time.ts';
import { type ServerProcess, stopProcess } from './processes.ts';

/** The agent as it is shipped: its own command line, one serving thread; guard, journal and store process on. */
const ENTRY = resolve(import.meta.dirname, '../agent/main.ts');

/** Two vettings and the start of the processes beside it. */
const READY_MILLIS = 60_000;
const POLL_MILLIS = 50;

/** The agent drains its connections and then its store, 5 s each, before it ends by itself. */
const STOP_MILLIS = 15_000;
/** Time for the agent's own children to see that it is gone. */
const CHILDREN_STOP_MILLIS = 5_000;

/** The store process has drained when it used no more than one tick of processor time in this. */
const SETTLE_LOOK_MILLIS = 300;
const SETTLE_MICROS = 10_000;
/** A backlog of a gigabyte takes half of this. */
const SETTLE_LIMIT_MILLIS = 60_000;

/**
 * As high as the agent allows. Vetting on a busy machine can see a 10 us model take more than the default of 300 us and
 * put it on the heavy lane, and the bench would then time another path from one run to the next.
 */
const INLINE_BUDGET_MICROS = 100_000;

export interface AgentOptions {
  /** The agent's configuration and data go here; made when it is missing. */
  readonly folder: string;
  /** Slot name -> bundle folder. */
  readonly slots: Readonly<Record<string, string>>;
  /** Configuration beside the bench's own, `store` and `journal` among it. */
  readonly settings: AgentSettings;
}

export type AgentSettings = Readonly<Record<string, unknown>>;

export interface AgentProcess extends ServerProcess {
  /** Forgets the service times so far. */
  resetServiceTimes(): Promise<void>;
  serviceTimes(): Promise<ServiceTimes>;
  status(): Promise<AgentStatus>;
  /** Null when the agent has no such metric. */
  metric(name: string): Promise<number | null>;
  /** The end of the agent's log. */
  readonly log: () => string;
  /** The process id of the store, null when it has none. */
  readonly storePid: number | null;
  /**
   * Waits until the store process has nothing left to do, so that who is measured next does not pay for it.
   * @throws Error when the journal or the store failed in between: such answers must not be timed
   */
  readonly settle: () => Promise<void>;
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

export async function startAgent({ folder, slots, settings }: AgentOptions): Promise<AgentProcess> {
  const port = await freePort(0);
  const config = join(folder, 'agent.yaml');
  mkdirSync(folder, { recursive: true });
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
      ...settings,
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
    return runningAgent(child, url, port, () => log);
  } catch (thrown) {
    await stopAgent(child, []);
    throw new Error(`${thrown instanceof Error ? thrown.message : String(thrown)}\n${log}`, { cause: thrown });
  }
}

async function runningAgent(child: ChildProcess, url: string, port: number, log: () => string): Promise<AgentProcess> {
  const reportExit = (code: number | null, signal: NodeJS.Signals | null): void => {
    process.stderr.write(`The agent exited with ${signal ?? code} in the middle of the bench:\n${log()}`);
  };
  const status = async (): Promise<AgentStatus> => parseStatus(await (await request(`${url}/v2/health/ready`, 'GET')).json());
  const storePid = await untilStoreRuns(status);
  const children = childrenOf(child);
  child.once('exit', reportExit);
  return {
    pid: child.pid ?? 0,
    port,
    storePid,
    log,
    status,
    stop: () => {
      child.off('exit', reportExit);
      return stopAgent(child, children);
    },
    settle: async () => {
      await untilIdle(storePid);
      const defect = durabilityDefect(await status());
      if (defect !== null) throw new Error(`Cannot time the agent: ${defect}\n${log()}`);
    },
    metric: async (name) => metricOf(await (await request(`${url}/metrics`, 'GET')).text(), name),
    resetServiceTimes: async () => void (await request(`${url}/debug/service-time/reset`, 'POST')),
    serviceTimes: async () => serviceTimesSchema.parse(await (await request(`${url}/debug/service-time`, 'GET')).json()),
  };
}

/** The agent is ready before its store is: a decision needs the journal alone. Null when the configuration has no store. */
async function untilStoreRuns(status: () => Promise<AgentStatus>): Promise<number | null> {
  const giveUp = performance.now() + READY_MILLIS;
  while (performance.now() < giveUp) {
    const { store } = await status();
    if (store === null) return null;
    if (store.processId !== null && store.state === 'draining') return store.processId;
    await sleep(POLL_MILLIS);
  }
  throw new Error(`Cannot start the agent: its store does not run after ${READY_MILLIS} ms`);
}

/** Without /proc nothing can be waited for, and the tables have no processor time either. */
async function untilIdle(storePid: number | null): Promise<void> {
  if (storePid === null) return;
  const giveUp = performance.now() + SETTLE_LIMIT_MILLIS;
  let before = processorMicros([storePid]);
  while (before !== null && performance.now() < giveUp) {
    await sleep(SETTLE_LOOK_MILLIS);
    const now = processorMicros([storePid]) ?? 0;
    if (now - before <= SETTLE_MICROS) return;
    before = now;
  }
  if (before !== null) throw new Error(`Cannot time the agent: its store is still busy ${SETTLE_LIMIT_MILLIS} ms after the load`);
}

/**
 * Ends the agent and sees to it that nothing it started outlives it: after the death of the agent, the store process
 * finishes a commit first, in a folder that is about to be removed.
 * @param known what it had started before, as far as that is known: an agent that died has no children to ask for
 */
async function stopAgent(child: ChildProcess, known: readonly ProcessIdentity[]): Promise<void> {
  const children = [...known, ...childrenOf(child)];
  await stopProcess(child, STOP_MILLIS);
  await untilGone(children);
  for (const { pid } of children.filter(isAlive)) process.kill(pid, 'SIGKILL');
  await untilGone(children);
}

async function untilGone(processes: readonly ProcessIdentity[]): Promise<void> {
  const giveUp = performance.now() + CHILDREN_STOP_MILLIS;
  while (processes.some(isAlive) && performance.now() < giveUp) await sleep(POLL_MILLIS);
}

function childrenOf(child: ChildProcess): ProcessIdentity[] {
  const [, ...children] = familyOf(child.pid ?? 0);
  return children.map(identityOf).filter((identity) => identity !== null);
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
  if (!response.ok) throw new Error(`Cannot ask the agent: ${method} ${url} answered ${response.status}`);
  return response;
}
