import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { onTestFinished } from 'vitest';
import { stringify } from 'yaml';

/** A real agent process on a free port, with a data directory of its own. */
export interface RunningAgent {
  readonly port: number;
  readonly url: string;
  readonly http: string;
  readonly directory: string;
  readonly dataDir: string;
  readonly process: ChildProcess;
  /** What it wrote to stderr so far. */
  readonly log: () => string;
  /** Sends a signal and waits for the end. */
  stop(signal?: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

export interface AgentSettings {
  /** Slot name -> bundle path. */
  readonly slots: Readonly<Record<string, string>>;
  /** More of the configuration. */
  readonly config?: Readonly<Record<string, unknown>>;
  /** A directory of an agent that ran before; a new one without it. */
  readonly directory?: string;
  /** 'ready' waits until every slot answers, 'live' until it listens, 'none' for nothing. Default 'ready'. */
  readonly until?: 'ready' | 'live' | 'none';
  readonly environment?: Readonly<Record<string, string>>;
}

const AGENT = resolve(import.meta.dirname, '../../agent/main.ts');
const READY_WITHIN_MILLIS = 60_000;

/** A folder that is removed when the test ends. */
export function temporaryDirectory(): string {
  const directory = mkdtempSync(join(tmpdir(), 'setpoint-test-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export async function freePort(): Promise<number> {
  return await new Promise((resolvePort, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolvePort(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}

/** Starts an agent; it is killed when the test ends, if it still runs. */
export async function startAgent(settings: AgentSettings): Promise<RunningAgent> {
  const directory = settings.directory ?? temporaryDirectory();
  const dataDir = join(directory, 'data');
  mkdirSync(directory, { recursive: true });
  const port = await freePort();
  const slots = Object.fromEntries(Object.entries(settings.slots).map(([name, bundle]) => [name, { bundle }]));
  const config = { agentId: 'test', dataDir, listen: { host: '127.0.0.1', port }, threads: 1, slots, ...settings.config };
  const file = join(directory, 'agent.yaml');
  writeFileSync(file, stringify(config));
  const child = spawn(process.execPath, [AGENT, 'serve', '--config', file], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...process.env, ...settings.environment },
  });
  let log = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolveEnd) => {
    child.once('exit', (code, signal) => resolveEnd({ code, signal }));
  });
  const agent: RunningAgent = {
    port,
    url: `ws://127.0.0.1:${port}`,
    http: `http://127.0.0.1:${port}`,
    directory,
    dataDir,
    process: child,
    log: () => log,
    stop: async (signal = 'SIGTERM') => {
      child.kill(signal);
      return await ended;
    },
  };
  onTestFinished(async () => {
    child.kill('SIGKILL');
    await ended;
    await endStoreProcesses(dataDir);
  });
  const until = settings.until ?? 'ready';
  if (until !== 'none')
    await waitFor(
      () => isUp(agent, until),
      READY_WITHIN_MILLIS,
      () => `the agent is not ${until}:\n${log}`,
    );
  return agent;
}

/** The store process of an agent that was killed finishes its commit: files would appear in a folder that is being removed. */
async function endStoreProcesses(dataDir: string): Promise<void> {
  for (const processId of storeProcesses(dataDir)) {
    try {
      process.kill(processId, 'SIGKILL');
    } catch {
      // It ended by itself meanwhile, which is what is wanted.
    }
  }
  await waitFor(
    () => storeProcesses(dataDir).length === 0,
    10_000,
    () => `store processes ${storeProcesses(dataDir).join(', ')} still run`,
  );
}

/** By their command line, which holds the data directory. */
function storeProcesses(dataDir: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const command = readFileSync(`/proc/${name}/cmdline`, 'utf8');
        return command.includes('store-process.ts') && command.includes(JSON.stringify(dataDir));
      } catch {
        return false;
      }
    })
    .map(Number);
}

async function isUp(agent: RunningAgent, until: 'ready' | 'live'): Promise<boolean> {
  if (agent.process.exitCode !== null) throw new Error(`the agent ended with code ${agent.process.exitCode}:\n${agent.log()}`);
  try {
    return (await fetch(`${agent.http}/v2/health/${until}`)).status === 200;
  } catch {
    // Not listening yet.
    return false;
  }
}

/** Polls until `condition` holds. */
export async function waitFor(condition: () => boolean | Promise<boolean>, withinMillis: number, describe: () => string): Promise<void> {
  const until = Date.now() + withinMillis;
  while (!(await condition())) {
    if (Date.now() > until) throw new Error(`not within ${withinMillis} ms: ${describe()}`);
    await new Promise((next) => {
      setTimeout(next, 20);
    });
  }
}
