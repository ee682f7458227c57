import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SetpointClient } from '../../protocol/client.ts';
import type { Answer } from '../../protocol/client-types.ts';
import type { WireTensor } from '../../protocol/datatype.ts';
import type { DecisionFrame } from '../../protocol/frames.ts';
import type { BundleSpec } from '../../protocol/manifest.ts';
import { FLOAT, model, value } from '../agent/bundles/tiny-onnx.ts';
import { type RunningAgent, startAgent, waitFor } from '../support/agent.ts';
import { createCaseBundle, createTestBundle, goldenOf, type OnnxCase, onnxCases, sharedDirectory } from '../support/bundles.ts';
import { inferBinary, inferJson, type OipReply, readinessOf } from '../support/oip-client.ts';
import { hasShared } from '../support/shared.ts';
import { differences, elementsOf, numbersOf, rowOf, tensorOf } from '../support/wire.ts';

/** 39 bundles at about half a second each to make and as long to vet, on a machine that may be three times as slow. */
const PATIENCE_MILLIS = 240_000;

const vm = onnxCases('vm');
const cases = [...vm, ...onnxCases('onnx-backend').filter((one) => one.ort130_status === 'ok')];
const directory = sharedDirectory();

/** Cases with a type that only one of them has, or with inputs of several types: what another lane could lose. */
const HEAVY_CASES = [
  'phm16_mixed_float_string_int64',
  'phm16_avm_multi_output',
  'phm16_mlp_external_data',
  'test_cast_FLOAT_to_FLOAT16',
  'test_string_split_basic',
  'test_isnan',
  'test_loop11',
  'test_dynamicquantizelinear',
];

/** Slots of kind 'tensors' are named by their case alone. */
const guardedSlot = (one: OnnxCase): string => `guarded/${one.case}`;
const bundleOf = (slot: string): string => join(directory, 'bundles', slot);

function predictionSpec(one: OnnxCase): Partial<BundleSpec> {
  const output = one.outputs[0]?.name ?? '';
  return { kind: 'prediction', roles: { prediction: { output } }, fallback: { estimator: 'none', baselineValue: -1 } };
}

/** What an agent answered to one case through each door. */
interface Answers {
  readonly webSocket: Answer;
  readonly json: OipReply;
  readonly binary: OipReply;
}

/** And to each row of a guarded one. */
interface GuardedAnswers {
  readonly rows: readonly Answer[];
  readonly json: OipReply;
}

/** An agent with these slots and time enough that no load of the machine turns an answer into the fallback. */
async function agentWith(slots: readonly string[], config: Readonly<Record<string, unknown>>): Promise<RunningAgent> {
  const agent = await startAgent({
    slots: Object.fromEntries(slots.map((slot) => [slot, bundleOf(slot)])),
    config: { defaultDeadlineMicros: 20_000_000, ...config },
    until: 'live',
  });
  await waitFor(
    async () => {
      const readiness = await readinessOf(agent.http);
      const refused = readiness.slots.filter((slot) => slot.state === 'refused');
      if (refused.length > 0) throw new Error(refused.map((slot) => `${slot.slot}: ${slot.reason}`).join('\n'));
      return readiness.status === 200;
    },
    PATIENCE_MILLIS,
    agent.log,
  );
  return agent;
}

async function connect(agent: RunningAgent): Promise<SetpointClient> {
  const client = new SetpointClient({ url: agent.url });
  onTestFinished(() => client.close());
  expect(await client.connect(10_000)).toBe(true);
  return client;
}

async function askEveryDoor(agent: RunningAgent, asked: readonly OnnxCase[]): Promise<Map<string, Answers>> {
  const client = await connect(agent);
  const answers = new Map<string, Answers>();
  for (const one of asked) {
    const { inputs } = goldenOf(one);
    const request = { http: agent.http, model: one.case, inputs };
    const webSocket = await client.predict(one.case, inputs, { outputs: [] });
    answers.set(one.case, { webSocket, json: await inferJson(request), binary: await inferBinary(request) });
  }
  return answers;
}

/** Every row as a request of its own, all at once: they meet in the agent's batches. */
async function askRows(agent: RunningAgent): Promise<Map<string, GuardedAnswers>> {
  const client = await connect(agent);
  const answers = new Map<string, GuardedAnswers>();
  for (const one of vm) {
    const { inputs } = goldenOf(one);
    const slot = guardedSlot(one);
    const rows = await Promise.all(rowInputs(inputs).map((row) => client.predict(slot, row)));
    answers.set(one.case, { rows, json: await inferJson({ http: agent.http, model: slot, inputs }) });
  }
  return answers;
}

/** Each row as the vector of a model's only input, or as its named tensors. */
function rowInputs(inputs: readonly WireTensor[]): (Float32Array | Float64Array | WireTensor[])[] {
  const [first, ...others] = inputs;
  return Array.from({ length: first?.shape[0] ?? 0 }, (_, row) => {
    const tensors = inputs.map((tensor) => rowOf(tensor, row));
    if (first === undefined || others.length > 0) return tensors;
    const vector = numbersOf(tensors[0]);
    return first.datatype === 'FP64' ? Float64Array.from(vector) : Float32Array.from(vector);
  });
}

/** Starts in whichever test asks first, and only once: the agent ends with that test, its answers stay. */
function once<Value>(make: () => Promise<Value>): () => Promise<Value> {
  let made: Promise<Value> | null = null;
  return () => (made ??= make());
}

const fromOneAgent = once(async () => {
  const agent = await agentWith([...cases.map((one) => one.case), ...vm.map(guardedSlot)], { inlineBudgetMicros: 100_000 });
  const { slots } = await readinessOf(agent.http);
  return { slots, every: await askEveryDoor(agent, cases), guarded: await askRows(agent) };
});

const heavyCases = cases.filter((one) => HEAVY_CASES.includes(one.case));

const fromHeavyLane = once(async () => {
  const agent = await agentWith(
    heavyCases.map((one) => one.case),
    { inlineBudgetMicros: 1 },
  );
  const { slots } = await readinessOf(agent.http);
  return { slots, every: await askEveryDoor(agent, heavyCases) };
});

function decisionOf(answer: Answer | undefined): DecisionFrame {
  if (answer?.source !== 'agent') throw new Error(`the agent gave no decision: ${answer?.error.message}`);
  return answer.decision;
}

/** JSON has no half floats, and no NaN. */
function jsonObstacle(one: OnnxCase): 'output' | 'input' | null {
  const { inputs, outputs } = goldenOf(one);
  if (outputs.some((tensor) => tensor.datatype === 'FP16')) return 'output';
  const isOdd = (tensor: WireTensor): boolean =>
    elementsOf(tensor).some((element) => typeof element === 'number' && !Number.isFinite(element));
  return inputs.some(isOdd) ? 'input' : null;
}

const jsonCases = cases.filter((one) => jsonObstacle(one) === null);

beforeAll(async () => {
  for (const one of cases) await createCaseBundle(one, bundleOf(one.case));
  for (const one of vm) await createCaseBundle(one, bundleOf(guardedSlot(one)), predictionSpec(one));
}, PATIENCE_MILLIS);

describe.skipIf(!hasShared)('one agent with a slot for every ONNX case', { timeout: PATIENCE_MILLIS }, () => {
  test('has all 8 virtual-metrology models and all 23 supported backend cases', () => {
    expect([vm.length, cases.length - vm.length]).toEqual([8, 23]);
    const types = new Set(cases.flatMap(({ inputs, outputs }) => [...inputs, ...outputs]).map(({ type }) => type));
    expect(types).toEqual(new Set(['BOOL', 'DOUBLE', 'FLOAT', 'FLOAT16', 'INT64', 'STRING', 'UINT8']));
  });

  test('runs only those off its own threads whose time a value decides', async () => {
    const { slots } = await fromOneAgent();
    expect(slots).toHaveLength(cases.length + vm.length);
    expect(slots.filter(({ state }) => state !== 'ready')).toEqual([]);
    const heavy = slots.filter(({ lane }) => lane === 'heavy').map(({ slot }) => slot);
    expect(heavy.toSorted((left, right) => left.localeCompare(right))).toEqual(['test_loop11', 'test_scan9_sum']);
  });

  test.each(cases)('$case gives its golden outputs over WebSocket', async (one) => {
    const decision = decisionOf((await fromOneAgent()).every.get(one.case)?.webSocket);
    expect(differences(decision.outputs ?? [], goldenOf(one).outputs, one)).toEqual([]);
    expect(decision).toMatchObject({ action: 'model', reasons: 0, value: null, correction: null });
  });

  test.each(jsonCases)('$case gives its golden outputs over HTTP as JSON', async (one) => {
    const reply = (await fromOneAgent()).every.get(one.case)?.json;
    expect(reply).toMatchObject({ status: 200, error: null });
    expect(differences(reply?.outputs ?? [], goldenOf(one).outputs, one)).toEqual([]);
  });

  test.each(cases)('$case gives its golden outputs over HTTP as binary data', async (one) => {
    const reply = (await fromOneAgent()).every.get(one.case)?.binary;
    expect(reply).toMatchObject({ status: 200, error: null });
    expect(differences(reply?.outputs ?? [], goldenOf(one).outputs, one)).toEqual([]);
  });

  test('refuses in JSON exactly what JSON cannot carry, and says what to do', async () => {
    const { every } = await fromOneAgent();
    const obstacles = cases.map((one) => [one.case, jsonObstacle(one)]).filter(([, obstacle]) => obstacle !== null);
    expect(obstacles).toEqual([
      ['test_cast_FLOAT_to_FLOAT16', 'output'],
      ['test_isnan', 'input'],
    ]);
    expect(every.get('test_cast_FLOAT_to_FLOAT16')?.json).toMatchObject({ status: 400, outputs: [] });
    expect(every.get('test_cast_FLOAT_to_FLOAT16')?.json.error).toMatch(/JSON has no FP16.*binary_data/);
    expect(every.get('test_isnan')?.json).toMatchObject({ status: 400, outputs: [] });
    expect(every.get('test_isnan')?.json.error).toMatch(/element \d+ is no FP32: value found is null/);
  });

  test.each(vm)('$case as a guarded prediction answers every row with its golden value', async (one) => {
    const answers = (await fromOneAgent()).guarded.get(one.case)?.rows ?? [];
    const [wanted] = goldenOf(one).outputs;
    const decisions = answers.map(decisionOf);
    const { name, datatype, shape } = wanted!;
    const values = decisions.map((decision) => decision.value ?? Number.NaN);
    expect(differences([tensorOf(name, datatype, shape, values)], [wanted!], one)).toEqual([]);
    const altered = decisions.filter(
      (decision) => decision.action !== 'model' || decision.reasons !== 0 || decision.rawValue !== decision.value,
    );
    expect(altered).toEqual([]);
    expect(decisions.length).toBeGreaterThanOrEqual(12);
  });

  test.each(vm)('$case as a guarded prediction takes all its rows in one HTTP request', async (one) => {
    const reply = (await fromOneAgent()).guarded.get(one.case)?.json;
    const { outputs } = goldenOf(one);
    const rows = outputs[0]?.shape[0] ?? 0;
    expect(reply).toMatchObject({
      status: 200,
      parameters: { setpoint_action: Array(rows).fill('model').join(), setpoint_reasons: ','.repeat(rows - 1) },
    });
    expect(differences(reply?.outputs ?? [], outputs, one)).toEqual([]);
  });
});

describe.skipIf(!hasShared)('a model over the inline budget', { timeout: PATIENCE_MILLIS }, () => {
  test('runs on the heavy lane', async () => {
    const { slots } = await fromHeavyLane();
    expect(slots.map(({ slot, lane }) => [slot, lane])).toEqual(heavyCases.map((one) => [one.case, 'heavy']));
    expect(slots).toHaveLength(HEAVY_CASES.length);
  });

  test.each(heavyCases)('$case gives its golden outputs from there through both doors', async (one) => {
    const answers = (await fromHeavyLane()).every.get(one.case);
    const { outputs } = goldenOf(one);
    expect(differences(decisionOf(answers?.webSocket).outputs ?? [], outputs, one)).toEqual([]);
    expect(differences(answers?.binary.outputs ?? [], outputs, one)).toEqual([]);
  });
});

describe('a guarded model of a whole trace', { timeout: PATIENCE_MILLIS }, () => {
  test('takes its samples as one substrate over HTTP, since its first axis is not free to count rows', async () => {
    const file = join(directory, 'mean.onnx');
    writeFileSync(
      file,
      model({
        nodes: [{ op: 'ReduceMean', inputs: ['x'], outputs: ['y'] }],
        inputs: [value(11, 'x', FLOAT, [4, 3])],
        outputs: [value(12, 'y', FLOAT, [1, 1])],
      }),
    );
    const spec = {
      kind: 'prediction',
      roles: { prediction: { output: 'y' } },
      fallback: { estimator: 'none', baselineValue: -1 },
    } as const;
    await createTestBundle({ model: file, golden: null, folder: bundleOf('trace'), spec });
    const agent = await agentWith(['trace'], {});
    const inputs = [tensorOf('x', 'FP32', [4, 3], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])];
    const decision = decisionOf(await (await connect(agent)).predict('trace', inputs));
    expect([decision.action, decision.value]).toEqual(['model', 6.5]);
    const reply = await inferJson({ http: agent.http, model: 'trace', inputs });
    expect(reply).toMatchObject({ status: 200, parameters: { setpoint_action: 'model', setpoint_value: 6.5 } });
    expect(differences(reply.outputs, [tensorOf('y', 'FP32', [1, 1], [6.5])], { rtol: 0, atol: 0 })).toEqual([]);
  });
});
