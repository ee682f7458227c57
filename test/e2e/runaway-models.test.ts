import { execFileSync } from 'node:child_process';
import { renameSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FRAME_KINDS, type PredictFrame, reasonNames, type ServerFrame } from '../../protocol/frames.ts';
import { type RunningAgent, startAgent, temporaryDirectory, waitFor } from '../support/agent.ts';
import { openOnEveryThread } from '../support/load.ts';
import {
  COUNTING_BASELINE,
  countingInput,
  goldenFeatures,
  growingInput,
  shippedBundle,
  writeCountingBundle,
  writeEndlessBundle,
  writeGrowingBundle,
  writeHugeBundle,
} from '../support/models.ts';
import { asDecision, delay, openController, predictFrame, startWitness } from '../support/raw-socket.ts';

/** A model that hangs or grows without end is stopped, and costs its own slot only. */

const BUNDLE = shippedBundle('cd-scanner-b-product-x');
const SLOT = 'cd/scanner-b/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const FOR_EVER = 2n ** 62n;
const DEADLINE_MICROS = 300_000;
/** Beyond the deadline: what a machine that is busy with other things may take. */
const ALLOWANCE_MILLIS = 5000;

interface SlotState {
  readonly slot: string;
  readonly state: string;
  readonly reason: string | null;
  readonly version: string | null;
  readonly lane: string | null;
}

async function stateOf(agent: RunningAgent, slot: string): Promise<SlotState> {
  const { detail } = (await (await fetch(`${agent.http}/v2/health/ready`)).json()) as { detail: { slots: SlotState[] } };
  return detail.slots.find((one) => one.slot === slot) ?? { slot, state: 'unknown', reason: null, version: null, lane: null };
}

async function waitForState(agent: RunningAgent, slot: string, state: string): Promise<SlotState> {
  await waitFor(
    async () => (await stateOf(agent, slot)).state === state,
    30_000,
    () => `slot ${slot} is not ${state}:\n${agent.log()}`,
  );
  return await stateOf(agent, slot);
}

function counting(slot: string, requestId: number, trips: number | bigint, more: Partial<PredictFrame> = {}): PredictFrame {
  return predictFrame(requestId, slot, countingInput(trips), { outputs: [], ...more });
}

/** Command lines of all processes below an agent. */
function processesBelow(processId: number): string[] {
  const rows = execFileSync('ps', ['-eo', 'pid=,ppid=,args='], { encoding: 'utf8' })
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(.*)$/.exec(line))
    .filter((row) => row !== null);
  const below = (parent: string): string[] => rows.filter((row) => row[2] === parent).flatMap((row) => [row[3]!, ...below(row[1]!)]);
  // The store process is always there, and runs no model.
  return below(String(processId)).filter((command) => !command.includes('store-process.ts'));
}

test('a model that never returns, or takes all memory, is refused by vetting while others are served', async () => {
  const directory = temporaryDirectory();
  const agent = await startAgent({
    slots: {
      [SLOT]: BUNDLE,
      endless: writeEndlessBundle(join(directory, 'endless')),
      huge: writeHugeBundle(join(directory, 'huge'), 3e9),
    },
    config: { vetting: { deadlineMillis: 1500, memoryLimitMebibytes: 400 } },
    until: 'live',
  });
  await waitForState(agent, SLOT, 'ready');
  const witness = await startWitness(agent.port, SLOT, FEATURES);
  const endless = await waitForState(agent, 'endless', 'refused');
  expect(endless.reason).toMatch(/did not end within the deadline of 1500 ms/);
  const huge = await waitForState(agent, 'huge', 'refused');
  expect(huge.reason).toMatch(/more (than the memory limit|memory than is allowed)/);
  const controller = await openController(agent.port);
  for (const slot of ['endless', 'huge']) {
    expect(await controller.ask(predictFrame(controller.nextId(), slot, Float32Array.of(1)))).toMatchObject({
      kind: FRAME_KINDS.error,
      code: 'not_ready',
      retryable: true,
    });
  }
  expect(processesBelow(agent.process.pid!)).toEqual([]);
  const { answers, failures } = await witness.stop();
  expect(failures).toEqual([]);
  expect(answers).toBeGreaterThan(50);
});

describe('a model whose input says how long it takes', () => {
  test('answers from the heavy lane with the correct outputs, also when it is slow', async () => {
    const directory = temporaryDirectory();
    const agent = await startAgent({
      slots: {
        [SLOT]: BUNDLE,
        guarded: writeCountingBundle(join(directory, 'guarded'), 'prediction'),
        tensors: writeCountingBundle(join(directory, 'tensors'), 'tensors'),
      },
      config: { heavy: { queueLength: 4 }, threads: 2 },
    });
    expect((await stateOf(agent, 'guarded')).lane).toBe('heavy');
    expect((await stateOf(agent, SLOT)).lane).toBe('inline');
    const controller = await openController(agent.port);
    // Ready means ready: the first heavy request already gets the model.
    const first = asDecision(await controller.ask(counting('guarded', 1, 10)));
    expect(first).toMatchObject({ action: 'model', value: 12, reasons: 0 });
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    for (const trips of [0, 1, 1000, 100_000]) {
      const guarded = asDecision(await controller.ask(counting('guarded', controller.nextId() + 10, trips)));
      expect(guarded).toMatchObject({ action: 'model', value: 2 + trips });
      const tensors = asDecision(await controller.ask(counting('tensors', controller.nextId() + 10, trips)));
      const [output] = tensors.outputs!;
      expect(new Float32Array(Uint8Array.from(output!.bytes).buffer)).toEqual(Float32Array.of(2 + trips));
    }
    // Of each serving thread one request runs, or is the next to run, and four wait; the rest finds no room.
    const onThreads = await openOnEveryThread(agent.port, 2, SLOT, FEATURES);
    const bursts = onThreads.map(async (socket) => {
      const burst = Array.from({ length: 10 }, (_, at) => socket.ask(counting(at < 8 ? 'guarded' : 'tensors', 100 + at, 100_000)));
      const answers = await Promise.all(burst);
      const [fallback, model] = ['fallback', 'model'].map((action) =>
        answers.slice(0, 8).filter((frame) => frame.kind === FRAME_KINDS.decision && frame.action === action),
      );
      expect(model).toHaveLength(5);
      expect(fallback).toHaveLength(3);
      for (const frame of fallback!) {
        expect(reasonNames(asDecision(frame).reasons)).toContain('overload');
        expect(asDecision(frame).value).toBe(COUNTING_BASELINE);
      }
      for (const frame of answers.slice(8)) expect(frame).toMatchObject({ kind: FRAME_KINDS.error, code: 'overloaded', retryable: true });
    });
    await Promise.all(bursts);
    const { failures } = await witness.stop();
    expect(failures).toEqual([]);
  });

  test('that hangs is answered for by the deadline, suspended, and comes back when it is loaded again', { timeout: 60_000 }, async () => {
    const directory = temporaryDirectory();
    const hung = join(directory, 'hung');
    symlinkSync(writeCountingBundle(join(directory, 'hung-1'), 'prediction'), hung);
    const agent = await startAgent({
      slots: { [SLOT]: BUNDLE, hung, neighbour: writeCountingBundle(join(directory, 'neighbour'), 'tensors') },
      config: { heavy: { hangMillis: 1000 }, bundlePollMillis: 100 },
    });
    const controller = await openController(agent.port);
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    /** Requests of the other heavy slot behind the run that hangs. */
    let waiting: Promise<ServerFrame>[] = [];
    expect(asDecision(await controller.ask(counting('hung', 1, 5))).value).toBe(7);

    await expectFallbackByDeadline();
    await expectSuspended();
    await expectNeighbour();
    const loaded = await fetch(`${agent.http}/v2/repository/models/hung/load`, { method: 'POST', body: '{}' });
    expect(loaded.status).toBe(200);
    await expectServed('1');

    // A new bundle at the path ends the suspension as well.
    await expectFallbackByDeadline();
    await expectSuspended();
    await expectNeighbour();
    symlinkSync(writeCountingBundle(join(directory, 'hung-2'), 'prediction', '2'), `${hung}.new`);
    renameSync(`${hung}.new`, hung);
    await waitForState(agent, 'hung', 'ready');
    await expectServed('2');
    const { failures, answers } = await witness.stop();
    expect(failures).toEqual([]);
    expect(answers).toBeGreaterThan(100);

    async function expectFallbackByDeadline(): Promise<void> {
      const started = performance.now();
      const answer = controller.ask(counting('hung', 2, FOR_EVER, { deadlineMicros: DEADLINE_MICROS }));
      waiting = [6, 7, 8, 9].map((requestId) => controller.ask(counting('neighbour', requestId, 5)));
      const late = asDecision(await answer);
      expect(performance.now() - started).toBeLessThan(DEADLINE_MICROS / 1000 + ALLOWANCE_MILLIS);
      expect(late.action).toBe('fallback');
      expect(reasonNames(late.reasons)).toContain('deadline');
      expect(late.value).toBe(COUNTING_BASELINE);
    }

    async function expectSuspended(): Promise<void> {
      const { reason } = await waitForState(agent, 'hung', 'suspended');
      expect(reason).toMatch(/longer than 1000 ms/);
      expect((await fetch(`${agent.http}/v2/health/ready`)).status).toBe(503);
      const fallback = asDecision(await controller.ask(counting('hung', 3, 1)));
      expect(fallback.action).toBe('fallback');
      expect(reasonNames(fallback.reasons)).toContain('model_failed');
    }

    /** The heavy process is started again: the other heavy slot answers soon, and until then says that it may be tried again. */
    async function expectNeighbour(): Promise<void> {
      for (const frame of await Promise.all(waiting)) expect(frame).toMatchObject({ code: 'not_ready', retryable: true });
      expect((await stateOf(agent, 'neighbour')).state).toBe('ready');
      await waitFor(
        async () => {
          const frame = await controller.ask(counting('neighbour', 4, 5));
          if (frame.kind === FRAME_KINDS.error) expect(frame).toMatchObject({ code: 'not_ready', retryable: true });
          return frame.kind === FRAME_KINDS.decision;
        },
        20_000,
        () => `the neighbour does not answer:\n${agent.log()}`,
      );
    }

    async function expectServed(version: string): Promise<void> {
      expect((await waitForState(agent, 'hung', 'ready')).reason).toBeNull();
      expect((await fetch(`${agent.http}/v2/health/ready`)).status).toBe(200);
      expect(asDecision(await controller.ask(counting('hung', 5, 5)))).toMatchObject({ action: 'model', value: 7, version });
    }
  });

  test('that has no fallback gives an error, or a decision without outputs, by the deadline', async () => {
    const directory = temporaryDirectory();
    const agent = await startAgent({
      slots: { [SLOT]: BUNDLE, tensors: writeCountingBundle(join(directory, 'tensors'), 'tensors') },
      // Long after the deadline: the answer must not wait for the end of the process.
      config: { heavy: { hangMillis: 3000 } },
    });
    const controller = await openController(agent.port);
    const started = performance.now();
    const overHttp = fetch(`${agent.http}/v2/models/tensors/infer`, {
      method: 'POST',
      body: JSON.stringify({
        inputs: [
          { name: 'trips', datatype: 'INT64', shape: [], data: [Number(2n ** 52n)] },
          { name: 'x', datatype: 'FP32', shape: [1], data: [1] },
        ],
        parameters: { timeout: DEADLINE_MICROS },
      }),
    });
    const late = asDecision(await controller.ask(counting('tensors', 1, FOR_EVER, { deadlineMicros: DEADLINE_MICROS })));
    expect(late).toMatchObject({ action: 'fallback', value: null, outputs: null });
    expect(reasonNames(late.reasons)).toContain('deadline');
    expect((await overHttp).status).toBe(503);
    expect((await stateOf(agent, 'tensors')).state).toBe('ready');
    expect(performance.now() - started).toBeLessThan(DEADLINE_MICROS / 1000 + ALLOWANCE_MILLIS);
    await waitForState(agent, 'tensors', 'suspended');
    expect(await controller.ask(counting('tensors', 2, 1))).toMatchObject({ kind: FRAME_KINDS.error, code: 'not_ready' });
  });
});

test('a model whose input makes it take all memory is killed and suspended while others are served', async () => {
  const directory = temporaryDirectory();
  const agent = await startAgent({
    slots: { [SLOT]: BUNDLE, growing: writeGrowingBundle(join(directory, 'growing')) },
    config: { heavy: { memoryLimitMebibytes: 512 } },
  });
  const controller = await openController(agent.port);
  const small = asDecision(await controller.ask(predictFrame(1, 'growing', growingInput(3), { outputs: [] })));
  expect(small.outputs![0]!.shape).toEqual([3]);
  const witness = await startWitness(agent.port, SLOT, FEATURES);
  // 2 GB.
  const large = await controller.ask(predictFrame(2, 'growing', growingInput(5e8), { outputs: [], deadlineMicros: 20_000_000 }));
  expect(large.kind).toBe(FRAME_KINDS.error);
  const { reason } = await waitForState(agent, 'growing', 'suspended');
  expect(reason).toMatch(/bytes/);
  await delay(100);
  const { failures, answers } = await witness.stop();
  expect(failures).toEqual([]);
  expect(answers).toBeGreaterThan(20);
});
