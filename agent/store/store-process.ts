import { randomBytes } from 'node:crypto';
import { mkdirSync, writeSync } from 'node:fs';
import { setPriority } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { SetpointError } from '../../protocol/errors.ts';
import { loadOrCreateAgentKey } from '../audit/agent-key.ts';
import { type Checkpoint, createCheckpoint, parseCheckpoint } from '../audit/checkpoint.ts';
import { type DataLock, lockDirectory } from '../serve/data-lock.ts';
import { CheckpointKeeper, lastCheckpointLines } from './checkpoint-keeper.ts';
import { Ballast, freeBytesOf, SpaceWatch } from './disk-space.ts';
import { syncFile } from './drain-files.ts';
import { Drain } from './drain.ts';
import { StoreDamagedError } from './errors.ts';
import { EXIT_NO_SPACE, type FromStore, type ToStore } from './messages.ts';
import type { OrphanWatch } from './orphan-watch.ts';
import { storeDirectory, storesSetAside } from './quarantine.ts';
import type { StoreSettings } from './settings.ts';
import { StoreLoop, type StoreParts } from './store-loop.ts';
import { type StoreHead, StoreWriter } from './writer.ts';

/**
 * The store process: the only one that writes the store. It is a process and not a thread of the agent because LMDB ends its
 * process on a damaged file and may on a full disk; here that costs a restart, and no answer.
 *
 * Argument: StoreSettings as JSON. Crash-only: any failed commit ends it, and the journals still hold what was not stored.
 */
const LOCK_FILE = 'store.lock';
/** Never a core that a prediction could have. */
const NICE = 10;
const STATUS_INTERVAL_MILLIS = 1000;
/** An older process ends with its current commit when its agent is gone. */
const LOCK_WAIT_MILLIS = 20_000;
const LOCK_POLL_MILLIS = 50;
/** About 2 ms of reading, one commit, and what a power cut makes the next process read again. */
const BATCH_LIMITS = {
  maxBytes: 2 * 1024 * 1024,
  maxRecords: 4096,
  // A commit writes about 100 kB however small: ten a second for 100 decisions would wear flash with 100 GB a day.
  fewBytes: 256 * 1024,
  waitMillis: 1000,
};

function send(message: FromStore): void {
  // The agent may be gone: then nobody needs it, and the channel's end is on its way.
  if (process.connected) process.send?.(message, undefined, {}, () => {});
}

/** At once and whatever the state of LMDB: an exit through its clean-up may never return after a failed commit. */
function die(error: unknown): never {
  const text = error instanceof SetpointError ? error.message : error instanceof Error ? (error.stack ?? error.message) : String(error);
  try {
    writeSync(2, `${text}\n`);
  } finally {
    // Also when the agent is gone and nobody reads that: an error thrown from here would end in the exit that never returns.
    process.kill(process.pid, isDamage(error) ? 'SIGABRT' : 'SIGKILL');
  }
  throw error;
}

function isDamage(error: unknown): boolean {
  return error instanceof StoreDamagedError;
}

async function lockStore(directory: string): Promise<DataLock> {
  const until = performance.now() + LOCK_WAIT_MILLIS;
  for (;;) {
    try {
      return lockDirectory(directory, LOCK_FILE);
    } catch (error) {
      if (!(error instanceof SetpointError) || performance.now() > until) throw error;
    }
    await delay(LOCK_POLL_MILLIS);
  }
}

/**
 * Ends the process when there is no room: LMDB does not survive opening a store on a full disk, and even the lock is a file.
 * A reserve that is there is given up first; true when that had to be.
 */
function isShortOfSpace(settings: StoreSettings): boolean {
  const { dataDirectory, minFreeBytes, ballastBytes } = settings;
  const isShort = freeBytesOf(dataDirectory) < minFreeBytes;
  if (isShort) new Ballast(storeDirectory(dataDirectory), ballastBytes).remove();
  if (freeBytesOf(dataDirectory) >= minFreeBytes) return isShort;
  writeSync(2, `Cannot open the store: ${dataDirectory} has less than ${minFreeBytes} bytes free\n`);
  return process.exit(EXIT_NO_SPACE);
}

/** What the side file says of the last head; a log that is begun now names it. Its signature is for auditors to check. */
function lastCheckpoint(dataDirectory: string): Checkpoint | null {
  for (const line of lastCheckpointLines(dataDirectory)) {
    const checkpoint = parseCheckpoint(line);
    if (checkpoint !== null) return checkpoint;
  }
  return null;
}

function open(settings: StoreSettings, isLow: boolean): StoreLoop {
  const { dataDirectory, agentId, checkpointIntervalMillis: intervalMillis } = settings;
  const directory = storeDirectory(dataDirectory);
  mkdirSync(directory, { recursive: true, mode: 0o750 });
  const nowMillis = (): number => Date.now();
  const last = lastCheckpoint(dataDirectory);
  const writer = StoreWriter.open(directory, {
    newLog: () => randomBytes(8).readBigUInt64LE(),
    nowMicros: () => nowMillis() * 1000,
    previous: last,
  });
  const onAlert: StoreParts['onAlert'] = (alert, message) => send({ type: 'alert', alert, message });
  const space = new SpaceWatch(settings, isLow);
  const hasRoomFor = (bytes: number): boolean => space.hasRoomFor(freeBytesOf(dataDirectory), bytes);
  const drain = new Drain({
    dataDirectory,
    writer,
    limits: BATCH_LIMITS,
    sync: syncFile,
    nowMillis: () => performance.now(),
    hasRoomFor,
    onAlert,
    storesSetAside: () => storesSetAside(dataDirectory),
  });
  const onFailure = (message: string): void => onAlert('store_checkpoint_failed', message);
  // Loaded each time: a key that cannot be used now may be put right while the process runs.
  const sign = (head: StoreHead, timeMillis: number): Uint8Array =>
    createCheckpoint(head, { agentId, timeMillis }, loadOrCreateAgentKey(dataDirectory));
  const made = last?.log === writer.head.log ? last : { index: 0, timeMillis: nowMillis() };
  const checkpoints = new CheckpointKeeper({ dataDirectory, intervalMillis, writer, sign, onFailure }, made);
  const ballast = new Ballast(directory, settings.ballastBytes);
  return new StoreLoop({ settings, writer, drain, space, ballast, checkpoints, onAlert, nowMillis });
}

async function main(settings: StoreSettings): Promise<void> {
  setPriority(NICE);
  const early: ToStore[] = [];
  const keepEarly = (message: ToStore): void => void early.push(message);
  process.on('message', keepEarly);
  // The agent decides when to stop: it still serves when a service manager signals the whole group.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});
  process.on('uncaughtException', die);
  watchForOrphan(settings);
  const wasShort = isShortOfSpace(settings);
  const lock = await lockStore(settings.dataDirectory);
  // Again: the lock may have taken a while.
  const loop = open(settings, isShortOfSpace(settings) || wasShort);
  process.off('message', keepEarly);
  process.on('message', (message: ToStore) => loop.receive(message));
  for (const message of early) loop.receive(message);
  // The agent is gone: the commit under way is finished.
  process.on('disconnect', () => loop.stop(0));
  if (!process.connected) loop.stop(0);
  send({ type: 'ready', states: loop.states() });
  const heartbeat = setInterval(() => send({ type: 'status', status: loop.status }), STATUS_INTERVAL_MILLIS);
  await loop.run();
  clearInterval(heartbeat);
  send({ type: 'status', status: loop.status });
  await loop.close();
  lock.release();
  process.exit(0);
}

/** Nobody is left to end this process when its agent is gone and it hangs. */
function watchForOrphan({ hangMillis }: StoreSettings): void {
  const workerData: OrphanWatch = { parentId: process.ppid, graceMillis: hangMillis };
  new Worker(new URL('orphan-watch.ts', import.meta.url), { workerData }).unref();
}

main(JSON.parse(process.argv[2] ?? '{}') as StoreSettings).catch(die);
