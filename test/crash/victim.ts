import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface VictimFiles {
  /** Source tree: the product's, or a mutant's. */
  readonly root: string;
  readonly configFile: string;
  readonly dataDirectory: string;
  /** Everything it says is added here. */
  readonly logFile: string;
}

/** An agent that is going to be killed, and the store process that it starts. */
export class Victim {
  readonly #child: ChildProcess;
  readonly #dataDirectory: string;
  readonly #ended: Promise<number | null>;

  constructor({ root, configFile, dataDirectory, logFile }: VictimFiles) {
    this.#dataDirectory = dataDirectory;
    const log = openSync(logFile, 'a');
    this.#child = spawn(process.execPath, [join(root, 'agent/main.ts'), 'serve', '--config', configFile], {
      stdio: ['ignore', log, log],
    });
    closeSync(log);
    this.#ended = new Promise((resolve) => {
      this.#child.once('exit', (code) => resolve(code));
    });
  }

  get isRunning(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Process id of the store process, null when there is none at this moment. */
  get storeId(): number | null {
    return childrenOf(this.#child.pid ?? 0).find((processId) => isStoreOf(processId, this.#dataDirectory)) ?? null;
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#ended;
  }

  /** Asks it to stop; its exit code, null when it had to be killed. */
  async stop(withinMillis: number): Promise<number | null> {
    this.#child.kill('SIGTERM');
    const deadline = setTimeout(() => this.#child.kill('SIGKILL'), withinMillis);
    const code = await this.#ended;
    clearTimeout(deadline);
    return code;
  }
}

/** Whether a process is, still, a store process of this data directory: ids are given again. */
export function isStoreOf(processId: number, dataDirectory: string): boolean {
  const command = readProcess(`${processId}/cmdline`);
  return command.includes('store-process.ts') && command.includes(JSON.stringify(dataDirectory));
}

/** One that is gone already is as dead as it should be. */
export function signalProcess(processId: number, signal: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void {
  try {
    process.kill(processId, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** The kernel's list of a process's children; they are all of its main thread. */
function childrenOf(processId: number): number[] {
  const text = readProcess(`${processId}/task/${processId}/children`).trim();
  return text === '' ? [] : text.split(' ').map(Number);
}

function readProcess(path: string): string {
  try {
    return readFileSync(`/proc/${path}`, 'latin1');
  } catch {
    // It has ended.
    return '';
  }
}
