import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { messageOf } from '../protocol/errors.ts';
import { type AgentExit, AgentProcess, freePort } from './fab/agent-process.ts';
import { FabFloor } from './fab/controllers.ts';
import { parseOptions, type StartOptions, USAGE } from './fab/options.ts';
import { merged, type Percentiles } from './fab/statistics.ts';
import { Terminal } from './fab/terminal.ts';
import { bundleFolder, TOOLS } from './fab/tools.ts';
import { count, duration, total, totalActions } from './fab/view.ts';

/** `npm start`: an agent, the simulated fab around it, and a live view; see fab/README.md. */
const SERVICE_POLL_MILLIS = 1000;

const parsed = parseOptions(process.argv.slice(2));
if (parsed.kind === 'help') {
  process.stdout.write(USAGE);
} else if (parsed.kind === 'wrong') {
  process.stderr.write(`${parsed.message}\n\n${USAGE}`);
  process.exitCode = 2;
} else {
  process.exitCode = await run(parsed.options);
}

/** Runs the fab and returns the exit code. The data directory is removed when all went well, and kept to look into otherwise. */
async function run(options: StartOptions): Promise<number> {
  const dataDir = mkdtempSync(join(tmpdir(), 'setpoint-fab-'));
  let failure: string | null;
  try {
    failure = await play(options, dataDir);
  } catch (thrown) {
    failure = messageOf(thrown);
  }
  if (failure === null) {
    rmSync(dataDir, { recursive: true, force: true });
    return 0;
  }
  process.stderr.write(`${failure}\nThe agent's data is kept in ${dataDir}\n`);
  return 1;
}

/** Returns why it failed, null when it did not. */
async function play(options: StartOptions, dataDir: string): Promise<string | null> {
  const stop = stopRequest(options.seconds);
  const port = await freePort(options.port);
  if (port !== options.port) process.stdout.write(`Port ${options.port} is taken; the agent listens on ${port}\n`);
  process.stdout.write('Starting the agent; it vets every bundle first\n');
  const agent = new AgentProcess(writeConfig(dataDir, port), port);
  const killAgent = () => agent.kill();
  process.once('exit', killAgent);
  try {
    const state = await Promise.race([agent.waitUntilReady(), stop.requested.then(() => 'stopped' as const)]);
    if (state === 'exited')
      return `Cannot start the fab: the agent stopped before it was ready (${exitText(await agent.exited)}):\n${agent.log}`;
    if (state === 'late') return `Cannot start the fab: the agent was not ready within 30 s:\n${agent.log}`;
    return state === 'ready' ? await playWith(agent, options, stop) : null;
  } finally {
    stop.release();
    await agent.stop();
    process.removeListener('exit', killAgent);
  }
}

async function playWith(agent: AgentProcess, options: StartOptions, stop: StopRequest): Promise<string | null> {
  const floor = new FabFloor({ url: agent.socketUrl, rate: options.rate, seed: options.seed });
  if (!(await floor.start())) process.stdout.write('Some controllers could not connect; they answer from their own fallback\n');
  stop.startTimer();
  const startedMillis = performance.now();
  let service: Percentiles | null = null;
  const poll = setInterval(() => {
    void agent.serviceTime().then((read) => (service = read ?? service));
  }, SERVICE_POLL_MILLIS);
  const snapshot = () => ({
    agent: `agent at ${agent.address}`,
    elapsedMillis: performance.now() - startedMillis,
    lines: floor.viewLines(),
    service,
    alerts: floor.alerts.list(),
  });
  const terminal = new Terminal(process.stdout, snapshot, process.env['NO_COLOR']);
  let early: AgentExit | null;
  try {
    early = await Promise.race([stop.requested.then(() => null), agent.exited, floor.failure()]);
  } finally {
    clearInterval(poll);
    terminal.stop();
    await floor.stop();
  }
  service = (await agent.serviceTime()) ?? service;
  const exit = await agent.stop();
  process.stdout.write(summary(floor, service, exit, (performance.now() - startedMillis) / 1000));
  if (early !== null) return `The agent stopped by itself (${exitText(early)}):\n${agent.log}`;
  if (exit.code !== 0) return `The agent did not stop well (${exitText(exit)}):\n${agent.log}`;
  const answered = floor.lines.reduce((sum, line) => sum + line.statistics.predictions - line.statistics.actions.local, 0);
  return answered === 0 ? 'The agent answered no prediction' : null;
}

interface StopRequest {
  readonly requested: Promise<void>;
  readonly startTimer: () => void;
  readonly release: () => void;
}

/** Ctrl-C, SIGTERM, or the end of `--seconds`. A second Ctrl-C ends the process at once. */
function stopRequest(seconds: number | null): StopRequest {
  let stop = (): void => {};
  let timer: NodeJS.Timeout | undefined;
  const requested = new Promise<void>((resolve) => {
    stop = resolve;
  });
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  return {
    requested,
    startTimer: () => {
      if (seconds !== null) timer = setTimeout(stop, seconds * 1000);
    },
    release: () => {
      clearTimeout(timer);
      process.removeListener('SIGINT', stop);
      process.removeListener('SIGTERM', stop);
    },
  };
}

function writeConfig(dataDir: string, port: number): string {
  const bundles = join(import.meta.dirname, 'bundles');
  const slots = Object.fromEntries(TOOLS.map(({ slot }) => [slot, { bundle: join(bundles, bundleFolder(slot)) }]));
  const file = join(dataDir, 'agent.yaml');
  writeFileSync(file, stringify({ agentId: 'demo', dataDir: join(dataDir, 'agent'), listen: { host: '127.0.0.1', port }, slots }));
  return file;
}

function summary(floor: FabFloor, service: Percentiles | null, exit: AgentExit, seconds: number): string {
  const actions = totalActions(floor.lines.map((line) => line.statistics));
  const roundTrip = merged(floor.lines.map((line) => line.statistics));
  const sum = (of: (line: FabFloor['lines'][number]) => number) => count(floor.lines.reduce((total, line) => total + of(line), 0));
  const times = (of: Percentiles) => `p50 ${duration(of.p50Micros)}, p99 ${duration(of.p99Micros)}, p99.9 ${duration(of.p999Micros)}`;
  return [
    '',
    `predictions    ${count(total(actions))} in ${seconds.toFixed(1)} s (${count(Math.round(total(actions) / seconds))}/s)`,
    `actions        model ${count(actions.model)}, clamped ${count(actions.clamped)}, fallback ${count(actions.fallback)}, local ${count(actions.local)}`,
    `observations   ${sum((line) => line.statistics.observations)} recorded, ${sum((line) => line.statistics.observationsLost)} lost`,
    `maintenances   ${sum((line) => line.statistics.maintenances)}`,
    `round trip     ${roundTrip.count === 0 ? 'none' : times(roundTrip)}`,
    `service time   ${service === null ? 'not known' : times(service)}`,
    `agent          ${exitText(exit)}`,
    '',
  ].join('\n');
}

function exitText(exit: AgentExit): string {
  return exit.signal === null ? `exit code ${exit.code ?? 'unknown'}` : `killed by ${exit.signal}`;
}
