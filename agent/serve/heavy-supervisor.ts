import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { HeavyFailure } from '../infer/heavy-messages.ts';

const PROCESS_FILE = fileURLToPath(new URL('../infer/heavy-process.ts', import.meta.url));

/** Wait before a heavy process that died is started again: long enough not to spin, short against a wafer. */
const RESTART_DELAY_MILLIS = 200;

export interface HeavySupervisorOptions {
  readonly threads: number;
  readonly queueLength: number;
  readonly hangMillis: number;
  readonly memoryLimitBytes: number;
  /** A heavy process listens here. Called again after each restart. */
  readonly onListening: (socketPath: string) => void;
  /** The process had to be killed for what these bundles did. */
  readonly onFailure: (failure: HeavyFailure) => void;
  readonly onExit: (description: string) => void;
}

/** Keeps a heavy process running: starts it when first needed, kills it when it says that a run hangs, starts it again. */
export class HeavySupervisor {
  readonly #options: HeavySupervisorOptions;
  /** A socket path must be short (108 bytes); the data directory's may not be. Made when first needed: most agents have no heavy model. */
  #directory: string | null = null;
  #child: ChildProcess | null = null;
  #starts = 0;
  #isStopped = false;

  constructor(options: HeavySupervisorOptions) {
    this.#options = options;
  }

  /** Starts the process unless it runs. */
  start(): void {
    if (this.#child !== null || this.#isStopped) return;
    const { threads, queueLength, hangMillis, memoryLimitBytes } = this.#options;
    this.#directory ??= mkdtempSync(join(tmpdir(), 'setpoint-'));
    const socketPath = join(this.#directory, `heavy-${++this.#starts}.sock`);
    const settings = [threads, queueLength, hangMillis, memoryLimitBytes].map(String);
    const child = spawn(process.execPath, [PROCESS_FILE, socketPath, ...settings], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      // Nothing of the agent's environment (tokens, say) is the models' business.
      env: { ORT_DISABLE_TELEMETRY: '1', PATH: process.env['PATH'] ?? '' },
    });
    this.#child = child;
    child.on('message', (message: HeavyFailure | { type: 'listening' }) => {
      if (message.type === 'listening') {
        this.#options.onListening(socketPath);
      } else {
        this.#options.onFailure(message);
        child.kill('SIGKILL');
      }
    });
    child.on('error', (error) => this.#options.onExit(error.message));
    child.on('exit', (code, signal) => this.#restart(`code ${code}, signal ${signal}`));
  }

  /** Kills the process: whatever it was running has been answered or given up by now. */
  stop(): void {
    this.#isStopped = true;
    this.#child?.kill('SIGKILL');
    if (this.#directory !== null) rmSync(this.#directory, { recursive: true, force: true });
  }

  #restart(description: string): void {
    this.#child = null;
    if (this.#isStopped) return;
    this.#options.onExit(description);
    setTimeout(() => this.start(), RESTART_DELAY_MILLIS).unref();
  }
}
