import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { SetpointClient } from '../../protocol/client.ts';
import type { Answer } from '../../protocol/client-types.ts';
import { type Context, type DecisionFrame, reasonNames } from '../../protocol/frames.ts';
import type { BundleSpec } from '../../protocol/manifest.ts';
import { type RunningAgent, startAgent } from '../support/agent.ts';
import { createCaseBundle, goldenOf, type OnnxCase, onnxCases, sharedDirectory } from '../support/bundles.ts';
import { inferJson } from '../support/oip-client.ts';
import { hasShared, sharedJson, sharedPath } from '../support/shared.ts';
import { numbersOf, rowOf } from '../support/wire.ts';

const PATIENCE_MILLIS = 120_000;
const directory = sharedDirectory();
const vm = onnxCases('vm');

function caseNamed(name: string): OnnxCase {
  const one = vm.find((candidate) => candidate.case === name);
  if (one === undefined) throw new Error(`../shared/onnx-cases has no case ${name}`);
  return one;
}

/** No load of the machine shall turn an answer into the fallback. */
async function agentWith(slots: readonly string[]): Promise<{ agent: RunningAgent; client: SetpointClient }> {
  const agent = await startAgent({
    slots: Object.fromEntries(slots.map((slot) => [slot, join(directory, slot)])),
    config: { defaultDeadlineMicros: 20_000_000 },
  });
  const client = new SetpointClient({ url: agent.url });
  onTestFinished(() => client.close());
  expect(await client.connect(10_000)).toBe(true);
  return { agent, client };
}

function decisionOf(answer: Answer): DecisionFrame {
  if (answer.source !== 'agent') throw new Error(`the agent gave no decision: ${answer.error.message}`);
  return answer.decision;
}

interface EtchedWafer {
  readonly features: readonly number[];
  readonly depth: number;
  readonly published: number;
  readonly context: Partial<Context>;
}

/** The published table; its columns are found by the names that the published model gives its four features. */
function etchedWafers(): EtchedWafer[] {
  const model = sharedJson('data/bosch-etch-vm/vm_model.json') as { readonly features: readonly string[] };
  const [header = '', ...lines] = readFileSync(sharedPath('data/bosch-etch-vm/vm_verify.csv'), 'utf8').trim().split('\n');
  const columns = header.trim().split(',');
  return lines.map((line, run) => {
    const cells = line.trim().split(',');
    const cell = (column: string): string => cells[columns.indexOf(column)] ?? '';
    return {
      features: model.features.map((feature) => Number(cell(feature))),
      depth: Number(cell('depth')),
      published: Number(cell('pred_full')),
      context: { substrateId: cell('gn'), lotId: cell('lot'), slotId: cell('wafer'), equipmentId: 'etcher-1', runNumber: run },
    };
  });
}

const etchSpec: Partial<BundleSpec> = {
  kind: 'prediction',
  roles: { prediction: { output: 'removal_rate', unit: 'um' } },
  fallback: { estimator: 'ewma', lambda: 0.3, baselineValue: 44 },
};

describe.skipIf(!hasShared)('the 88 etched wafers of the Bosch data set', { timeout: PATIENCE_MILLIS }, () => {
  beforeAll(async () => {
    for (const name of ['bosch_etch_ridge_f32', 'bosch_etch_ridge_f64']) {
      await createCaseBundle(caseNamed(name), join(directory, name), etchSpec);
    }
  }, PATIENCE_MILLIS);

  test('get the published predictions when they are replayed in time order, each measured before the next', async () => {
    const { client } = await agentWith(['bosch_etch_ridge_f32', 'bosch_etch_ridge_f64']);
    const wafers = etchedWafers();
    expect([wafers.length, new Set(wafers.map(({ context }) => context.lotId)).size]).toEqual([88, 10]);
    const errors = { f32: 0, f64: 0 };
    const sequences: number[] = [];
    const measuredAtMillis = Date.now() - wafers.length;
    for (const [run, { features, depth, published, context }] of wafers.entries()) {
      const single = decisionOf(await client.predict('bosch_etch_ridge_f32', Float32Array.from(features), { context }));
      const double = decisionOf(await client.predict('bosch_etch_ridge_f64', Float64Array.from(features), { context }));
      expect([single.action, single.reasons, double.action, double.reasons]).toEqual(['model', 0, 'model', 0]);
      errors.f32 = Math.max(errors.f32, Math.abs((single.value ?? Number.NaN) - published));
      errors.f64 = Math.max(errors.f64, Math.abs((double.value ?? Number.NaN) - published));
      const measured = {
        measurementId: `depth-${run}`,
        parameter: 'depth',
        value: depth,
        unit: 'um',
        measuredAtMillis: measuredAtMillis + run,
      };
      const observed = await client.observe('bosch_etch_ridge_f64', { ...measured, context });
      expect(observed).toMatchObject({ recorded: true, outcome: 'applied' });
      sequences.push(single.sequence, double.sequence);
    }
    expect(errors.f32).toBeLessThan(1e-4);
    expect(errors.f64).toBeLessThan(2e-6);
    expect(sequences).toEqual(sequences.toSorted((left, right) => left - right));
    expect(new Set(sequences).size).toBe(2 * wafers.length);
  });

  test('get the same predictions from vectors of the other float type, rounded once', async () => {
    const { client } = await agentWith(['bosch_etch_ridge_f32', 'bosch_etch_ridge_f64']);
    const answers = etchedWafers().map(async ({ features }) => {
      const rounded = Float32Array.from(features);
      const asked = [
        client.predict('bosch_etch_ridge_f32', rounded),
        client.predict('bosch_etch_ridge_f32', Float64Array.from(features)),
        client.predict('bosch_etch_ridge_f64', rounded),
        client.predict('bosch_etch_ridge_f64', Float64Array.from(rounded)),
      ];
      return (await Promise.all(asked)).map((answer) => decisionOf(answer).value);
    });
    for (const [own, widened, narrowed, exact] of await Promise.all(answers)) {
      expect([widened, narrowed]).toEqual([own, exact]);
    }
  });
});

interface AvmFacts {
  readonly y_mean: number;
  readonly y_std: number;
  readonly E_L: number;
  readonly RI_T: number;
  readonly RI_per_row: readonly number[];
  readonly GSI_T_3x90pct_trimmed_mean: number;
}

const AVM = 'phm16_avm_multi_output';
const BASELINE_VALUE = 70;
const LAMBDA = 0.5;
const CHAMBER: Partial<Context> = { equipmentId: 'cmp-1', moduleId: 'chamber-2', product: 'P', recipeId: 'R', stepId: 'S' };

const avmFacts = (): AvmFacts => (sharedJson('onnx-cases/vm', AVM, 'case.json') as { readonly avm: AvmFacts }).avm;

function avmSpec(): Partial<BundleSpec> {
  const { y_mean, y_std, E_L, GSI_T_3x90pct_trimmed_mean: gsiThreshold } = avmFacts();
  return {
    kind: 'prediction',
    roles: { prediction: { output: 'y_conjecture', unit: 'nm/min' }, reference: { output: 'y_reference' }, gsi: { output: 'gsi' } },
    guard: { reliance: { trainingMean: y_mean, trainingStandardDeviation: y_std, maximalErrorFraction: E_L }, gsiThreshold },
    fallback: { estimator: 'ewma', lambda: LAMBDA, baselineValue: BASELINE_VALUE },
  };
}

/** The golden rows of the AVM graph, with the indices that its author computed. */
function polishedWafers() {
  const { inputs, outputs } = goldenOf(caseNamed(AVM));
  const column = (name: string): number[] => numbersOf(outputs.find((tensor) => tensor.name === name));
  const [conjectures, gsi] = [column('y_conjecture'), column('gsi')];
  return avmFacts().RI_per_row.map((ri, row) => ({
    input: rowOf(inputs[0]!, row),
    vector: Float32Array.from(numbersOf(rowOf(inputs[0]!, row))),
    conjecture: conjectures[row] ?? Number.NaN,
    gsi: gsi[row] ?? Number.NaN,
    ri,
  }));
}

describe.skipIf(!hasShared)('a slot guarded by automatic virtual metrology', { timeout: PATIENCE_MILLIS }, () => {
  beforeAll(async () => {
    await createCaseBundle(caseNamed(AVM), join(directory, AVM), avmSpec());
  }, PATIENCE_MILLIS);

  test('gives each of 16 polished wafers its RI and GSI, and judges them by the thresholds of the training', async () => {
    const { client } = await agentWith([AVM]);
    const { RI_T, GSI_T_3x90pct_trimmed_mean: gsiThreshold } = avmFacts();
    const wafers = polishedWafers();
    for (const { vector, conjecture, gsi, ri } of wafers) {
      const decision = decisionOf(await client.predict(AVM, vector));
      expect(Math.abs((decision.ri ?? Number.NaN) - ri)).toBeLessThan(1e-3);
      expect(Math.abs((decision.gsi ?? Number.NaN) - gsi)).toBeLessThan(0.01 + 1e-3 * gsi);
      expect([decision.riThreshold, decision.gsiThreshold]).toEqual([expect.closeTo(RI_T, 9), gsiThreshold]);
      expect(Math.abs((decision.rawValue ?? Number.NaN) - conjecture)).toBeLessThan(0.01 + 1e-3 * Math.abs(conjecture));
      const reasons = [...(ri < RI_T ? ['reliance_low'] : []), ...(gsi > gsiThreshold ? ['similarity_low'] : [])];
      const isTrusted = reasons.length === 0;
      expect(decision.action).toBe(isTrusted ? 'model' : 'fallback');
      expect(reasonNames(decision.reasons)).toEqual(isTrusted ? [] : [...reasons, 'fallback_missing']);
      expect(decision.value).toBe(isTrusted ? decision.rawValue : BASELINE_VALUE);
    }
    expect(wafers.filter(({ ri, gsi }) => ri >= RI_T && gsi <= gsiThreshold).length).toBeGreaterThanOrEqual(10);
  });

  test('trusts neither index of the wafer with the corrupt trace', async () => {
    const { client } = await agentWith([AVM]);
    const decision = decisionOf(await client.predict(AVM, polishedWafers().at(-1)!.vector));
    expect(decision.ri).toBeLessThan(1e-6);
    expect(decision.gsi).toBeGreaterThan(1000 * (decision.gsiThreshold ?? Infinity));
    expect([decision.action, reasonNames(decision.reasons)]).toEqual(['fallback', ['reliance_low', 'similarity_low', 'fallback_missing']]);
  });

  test('answers for an untrusted wafer with the EWMA of what was measured in the same chamber', async () => {
    const { client } = await agentWith([AVM]);
    const untrusted = polishedWafers().at(-1)!.vector;
    const measured = [72.5, 74.25, 71, 73.5];
    let expected = measured[0] ?? Number.NaN;
    const startMillis = Date.now() - 60_000;
    for (const [run, value] of measured.entries()) {
      if (run > 0) expected += LAMBDA * (value - expected);
      const observed = await client.observe(AVM, {
        context: { ...CHAMBER, substrateId: `W${run}`, runNumber: run, processEndMillis: startMillis + run },
        measurementId: `M${run}`,
        parameter: 'removal rate',
        value,
        measuredAtMillis: startMillis + run,
      });
      expect(observed).toMatchObject({ recorded: true, outcome: 'applied', estimate: expect.closeTo(expected, 9) });
    }
    const context = { ...CHAMBER, substrateId: 'W9', runNumber: measured.length };
    const decision = decisionOf(await client.predict(AVM, untrusted, { context }));
    expect([decision.action, reasonNames(decision.reasons)]).toEqual(['fallback', ['reliance_low', 'similarity_low']]);
    expect(decision.value).toBeCloseTo(expected, 9);
    expect(Math.abs((decision.rawValue ?? Number.NaN) - expected)).toBeGreaterThan(1);

    const elsewhere = { ...context, moduleId: 'chamber-3' };
    const stranger = decisionOf(await client.predict(AVM, untrusted, { context: elsewhere }));
    expect([stranger.value, reasonNames(stranger.reasons)]).toEqual([
      BASELINE_VALUE,
      ['reliance_low', 'similarity_low', 'fallback_missing'],
    ]);
    const trusted = decisionOf(await client.predict(AVM, polishedWafers()[0]!.vector, { context }));
    expect([trusted.action, trusted.value]).toEqual(['model', trusted.rawValue]);
  });

  test('puts the guarded value in the place of the prediction over HTTP, and says so', async () => {
    const { agent } = await agentWith([AVM]);
    const { inputs, outputs } = goldenOf(caseNamed(AVM));
    const reply = await inferJson({ http: agent.http, model: AVM, inputs });
    const { RI_T, GSI_T_3x90pct_trimmed_mean: gsiThreshold } = avmFacts();
    const wafers = polishedWafers();
    const isTrusted = wafers.map(({ ri, gsi }) => ri >= RI_T && gsi <= gsiThreshold);
    expect(reply.status).toBe(200);
    expect(reply.parameters['setpoint_action']).toBe(isTrusted.map((trusted) => (trusted ? 'model' : 'fallback')).join(','));
    expect(String(reply.parameters['setpoint_reasons']).split(',').at(-1)).toBe('reliance_low+similarity_low+fallback_missing');

    const values = numbersOf(reply.outputs.find((tensor) => tensor.name === 'y_conjecture'));
    expect(values).toEqual(wafers.map(({ conjecture }, row) => (isTrusted[row] ? expect.closeTo(conjecture, 2) : BASELINE_VALUE)));
    for (const { name } of outputs.filter((tensor) => tensor.name !== 'y_conjecture')) {
      const wanted = numbersOf(outputs.find((tensor) => tensor.name === name));
      const got = numbersOf(reply.outputs.find((tensor) => tensor.name === name));
      expect(got.findIndex((value, at) => !(Math.abs(value - wanted[at]!) <= 0.01 + 1e-3 * Math.abs(wanted[at]!)))).toBe(-1);
      expect(got).toHaveLength(wanted.length);
    }
  });

  test('gives the numbers of a single wafer as parameters over HTTP', async () => {
    const { agent } = await agentWith([AVM]);
    const wafer = polishedWafers().at(-1)!;
    const parameters = { setpoint_substrateId: 'W1', setpoint_moduleId: 'chamber-9' };
    const reply = await inferJson({ http: agent.http, model: AVM, inputs: [wafer.input], parameters });
    expect(reply).toMatchObject({
      status: 200,
      parameters: {
        setpoint_action: 'fallback',
        setpoint_reasons: 'reliance_low+similarity_low+fallback_missing',
        setpoint_value: BASELINE_VALUE,
        setpoint_ri: expect.closeTo(wafer.ri, 9),
        setpoint_bundle: expect.stringMatching(/^[0-9a-f]{64}$/),
        setpoint_stream: 0,
      },
    });
    expect(Number(reply.parameters['setpoint_gsi'])).toBeGreaterThan(1000 * avmFacts().GSI_T_3x90pct_trimmed_mean);
    expect(numbersOf(reply.outputs.find((tensor) => tensor.name === 'y_conjecture'))).toEqual([BASELINE_VALUE]);
  });
});
