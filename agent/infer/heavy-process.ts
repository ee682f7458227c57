import { createServer, type Socket } from 'node:net';
import { memoryUsage } from 'node:process';
import { Piscina } from 'piscina';
import { messageOf } from '../../protocol/errors.ts';
import { encodeMessage, type HeavyFailure, type HeavyResult, type HeavyRun, MessageReader } from './heavy-messages.ts';

/**
 * The heavy process: runs models that are too slow, or too unpredictable, for a serving thread. It is a process and not a
 * pool inside the serving process because a run cannot be interrupted: a thread that hangs in one can only be got rid of
 * together with its process (worker.terminate() would abort the agent).
 *
 * Arguments: socket path, worker threads, queue length, hang limit in milliseconds, memory limit in bytes.
 */
const [socketPath = '', threads = '1', queueLength = '64', hangMillis = '10000', memoryLimitBytes = '0'] = process.argv.slice(2);

/** How often hung runs and memory are looked for: a runaway allocation gains about 1 GB between two looks. */
const WATCH_INTERVAL_MILLIS = 50;

const pool = new Piscina({
  filename: new URL('heavy-worker.ts', import.meta.url).href,
  minThreads: 1,
  maxThreads: Number(threads),
  maxQueue: Number(queueLength),
  concurrentTasksPerWorker: 1,
  // A blocking wait would keep a worker from ending when the pool closes.
  atomics: 'disabled',
  idleTimeout: 60_000,
});

interface Running {
  readonly bundleId: string;
  /** When a look first found it among the oldest runs, which are those on a thread; null while it waits. */
  activeSinceMillis: number | null;
}

/** Runs handed to the pool, oldest first; those beyond the thread count wait in its queue. */
const running = new Map<symbol, Running>();

async function runOne(socket: Socket, { id, ...task }: HeavyRun): Promise<void> {
  const key = Symbol(task.bundleId);
  running.set(key, { bundleId: task.bundleId, activeSinceMillis: null });
  let result: HeavyResult;
  try {
    result = { id, outputs: await pool.run(task) };
  } catch (error) {
    result = { id, error: messageOf(error) };
  } finally {
    running.delete(key);
  }
  if (!socket.destroyed) socket.write(encodeMessage(result));
}

function report(failure: HeavyFailure): void {
  // The supervisor kills this process; until then nothing more may be promised.
  clearInterval(watch);
  process.send?.(failure);
}

const watch = setInterval(() => {
  const active = [...running.values()].slice(0, Number(threads));
  const now = performance.now();
  for (const run of active) run.activeSinceMillis ??= now;
  const hung = active.filter((run) => now - (run.activeSinceMillis ?? now) > Number(hangMillis));
  if (hung.length > 0) {
    report({ type: 'hung', bundleIds: hung.map((run) => run.bundleId), message: `a run took longer than ${hangMillis} ms` });
    return;
  }
  const used = memoryUsage.rss();
  if (used > Number(memoryLimitBytes)) {
    const bundleIds = active.map((run) => run.bundleId);
    report({ type: 'memory', bundleIds, message: `the heavy process took ${used} bytes, ${memoryLimitBytes} are allowed` });
  }
}, WATCH_INTERVAL_MILLIS);

const server = createServer((socket) => {
  const reader = new MessageReader<HeavyRun>((run) => void runOne(socket, run));
  socket.setNoDelay(true);
  socket.on('data', (chunk) => reader.push(chunk));
  // A serving thread that goes away closes its socket; its results have nobody to go to.
  socket.on('error', () => socket.destroy());
});

server.listen(socketPath, () => process.send?.({ type: 'listening' }));

// The agent is gone: so is the reason to run.
process.on('disconnect', () => process.kill(process.pid, 'SIGKILL'));
