import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SetpointClient } from '../../protocol/client.ts';
import type { Datatype } from '../../protocol/datatype.ts';
import type { Manifest } from '../../protocol/manifest.ts';
import { type RunningAgent, startAgent, waitFor } from '../support/agent.ts';
import { createCaseBundle, goldenOf, modelPath, type OnnxCase, onnxCases, sharedDirectory, writeBundleByHand } from '../support/bundles.ts';
import { inferJson, readinessOf, type SlotReadiness } from '../support/oip-client.ts';
import { hasShared } from '../support/shared.ts';
import { differences, tensorOf } from '../support/wire.ts';

const PATIENCE_MILLIS = 120_000;
const CLI = resolve(import.meta.dirname, '../../agent/setpoint.ts');
const directory = sharedDirectory();

interface Negative {
  readonly name: string;
  /** What a reason must name, to be of use to whoever exported the model. */
  readonly reason: RegExp;
  /** What the model takes and gives, as far as it can be read: the manifest made by hand says the same. */
  readonly declares: { readonly datatype: Datatype; readonly input: readonly [string, number]; readonly output: readonly [string, number] };
}

const declares = (input: string, inputs: number, output: string, datatype: Datatype = 'FP32'): Negative['declares'] => ({
  datatype,
  input: [input, inputs],
  output: [output, 1],
});

const NEGATIVES: readonly Negative[] = [
  { name: 'custom_op_domain', reason: /ai\.onnx\.contrib.*domain that is not allowed/, declares: declares('input', 1, 'output', 'BYTES') },
  { name: 'truncated', reason: /31429 bytes, only 15695 are left/, declares: declares('features', 86, 'removal_rate') },
  { name: 'empty_file', reason: /it has no graph/, declares: declares('features', 86, 'removal_rate') },
  { name: 'external_data_traversal', reason: /"?\.\.\/\.\.\/\.\.\/\.\.\/etc\/hostname/, declares: declares('X', 4, 'Y') },
  { name: 'opset_from_future', reason: /opset.*999/, declares: declares('input', 21, 'variable') },
  { name: 'test_identity_sequence', reason: /sequence/, declares: declares('x', 120, 'y') },
];

/** Every negative case, and the one official case whose kind of values no door carries. */
const cases = [...onnxCases('negative'), ...onnxCases('onnx-backend').filter((one) => one.ort130_status !== 'ok')];
const healthy = onnxCases('vm').find((one) => one.case === 'bosch_etch_ridge_f32');

function caseOf({ name }: Negative): OnnxCase {
  const one = cases.find((candidate) => candidate.case === name);
  if (one === undefined) throw new Error(`../shared/onnx-cases has no case ${name}`);
  return one;
}

/** A bundle with nothing wrong but its model. */
function bundleAround(negative: Negative, folder: string, manifest: Partial<Manifest> = {}): string {
  const { datatype, input, output } = negative.declares;
  const [inputName, inputs] = input;
  const [outputName, outputs] = output;
  const isText = datatype === 'BYTES';
  const shapeOf = (length: number, rows: number): number[] => (isText ? [rows] : [rows, length]);
  const zeros = (length: number): (number | string)[] => Array<number | string>(length).fill(isText ? 'a' : 0);
  return writeBundleByHand(folder, {
    name: negative.name,
    model: readFileSync(modelPath(caseOf(negative))),
    inputs: [{ name: inputName, datatype, shape: shapeOf(inputs, -1) }],
    outputs: [{ name: outputName, datatype, shape: shapeOf(outputs, -1) }],
    golden: {
      inputs: [tensorOf(inputName, datatype, shapeOf(inputs, 1), zeros(inputs))],
      outputs: [tensorOf(outputName, datatype, shapeOf(outputs, 1), zeros(outputs))],
    },
    manifest,
  });
}

function createByCommand(negative: Negative): { code: number | null; signal: string | null; out: string; error: string; folder: string } {
  const folder = join(directory, 'created', negative.name);
  const spec = join(directory, `${negative.name}.yaml`);
  writeFileSync(spec, `name: ${negative.name}\nversion: '1'\nkind: tensors\n`);
  const args = [CLI, 'bundle', 'create', '--model', modelPath(caseOf(negative)), '--spec', spec, '-o', folder];
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: PATIENCE_MILLIS });
  return { code: status, signal, out: stdout, error: stderr, folder };
}

/** A message for an operator: what could not be done, why, and what to do; no stack and no full stop. */
const CLEAR_ERROR = /^error: Cannot [^\n]+[^\n.]\nremedy: [^\n]+\n$/;

describe.skipIf(!hasShared)('setpoint bundle create', { timeout: PATIENCE_MILLIS }, () => {
  test('is tried with every negative case that there is', () => {
    expect(cases.map((one) => one.case).toSorted()).toEqual(NEGATIVES.map(({ name }) => name).toSorted());
  });

  test.each(NEGATIVES)('refuses $name with a clear reason and leaves nothing behind', (negative) => {
    const { code, signal, out, error, folder } = createByCommand(negative);
    expect({ code, signal, out }).toEqual({ code: 1, signal: null, out: '' });
    expect(error).toMatch(CLEAR_ERROR);
    expect(error).toMatch(negative.reason);
    expect(existsSync(folder)).toBe(false);
  });
});

describe.skipIf(!hasShared)('an agent whose slots point to bundles made by hand around such models', { timeout: PATIENCE_MILLIS }, () => {
  const good = join(directory, 'healthy');
  const bad: Record<string, string> = {};

  beforeAll(async () => {
    if (healthy === undefined) throw new Error('../shared/onnx-cases has no case bosch_etch_ridge_f32');
    await createCaseBundle(healthy, good);
    for (const negative of NEGATIVES) bad[negative.name] = bundleAround(negative, join(directory, 'by-hand', negative.name));
  }, PATIENCE_MILLIS);

  /** Healthy slots before and after the bad ones: neither order may matter. */
  async function agentWithBadSlots(): Promise<{ agent: RunningAgent; slots: Map<string, SlotReadiness> }> {
    const config = { defaultDeadlineMicros: 20_000_000, bundlePollMillis: 50 };
    const agent = await startAgent({ slots: { first: good, ...bad, last: good }, config, until: 'live' });
    let slots: readonly SlotReadiness[] = [];
    const isSettled = async (): Promise<boolean> => {
      ({ slots } = await readinessOf(agent.http));
      return slots.length > 0 && slots.every((slot) => slot.state !== 'loading');
    };
    await waitFor(isSettled, PATIENCE_MILLIS, agent.log);
    return { agent, slots: new Map(slots.map((slot) => [slot.slot, slot])) };
  }

  async function expectHealthy(agent: RunningAgent, client: SetpointClient, slot: string): Promise<void> {
    const { inputs, outputs } = goldenOf(healthy!);
    const answer = await client.predict(slot, inputs, { outputs: [] });
    expect(answer.source === 'agent' ? differences(answer.decision.outputs ?? [], outputs, healthy!) : answer).toEqual([]);
    expect((await inferJson({ http: agent.http, model: slot, inputs })).status).toBe(200);
    expect([agent.process.exitCode, agent.process.signalCode]).toEqual([null, null]);
  }

  test('refuses each of them for its own reason, lives, and goes on answering from its other slots', async () => {
    const { agent, slots } = await agentWithBadSlots();
    for (const { name, reason } of NEGATIVES) {
      expect(slots.get(name)).toMatchObject({ state: 'refused', lane: null, reason: expect.stringMatching(reason) });
      expect(slots.get(name)?.reason).toMatch(/^Cannot [^\n]+[^\n.]$/);
    }
    expect([slots.get('first')?.state, slots.get('last')?.state]).toEqual(['ready', 'ready']);
    expect((await readinessOf(agent.http)).status).toBe(503);

    const client = new SetpointClient({ url: agent.url });
    onTestFinished(() => client.close());
    expect(await client.connect(10_000)).toBe(true);
    expect(client.slots.map(({ slot }) => slot)).toEqual(['first', 'last']);
    for (const {
      name,
      declares: { datatype, input },
    } of NEGATIVES) {
      const tensor = tensorOf(input[0], datatype, datatype === 'BYTES' ? [1] : [1, input[1]], Array<number>(input[1]).fill(0));
      const answer = await client.predict(name, [tensor], { outputs: [], localFallback: { value: 7 } });
      expect(answer).toMatchObject({ source: 'local', cause: 'refused', value: 7, error: { code: 'not_ready' } });
      expect((await fetch(`${agent.http}/v2/models/${name}/ready`)).status).toBe(503);
      await expectHealthy(agent, client, 'first');
    }
    await expectHealthy(agent, client, 'last');
    expect(await agent.stop()).toEqual({ code: 0, signal: null });
  });

  test('says over HTTP that a slot without a bundle is not ready, and may be later', async () => {
    const { agent } = await agentWithBadSlots();
    const tensor = tensorOf('features', 'FP32', [1, 86], Array<number>(86).fill(0));
    const reply = await inferJson({ http: agent.http, model: 'truncated', inputs: [tensor] });
    expect(reply).toMatchObject({ status: 503, outputs: [] });
    expect(reply.error).toContain('no active bundle');
  });

  test('refuses a manifest that lists the file outside the bundle, before it reads any model', async () => {
    const traversal = NEGATIVES.find(({ name }) => name === 'external_data_traversal')!;
    const model = { path: 'model.onnx', externalData: ['../../../../etc/hostname'] };
    bundleAround(traversal, join(directory, 'by-hand', 'listed-traversal'), { model });
    const config = { defaultDeadlineMicros: 20_000_000 };
    const slots = { listed: join(directory, 'by-hand', 'listed-traversal'), last: good };
    const agent = await startAgent({ slots, config, until: 'live' });
    await waitFor(async () => (await readinessOf(agent.http)).slots.some(({ state }) => state === 'ready'), PATIENCE_MILLIS, agent.log);
    const [listed] = (await readinessOf(agent.http)).slots;
    expect(listed).toMatchObject({
      slot: 'listed',
      state: 'refused',
      reason: expect.stringContaining('model.externalData.0: must be a relative path'),
    });
  });
});
