import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { HISTORY_LENGTH } from '../../agent/guard/estimator-state.ts';
import { type DecisionFrame, FRAME_KINDS, reasonNames } from '../../protocol/frames.ts';
import { type RunningAgent, startAgent, temporaryDirectory, waitFor } from '../support/agent.ts';
import { Load, openOnEveryThread, unjournaled } from '../support/load.ts';
import { copyBundle, countingInput, goldenFeatures, shippedBundle, writeCountingBundle, writeEndlessBundle } from '../support/models.ts';
import { asDecision, contextOf, delay, openController, predictFrame, type RawSocket, startWitness } from '../support/raw-socket.ts';

/** What an agent promises when it starts, stops, is killed, and starts again. */

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const UNUSABLE = new Float32Array(FEATURES.length).fill(Number.NaN);
const SLOTS = { [SLOT]: BUNDLE };

async function loadOf(agent: RunningAgent, connections = 4): Promise<Load> {
  return await Load.start(agent.port, {
    connections,
    requestsEach: 8,
    everyMillis: 4,
    frame: (requestId) => predictFrame(requestId, SLOT, FEATURES),
  });
}

async function exitOf(agent: RunningAgent): Promise<number | null> {
  await waitFor(
    () => agent.process.exitCode !== null || agent.process.signalCode !== null,
    20_000,
    () => `the agent still runs:\n${agent.log()}`,
  );
  return agent.process.exitCode;
}

describe('answered means written', () => {
  test('a stop under load answers or says goodbye, exits with 0, and every answer is in the journal once', async () => {
    const agent = await startAgent({ slots: SLOTS, config: { threads: 2 } });
    const load = await loadOf(agent, 6);
    await waitFor(
      () => load.decisions.length > 1000,
      20_000,
      () => `${load.decisions.length} decisions`,
    );
    const { code } = await agent.stop('SIGTERM');
    const closings = await load.ended();
    expect(code).toBe(0);
    expect(closings.map((closing) => closing.code)).toEqual(Array(6).fill(1001));
    for (const frame of load.others) expect(frame).toMatchObject({ kind: FRAME_KINDS.error, code: 'stopping', retryable: true });
    expect(unjournaled(load.decisions, agent.dataDir)).toEqual([]);
    expect(agent.log()).toContain('stopped');
    expect(existsSync(join(agent.dataDir, 'agent.lock'))).toBe(false);
  });

  test('kill -9 under load loses no answered decision, and never gives a number twice', { timeout: 60_000 }, async () => {
    const rounds = 5;
    const directory = temporaryDirectory();
    const decisions: DecisionFrame[] = [];
    for (let round = 1; round <= rounds; round++) {
      // The lock that the killed agent left does not keep the next one out.
      const agent = await startAgent({ slots: SLOTS, directory });
      const load = await loadOf(agent);
      await waitFor(
        () => load.decisions.length > 300 * round,
        20_000,
        () => `${load.decisions.length} decisions`,
      );
      await agent.stop('SIGKILL');
      await load.ended();
      decisions.push(...load.decisions);
      expect(unjournaled(decisions, agent.dataDir)).toEqual([]);
    }
    expect(decisions.length).toBeGreaterThan(300 * rounds);
    const numbers = decisions.map(({ stream, sequence }) => `${stream}/${sequence}`);
    expect(new Set(numbers).size).toBe(numbers.length);
  });
});

test('a data directory and a port belong to one agent at a time', async () => {
  const agent = await startAgent({ slots: SLOTS });
  const witness = await startWitness(agent.port, SLOT, FEATURES);
  const sameDirectory = await startAgent({ slots: SLOTS, directory: agent.directory, until: 'none' });
  const samePort = await startAgent({
    slots: SLOTS,
    config: { listen: { host: '127.0.0.1', port: agent.port } },
    until: 'none',
  });
  expect(await exitOf(sameDirectory)).toBe(1);
  expect(sameDirectory.log()).toContain(`Cannot use data directory ${agent.dataDir}: process ${agent.process.pid} is using it`);
  expect(sameDirectory.log()).toContain('remedy:');
  expect(await exitOf(samePort)).toBe(1);
  expect(samePort.log()).toContain(`Cannot listen on 127.0.0.1:${agent.port}`);
  await delay(50);
  expect((await witness.stop()).failures).toEqual([]);
  // Neither of them took the lock of the first one away.
  const third = await startAgent({ slots: SLOTS, directory: agent.directory, until: 'none' });
  expect(await exitOf(third)).toBe(1);
});

describe('what the fallback has learnt', () => {
  const context = contextOf({ equipmentId: 'SCANNER-A', moduleId: 'STAGE-1', product: 'PRODUCT-X', recipeId: 'GATE;3' });
  let runNumber = 0;

  async function observe(controller: RawSocket, values: readonly number[]): Promise<void> {
    for (const value of values) {
      const requestId = controller.nextId();
      const measuredAtMillis = Date.now();
      const frame = await controller.ask({
        kind: FRAME_KINDS.observe,
        requestId,
        slot: SLOT,
        context: { ...context, processEndMillis: measuredAtMillis, runNumber: ++runNumber },
        measurementId: `${process.hrtime.bigint()}`,
        parameter: 'CD',
        value,
        unit: 'nm',
        appliedInput: 28,
        measuredAtMillis,
      });
      expect(frame).toMatchObject({ kind: FRAME_KINDS.observed, outcome: 'applied' });
      // The next one must be a later run.
      await delay(2);
    }
  }

  async function fallbackDecision(controller: RawSocket): Promise<DecisionFrame> {
    const frame = predictFrame(controller.nextId(), SLOT, UNUSABLE, { context: { ...context, runNumber: runNumber + 1 }, lastApplied: 28 });
    const decision = asDecision(await controller.ask(frame));
    expect(decision.action).toBe('fallback');
    return decision;
  }

  async function fallbackValue(controller: RawSocket): Promise<number> {
    const { reasons, value } = await fallbackDecision(controller);
    expect(reasonNames(reasons)).toEqual(['input_not_finite']);
    return value!;
  }

  test('survives kill -9, a clean stop, and the loss of its snapshot', { timeout: 60_000 }, async () => {
    const directory = temporaryDirectory();
    const restart = async (): Promise<{ agent: RunningAgent; controller: RawSocket }> => {
      const agent = await startAgent({ slots: SLOTS, directory });
      return { agent, controller: await openController(agent.port) };
    };
    let { agent, controller } = await restart();
    await observe(controller, [46, 47, 45.5, 46.5]);
    const learnt = await fallbackValue(controller);
    expect(learnt).toBeGreaterThan(45);
    await agent.stop('SIGKILL');

    // From the journal alone.
    ({ agent, controller } = await restart());
    expect(await fallbackValue(controller)).toBe(learnt);
    await agent.stop('SIGTERM');

    // From the snapshot, then from the snapshot and what the journal holds beyond it.
    ({ agent, controller } = await restart());
    expect(await fallbackValue(controller)).toBe(learnt);
    await observe(controller, [48, 48]);
    const learntMore = await fallbackValue(controller);
    expect(learntMore).not.toBe(learnt);
    await agent.stop('SIGKILL');
    ({ agent, controller } = await restart());
    expect(await fallbackValue(controller)).toBe(learntMore);
    await agent.stop('SIGKILL');

    const snapshot = join(agent.dataDir, 'estimators.json');
    writeFileSync(snapshot, readFileSync(snapshot).subarray(0, 40));
    ({ agent, controller } = await restart());
    expect(await fallbackValue(controller)).toBe(learntMore);
    expect(agent.log()).toContain('estimators damaged');
    expect(existsSync(`${snapshot}.damaged`)).toBe(true);
  });

  test('on one serving thread is known on the other, and to fewer threads after kill -9', async () => {
    // An estimate with a long memory, which an observation out of its order would show in.
    const slots = { [SLOT]: copyBundle(BUNDLE, join(temporaryDirectory(), 'slow'), { lambda: 0.01 }) };
    const agent = await startAgent({ slots, config: { threads: 2 } });
    const [first, second] = await openOnEveryThread(agent.port, 2, SLOT, FEATURES);
    await observe(first!, [46, 47]);
    const expected = await fallbackValue(first!);
    // The estimate reaches the other thread with the control thread's next message.
    await waitFor(
      async () => {
        return (await fallbackDecision(second!)).value === expected;
      },
      10_000,
      () => 'the other thread does not know',
    );
    // In turns, and more than an estimator can put in order by itself: the two journals must be learnt as one.
    for (let pair = 0; pair < 3 * HISTORY_LENGTH; pair++) {
      await observe(second!, [47 + Math.sin(pair)]);
      await observe(first!, [46 + Math.cos(pair)]);
    }
    const learnt = await fallbackValue(first!);
    expect(learnt).not.toBe(expected);
    await agent.stop('SIGKILL');
    const next = await startAgent({ slots, directory: agent.directory, config: { threads: 1 } });
    expect(await fallbackValue(await openController(next.port))).toBe(learnt);
  });
});

test('an agent is ready when every slot is warm, and until then refuses what may be tried again', async () => {
  const directory = temporaryDirectory();
  // Vetting runs the first golden vectors some hundred times: long enough to be seen.
  const slow = writeCountingBundle(join(directory, 'slow'), 'prediction', '1', 500);
  const agent = await startAgent({ slots: { slow, ...SLOTS }, until: 'live' });
  expect((await fetch(`${agent.http}/v2/health/live`)).status).toBe(200);
  const ready = await fetch(`${agent.http}/v2/health/ready`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toMatchObject({ ready: false, detail: { slots: [{ slot: 'slow', state: 'loading' }, { slot: SLOT }] } });
  const controller = await openController(agent.port);
  expect(await controller.ask(predictFrame(1, SLOT, FEATURES))).toMatchObject({
    kind: FRAME_KINDS.error,
    requestId: 1,
    code: 'not_ready',
    retryable: true,
  });
  await waitFor(
    async () => (await fetch(`${agent.http}/v2/health/ready`)).status === 200,
    30_000,
    () => `not ready:\n${agent.log()}`,
  );
  expect(asDecision(await controller.ask(predictFrame(2, SLOT, FEATURES))).action).toBe('model');
  expect(asDecision(await controller.ask(predictFrame(3, 'slow', countingInput(1)))).action).toBe('model');
});

test('an agent that ends while it vets leaves no process behind for longer than vetting may take', async () => {
  const directory = temporaryDirectory();
  const endless = writeEndlessBundle(join(directory, 'endless'));
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    const agent = await startAgent({ slots: { endless }, until: 'live', config: { vetting: { deadlineMillis: 1000 } } });
    await waitFor(
      () => childrenOf(agent.process.pid!).length > 0,
      10_000,
      () => 'nothing is vetted',
    );
    const children = childrenOf(agent.process.pid!);
    await delay(300);
    const { code } = await agent.stop(signal);
    expect(code).toBe(signal === 'SIGTERM' ? 0 : null);
    await waitFor(
      () => children.every((child) => !existsSync(`/proc/${child}`)),
      8000,
      () => `${signal}: processes ${children.join(', ')} still run`,
    );
  }
});

test('nothing is written outside the data directory, by the agent or by what it starts', async () => {
  const directory = temporaryDirectory();
  const home = join(directory, 'home');
  const temporary = join(directory, 'tmp');
  for (const folder of [home, temporary]) mkdirSync(folder);
  const before = telemetryFiles();
  const counting = writeCountingBundle(join(directory, 'counting'), 'prediction');
  const agent = await startAgent({ slots: { ...SLOTS, counting }, environment: { HOME: home, TMPDIR: temporary } });
  const controller = await openController(agent.port);
  expect(asDecision(await controller.ask(predictFrame(1, SLOT, FEATURES))).action).toBe('model');
  expect(asDecision(await controller.ask(predictFrame(2, 'counting', countingInput(5)))).action).toBe('model');
  expect(readdirSync(home)).toEqual([]);
  expect(readdirSync(temporary).filter((name) => !name.startsWith('setpoint-'))).toEqual([]);
  await agent.stop();
  expect(readdirSync(temporary)).toEqual([]);
  const own = ['audit', 'bundles', 'estimators.json', 'journal', 'keys', 'slots.json', 'store'];
  expect(readdirSync(agent.dataDir).filter((name) => !own.includes(name))).toEqual([]);
  expect(telemetryFiles()).toEqual(before);
});

/** Where ONNX Runtime keeps its telemetry: these files appear with the first session when it is not disabled. */
function telemetryFiles(): string[] {
  const cache = join(homedir(), '.cache', 'Microsoft');
  const folders = ['/tmp', process.cwd()];
  return [
    ...(existsSync(cache) ? readdirSync(cache) : []),
    ...folders.flatMap((folder) => readdirSync(folder).filter((name) => name.startsWith('mat-debug-'))),
  ];
}

function childrenOf(processId: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((name) => {
      try {
        const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
        return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === processId;
      } catch {
        return false;
      }
    })
    .map(Number);
}
