import { Worker } from 'node:worker_threads';
import type { BundleOrder, ControlMessage, ThreadMessage, ThreadSettings } from './messages.ts';
import { fromRemote } from './remote-error.ts';

const THREAD_FILE = new URL('serving-thread.ts', import.meta.url);

export interface ServingThreadsOptions {
  readonly settings: readonly ThreadSettings[];
  /** Messages that are no answer to a call of this class. */
  readonly onMessage: (stream: number, message: ThreadMessage) => void;
  /** A thread ended although nobody asked it to; the agent cannot go on. */
  readonly onCrash: (stream: number, error: Error) => void;
}

type Answer = Extract<ThreadMessage, { type: 'prepared' | 'activated' | 'listening' | 'stopped' }>;

/** The control thread's end of all serving threads: sends an order to each and waits until each has answered. */
export class ServingThreads {
  readonly #workers: readonly Worker[];
  readonly #waiting = new Set<{ matches: (message: Answer) => boolean; resolve: (message: Answer) => void; stream: number }>();
  #isStopping = false;

  constructor(options: ServingThreadsOptions) {
    this.#workers = options.settings.map((settings, stream) => {
      const worker = new Worker(THREAD_FILE, { workerData: settings });
      worker.on('message', (message: ThreadMessage) => {
        if (!this.#settle(stream, message)) options.onMessage(stream, message);
      });
      worker.on('error', (error) => options.onCrash(stream, error instanceof Error ? error : new Error(String(error))));
      worker.on('exit', (code) => {
        if (!this.#isStopping) options.onCrash(stream, new Error(`serving thread ${stream} ended with code ${code}`));
      });
      return worker;
    });
  }

  tell(stream: number, message: ControlMessage): void {
    this.#workers[stream]?.postMessage(message);
  }

  tellAll(message: ControlMessage): void {
    for (const worker of this.#workers) worker.postMessage(message);
  }

  /** Every thread listens. @throws SetpointError when one cannot */
  async listen(): Promise<void> {
    const answers = await this.#ask({ type: 'listen' }, (message) => message.type === 'listening');
    throwFirst(answers);
  }

  /** Loads a bundle beside the active one on every thread, warm. @throws SetpointError when one thread cannot */
  async prepare(slot: string, order: BundleOrder): Promise<void> {
    const answers = await this.#ask(
      { type: 'prepare', slot, order },
      (message) => message.type === 'prepared' && message.slot === slot && message.bundleId === order.bundleId,
    );
    throwFirst(answers);
  }

  /** Lets the prepared bundle take over on every thread; null lets the slot stop answering. */
  async activate(slot: string, bundleId: string | null): Promise<void> {
    await this.#ask(
      { type: 'activate', slot, bundleId },
      (message) => message.type === 'activated' && message.slot === slot && message.bundleId === bundleId,
    );
  }

  /** Every thread has answered what it had, closed its journal and ended. */
  async stop(drainMillis: number): Promise<void> {
    this.#isStopping = true;
    const ended = this.#workers.map(
      (worker) =>
        new Promise<void>((resolve) => {
          worker.once('exit', () => resolve());
        }),
    );
    await this.#ask({ type: 'stop', drainMillis }, (message) => message.type === 'stopped');
    await Promise.all(ended);
  }

  #ask(order: ControlMessage, matches: (message: Answer) => boolean): Promise<Answer[]> {
    const answers = this.#workers.map(
      (_, stream) =>
        new Promise<Answer>((resolve) => {
          this.#waiting.add({ matches, resolve, stream });
        }),
    );
    this.tellAll(order);
    return Promise.all(answers);
  }

  #settle(stream: number, message: ThreadMessage): boolean {
    if (message.type !== 'prepared' && message.type !== 'activated' && message.type !== 'listening' && message.type !== 'stopped')
      return false;
    for (const waiting of this.#waiting) {
      if (waiting.stream !== stream || !waiting.matches(message)) continue;
      this.#waiting.delete(waiting);
      waiting.resolve(message);
      break;
    }
    return true;
  }
}

function throwFirst(answers: readonly Answer[]): void {
  for (const answer of answers) if ('error' in answer && answer.error !== null) throw fromRemote(answer.error);
}
