import { type ChildProcess, fork } from 'node:child_process';
import { resolve } from 'node:path';
import { CORES, pin } from './processor-pin.ts';
import type { Answer, Job, LoadResult } from './load-jobs.ts';

/** Servers and load generators run as processes of their own, so that each can have a core. */

/** Starting a server includes loading ONNX Runtime and, for the agent, vetting a bundle. */
const START_MILLIS = 30_000;

/** A server that is told to stop and has not by then is killed. */
const STOP_MILLIS = 5_000;

/** ONNX Runtime must see this before it loads (it reports home by default). */
const ENVIRONMENT = { ...process.env, ORT_DISABLE_TELEMETRY: '1' };

export interface ServerProcess {
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

function forkFile(file: string, args: readonly string[]): ChildProcess {
  return fork(resolve(import.meta.dirname, file), [...args], { env: ENVIRONMENT, stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
}

export function stopProcess(child: ChildProcess, withinMillis: number = STOP_MILLIS): Promise<void> {
  const { promise, resolve: stopped } = Promise.withResolvers<void>();
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  const killer = setTimeout(() => child.kill('SIGKILL'), withinMillis);
  child.once('exit', () => {
    clearTimeout(killer);
    stopped();
  });
  child.kill('SIGTERM');
  return promise;
}

/** Starts one of our own servers and waits until it tells its port. */
export async function startServer(file: string, args: readonly string[] = []): Promise<ServerProcess> {
  const child = forkFile(file, args);
  const { promise, resolve: listening, reject } = Promise.withResolvers<number>();
  const timer = setTimeout(() => reject(new Error(`Cannot start ${file}: it does not listen after ${START_MILLIS} ms`)), START_MILLIS);
  child.once('message', ({ port }: { port: number }) => listening(port));
  child.once('exit', (code) => reject(new Error(`Cannot start ${file}: it exited with ${code}`)));
  try {
    const port = await promise;
    return { pid: child.pid ?? 0, port, stop: () => stopProcess(child) };
  } catch (thrown) {
    await stopProcess(child);
    throw thrown;
  } finally {
    clearTimeout(timer);
  }
}

/** Load processes, one for each kind of client: their code is warm, and one kind's does not slow another's. */
export class LoadProcesses {
  readonly #children = new Map<string, ChildProcess>();
  readonly #isPinned: boolean;

  constructor(isPinned: boolean) {
    this.#isPinned = isPinned;
  }

  async run(job: Job): Promise<LoadResult> {
    const kind = job.task === 'compute' ? 'compute' : job.endpoint.transport;
    const child = this.#children.get(kind) ?? this.#start(kind);
    const { promise, resolve: answered, reject } = Promise.withResolvers<Answer>();
    const onExit = (code: number | null): void => reject(new Error(`Cannot load: the load process exited with ${code}`));
    child.once('exit', onExit);
    child.once('message', answered);
    child.send(job);
    try {
      const answer = await promise;
      if (answer.ok) return answer.result;
      throw new Error(`Cannot load over ${kind}: ${answer.message}`);
    } finally {
      child.off('exit', onExit);
      child.off('message', answered);
    }
  }

  #start(kind: string): ChildProcess {
    const child = forkFile('load.ts', []);
    if (this.#isPinned && child.pid !== undefined) pin(child.pid, CORES.client);
    this.#children.set(kind, child);
    return child;
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#children.values()].map(stopProcess));
    this.#children.clear();
  }
}
