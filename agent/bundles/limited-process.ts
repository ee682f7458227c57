import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { SetpointError } from '../../protocol/errors.ts';

/**
 * Runs a script of ours in a process of its own that cannot outlive a deadline nor take more than its memory.
 *
 * Only SIGKILL from outside stops a model: `run` blocks its OS thread, and neither the end of a worker nor an exit
 * of the process comes through while it does (5 ms for SIGKILL, measured). Memory has two limits: the kernel's on private writable memory, which
 * turns into a failed allocation, and a look at the resident size every 20 ms, which ends in SIGKILL. The limit on address
 * space (`ulimit -v`) is of no use: V8 and ONNX Runtime reserve 11.5 GB of it before a model is loaded, and use 0.1 GB.
 */
export interface ProcessLimits {
  readonly deadlineMillis: number;
  /** Resident memory, bytes, with the runtime's own 100 MB. */
  readonly memoryLimitBytes: number;
  /** Most bytes of standard output. */
  readonly outputBytes: number;
}

export interface ProcessResult {
  readonly limit: 'deadline' | 'memory' | 'output' | null;
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly output: string;
  /** The end of what was written to standard error. */
  readonly errorOutput: string;
}

const MEMORY_POLL_MILLIS = 20;
/** What the runtime allocates and never touches (thread stacks, V8's spaces), beyond what a model takes. */
const DATA_LIMIT_HEAD_ROOM_BYTES = 256 * 1024 * 1024;
const ERROR_OUTPUT_BYTES = 16 * 1024;
/** Golden vectors are the only large JavaScript objects: 64 MiB of JSON at most. */
const HEAP_MEGABYTES = 512;
const SHELL = '/bin/sh';
/**
 * No core dumps, no files written, a limit on private memory, and on processor time, which ends a model that never returns
 * also when the process that watches it has died. A shell that lacks one of them goes on without.
 */
const LIMIT_SCRIPT = [
  'ulimit -c 0 2>/dev/null',
  'ulimit -f 0 2>/dev/null',
  'ulimit -d "$1" 2>/dev/null',
  'ulimit -t "$2" 2>/dev/null',
  'shift 2',
  'exec "$@"',
].join('; ');

export async function runLimited(script: string, input: readonly Uint8Array[], limits: ProcessLimits): Promise<ProcessResult> {
  const child = start(script, limits);
  return await new Promise((resolve, reject) => {
    let limit: ProcessResult['limit'] = null;
    const stop = (reason: NonNullable<ProcessResult['limit']>): void => {
      limit ??= reason;
      child.kill('SIGKILL');
    };
    const output = collect(child, limits, () => stop('output'));
    const deadline = setTimeout(() => stop('deadline'), limits.deadlineMillis);
    const poll = setInterval(() => {
      if (residentBytes(child.pid) > limits.memoryLimitBytes) stop('memory');
    }, MEMORY_POLL_MILLIS);
    const settle = (): void => {
      clearTimeout(deadline);
      clearInterval(poll);
    };
    child.once('error', (cause) => {
      settle();
      reject(new SetpointError('internal', `Cannot start the vet process: ${cause.message}`, { cause }));
    });
    child.once('close', (exitCode, signal) => {
      settle();
      resolve({ limit, exitCode, signal, ...output() });
    });
    feed(child, input);
  });
}

function start(script: string, limits: ProcessLimits): ChildProcess {
  const command = [process.execPath, `--max-old-space-size=${HEAP_MEGABYTES}`, '--disable-warning=ExperimentalWarning', script];
  const dataKibibytes = Math.ceil((limits.memoryLimitBytes + DATA_LIMIT_HEAD_ROOM_BYTES) / 1024);
  // Twice the deadline: the runtime's other threads count too, and the parent's own clock comes first.
  const processorSeconds = Math.ceil((2 * limits.deadlineMillis) / 1000);
  const hasShell = process.platform !== 'win32' && existsSync(SHELL);
  const [file = SHELL, ...args] = hasShell
    ? [SHELL, '-c', LIMIT_SCRIPT, 'sh', String(dataKibibytes), String(processorSeconds), ...command]
    : command;
  return spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'], env: minimalEnvironment(), windowsHide: true });
}

/** Nothing of the agent's own environment: it may hold secrets, and options that change how Node starts. */
function minimalEnvironment(): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { ORT_DISABLE_TELEMETRY: '1' };
  for (const name of ['LANG', 'LC_ALL', 'SystemRoot']) {
    const value = process.env[name];
    if (value !== undefined) environment[name] = value;
  }
  return environment;
}

/** A process that ends early closes its input; its exit tells why, so the broken pipe need not. */
function feed(child: ChildProcess, input: readonly Uint8Array[]): void {
  child.stdin?.on('error', () => {});
  for (const chunk of input) child.stdin?.write(chunk);
  child.stdin?.end();
}

function collect(child: ChildProcess, limits: ProcessLimits, onTooMuch: () => void): () => Pick<ProcessResult, 'output' | 'errorOutput'> {
  const chunks: Buffer[] = [];
  let size = 0;
  let errorOutput = '';
  child.stdout?.on('data', (chunk: Buffer) => {
    size += chunk.byteLength;
    if (size > limits.outputBytes) onTooMuch();
    else chunks.push(chunk);
  });
  child.stderr?.on('data', (chunk: Buffer) => {
    errorOutput = (errorOutput + chunk.toString('utf8')).slice(-ERROR_OUTPUT_BYTES);
  });
  return () => ({ output: Buffer.concat(chunks).toString('utf8'), errorOutput });
}

/** Resident memory of a process, bytes; 0 where the system has no /proc or the process is gone. */
function residentBytes(pid: number | undefined): number {
  if (process.platform !== 'linux' || pid === undefined) return 0;
  try {
    const kibibytes = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1];
    return Number(kibibytes ?? 0) * 1024;
  } catch {
    return 0;
  }
}
