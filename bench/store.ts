import { setTimeout as sleep } from 'node:timers/promises';
import type { AgentProcess } from './agent-server.ts';
import { type AgentStatus, errorsOf, type StoreStatus } from './agent-status.ts';
import type { BenchReport } from './bench-report.ts';
import { type AgentContenders, type Arena, checkReply } from './contenders.ts';
import type { LoadResult } from './load-jobs.ts';
import { type BenchOptions, BUDGET_RATE_PER_SECOND } from './options.ts';
import { familyOf, memoryOf } from './processor-time.ts';
import { type ModelAlone, runModelAlone } from './rounds.ts';
import { medianOf, memoryGrowth, soakFileGrowth, storeRates, type StoreSample } from './store-samples.ts';
import { type DrainRun, drainTable, errorCount, samplesTable, soakTable, type StoreRun, sustainedTable } from './store-tables.ts';

/** Decisions into LMDB: how many a second while serving, how many at most, and for how long in the same space. */

/** 16 controllers; more only cost the client system calls. */
const CONNECTIONS = 16;
/** The client leaves its core to the others: here nobody asks how exactly it keeps time. */
const TICK_MILLIS = 1;
const SAMPLE_MILLIS = 1000;
/** The first collections and the growth of the heap to its working size are over by then. */
const WARMUP_MILLIS = 3000;
/** The status comes every second; this often it is looked at. */
const DRAIN_POLL_MILLIS = 100;
const DRAIN_LIMIT_MILLIS = 120_000;

/** Reached within seconds at 5,000 decisions a second, which are about 4 MiB. */
const SOAK_CAP_MEBIBYTES = 16;
const SOAK_TELEMETRY_SECONDS = 2;
const SECONDS_PER_DAY = 86_400;
const MEBIBYTE = 1024 * 1024;

export async function runStore(arena: Arena, options: BenchOptions, compute: ModelAlone): Promise<BenchReport> {
  const { ratePerSecond, durationMillis, holdMillis, soakMillis } = options.store;
  await runModelAlone(arena, options, compute);
  const agent = await arena.startAgent();
  progress(`${ratePerSecond} decisions a second for ${durationMillis} ms`);
  const sustained = await loadAndSample(arena, agent, ratePerSecond, durationMillis);
  progress(`the store process held up for ${holdMillis} ms`);
  const drain = await holdAndDrain(arena, agent, holdMillis);
  await agent.process.stop();
  progress(`soak at ${SOAK_CAP_MEBIBYTES} MiB for ${soakMillis} ms`);
  const small = await arena.startAgent('soak', {
    store: {
      maxMebibytes: SOAK_CAP_MEBIBYTES,
      telemetryMaxDays: SOAK_TELEMETRY_SECONDS / SECONDS_PER_DAY,
      onFull: 'drop_oldest',
    },
  });
  const soak = await loadAndSample(arena, small, BUDGET_RATE_PER_SECOND, soakMillis);
  return {
    tables: [
      sustainedTable(sustained),
      samplesTable('store: second by second', sustained.samples),
      drainTable(drain),
      soakTable(soak, SOAK_CAP_MEBIBYTES * MEBIBYTE, SOAK_TELEMETRY_SECONDS),
      samplesTable('store: soak, second by second', soak.samples),
    ],
    measures: {
      storeDecisionsPerSecond: medianOf(storeRates(sustained.samples)),
      storeMemoryGrowth: memoryGrowth(sustained.samples),
      soakFileGrowth: soakFileGrowth(soak.samples),
      soakMemoryGrowth: memoryGrowth(soak.samples),
      soakErrors: errorCount(soak),
    },
  };
}

function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}

function runLoad(
  arena: Arena,
  { mlp }: AgentContenders,
  ratePerSecond: number,
  durationMillis: number,
  warmupMillis: number,
): Promise<LoadResult> {
  const pace = { kind: 'open', ratePerSecond, connections: CONNECTIONS, tickMillis: TICK_MILLIS } as const;
  return arena.load.run({ task: 'load', endpoint: mlp.endpoint, pace, durationMillis, warmupMillis, serverPids: familyOf(mlp.pid) });
}

async function loadAndSample(arena: Arena, agent: AgentContenders, ratePerSecond: number, durationMillis: number): Promise<StoreRun> {
  const { process: server, mlp } = agent;
  const warmupMillis = Math.min(WARMUP_MILLIS, durationMillis);
  const load = runLoad(arena, agent, ratePerSecond, durationMillis, warmupMillis);
  const isOver = { value: false };
  const over = (): void => void (isOver.value = true);
  load.then(over, over);
  await Promise.race([sleep(warmupMillis), load]);
  await server.resetServiceTimes();
  const samples = await sampleUntil(server, () => isOver.value);
  const result = await load;
  checkReply(mlp, result.reply);
  const service = await server.serviceTimes();
  const errors = errorsOf(await server.status());
  const run: StoreRun = { ratePerSecond, result, samples, service, errors };
  // What went wrong is in the log, which goes with the folder.
  if (errorCount(run) > 0) process.stderr.write(server.log());
  return run;
}

/** One sample a second, at whole seconds; the one after the end would show an idle second, so it is not taken. */
async function sampleUntil(agent: AgentProcess, isOver: () => boolean): Promise<StoreSample[]> {
  const samples: StoreSample[] = [];
  const startMillis = performance.now();
  for (let second = 0; ; second++) {
    await sleep(Math.max(0, startMillis + second * SAMPLE_MILLIS - performance.now()));
    if (isOver()) return samples;
    samples.push(await takeSample(agent, startMillis));
  }
}

async function takeSample(agent: AgentProcess, startMillis: number): Promise<StoreSample> {
  const { count } = await agent.serviceTimes();
  const seconds = (performance.now() - startMillis) / 1000;
  const store = storeOf(await agent.status());
  const ofAgent = memoryOf(agent.pid);
  const ofStore = store.processId === null ? null : memoryOf(store.processId);
  return {
    seconds,
    answered: count,
    journalBytes: await agent.metric('setpoint_journal_bytes_total'),
    headIndex: store.headIndex,
    commitMillis: store.lastCommitMillis,
    lagBytes: store.lagBytes,
    fileBytes: store.fileBytes,
    usedBytes: store.usedBytes,
    agentBytes: ofAgent?.ownBytes ?? null,
    storeBytes: ofStore?.ownBytes ?? null,
    storeMappedBytes: ofStore?.mappedBytes ?? null,
    dropped: store.dropped,
  };
}

function storeOf({ store }: AgentStatus): StoreStatus {
  if (store === null) throw new Error('Cannot measure the store: the agent has none');
  return store;
}

/** The store process is stopped as a debugger or a frozen disk would stop it, for less than the agent takes for hung. */
async function holdAndDrain(arena: Arena, agent: AgentContenders, holdMillis: number): Promise<DrainRun> {
  await agent.process.settle();
  await untilDrained(agent.process, 0);
  const before = storeOf(await agent.process.status());
  const { processId } = before;
  if (processId === null) throw new Error('Cannot hold the store process up: it does not run');
  const journalBefore = (await agent.process.metric('setpoint_journal_bytes_total')) ?? Number.NaN;
  process.kill(processId, 'SIGSTOP');
  try {
    await runLoad(arena, agent, BUDGET_RATE_PER_SECOND, holdMillis, 0);
  } finally {
    process.kill(processId, 'SIGCONT');
  }
  const continuedMillis = Date.now();
  const after = await untilDrained(agent.process, continuedMillis);
  const backlogBytes = ((await agent.process.metric('setpoint_journal_bytes_total')) ?? Number.NaN) - journalBefore;
  return {
    heldMillis: holdMillis,
    backlogRecords: after.headIndex - before.headIndex,
    backlogBytes,
    seconds: ((after.lastCommitMillis ?? Number.NaN) - continuedMillis) / 1000,
  };
}

/** The first status without lag whose last commit is after `sinceMillis`. */
async function untilDrained(agent: AgentProcess, sinceMillis: number): Promise<StoreStatus> {
  const giveUp = performance.now() + DRAIN_LIMIT_MILLIS;
  while (performance.now() < giveUp) {
    const store = storeOf(await agent.status());
    if (store.lagBytes === 0 && (store.lastCommitMillis ?? 0) >= sinceMillis) return store;
    await sleep(DRAIN_POLL_MILLIS);
  }
  throw new Error(`Cannot measure the drain: the lag is not 0 after ${DRAIN_LIMIT_MILLIS} ms`);
}
