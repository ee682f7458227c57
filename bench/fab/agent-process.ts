import { type ChildProcess, spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { bucketPercentiles, readBuckets } from './service-time.ts';
import type { Percentiles } from './statistics.ts';

const READY_WAIT_MILLIS = 30_000;
const READY_POLL_MILLIS = 100;
/** The agent drains for 5 s by default; twice that, then it is hung. */
const STOP_WAIT_MILLIS = 10_000;
/** What of the agent's log is kept to show when it fails, characters. */
const LOG_TAIL = 8192;
const HOST = '127.0.0.1';
const SERVICE_HISTOGRAM = 'setpoint_service_seconds';

export type AgentExit = { readonly code: number | null; readonly signal: NodeJS.Signals | null };

/** A child process that serves; its log is kept in memory, the end of it. */
export class AgentProcess {
  readonly port: number;
  /** How it ended. */
  readonly exited: Promise<AgentExit>;
  readonly #child: ChildProcess;
  #log = '';
  #exit: AgentExit | null = null;

  constructor(configFile: string, port: number) {
    this.port = port;
    const main = join(import.meta.dirname, '../../agent/main.ts');
    // In a group of its own: Ctrl-C reaches the fab alone, which then stops the agent in order.
    this.#child = spawn(process.execPath, [main, 'serve', '--config', configFile], { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding('utf8');
      stream?.on('data', (text: string) => {
        this.#log = (this.#log + text).slice(-LOG_TAIL);
      });
    }
    this.exited = new Promise((resolve) => {
      const end = (exit: AgentExit): void => {
        this.#exit = exit;
        resolve(exit);
      };
      this.#child.once('error', (error) => {
        this.#log += `${error.message}\n`;
        end({ code: null, signal: null });
      });
      this.#child.once('close', (code, signal) => end({ code, signal }));
    });
  }

  get log(): string {
    return this.#log.trimEnd();
  }

  get socketUrl(): string {
    return `ws://${HOST}:${this.port}/v1`;
  }

  get address(): string {
    return `http://${HOST}:${this.port}`;
  }

  /** Waits until every slot of the agent answers: 'ready', 'exited' or 'late'. */
  async waitUntilReady(): Promise<'ready' | 'exited' | 'late'> {
    const until = performance.now() + READY_WAIT_MILLIS;
    while (performance.now() < until) {
      if (this.#exit !== null) return 'exited';
      if (await this.#isReady()) return 'ready';
      await Promise.race([sleep(READY_POLL_MILLIS), this.exited]);
    }
    return 'late';
  }

  async #isReady(): Promise<boolean> {
    try {
      const response = await fetch(`${this.address}/v2/health/ready`, { signal: AbortSignal.timeout(1000) });
      await response.arrayBuffer();
      return response.status === 200;
    } catch {
      // Not listening yet; waitUntilReady bounds how long that may last.
      return false;
    }
  }

  /** The agent's own service time, or null while it cannot be read. */
  async serviceTime(): Promise<Percentiles | null> {
    try {
      const response = await fetch(`${this.address}/metrics`, { signal: AbortSignal.timeout(1000) });
      const text = await response.text();
      return response.ok ? bucketPercentiles(readBuckets(text, SERVICE_HISTOGRAM)) : null;
    } catch {
      // The view says that it does not know; predictions do not depend on it.
      return null;
    }
  }

  /** Asks it to stop, and ends it when it does not. */
  async stop(): Promise<AgentExit> {
    if (this.#exit === null) this.#child.kill('SIGTERM');
    const waited = await Promise.race([this.exited, sleep(STOP_WAIT_MILLIS, null, { ref: false })]);
    if (waited !== null) return waited;
    this.kill();
    return this.exited;
  }

  kill(): void {
    if (this.#exit === null) this.#child.kill('SIGKILL');
  }
}

/** `wanted` when nothing listens there, otherwise a port that the system gives. */
export async function freePort(wanted: number): Promise<number> {
  return (await tryPort(wanted)) ?? (await tryPort(0)) ?? wanted;
}

function tryPort(port: number): Promise<number | null> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(null));
    server.listen({ host: HOST, port }, () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address !== null ? address.port : null));
    });
  });
}
