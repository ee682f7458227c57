import { describe, expect, test } from 'vitest';
import { type ControllerClient, ToolLine } from '../../../bench/fab/line.ts';
import { AlertLog } from '../../../bench/fab/statistics.ts';
import { TOOLS, type ToolSpec } from '../../../bench/fab/tools.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { REASONS, type DecisionFrame } from '../../../protocol/frames.ts';

const polisher = TOOLS.find((spec) => spec.equipmentId === 'CMP-1')!;
const scanner = TOOLS.find((spec) => spec.equipmentId === 'SCANNER-A')!;

type Answer = Awaited<ReturnType<ControllerClient['predict']>>;
type Observation = Parameters<ControllerClient['observe']>[1];
type PredictOptions = NonNullable<Parameters<ControllerClient['predict']>[2]>;

interface Asked {
  readonly slot: string;
  readonly features: Float32Array;
  readonly options: PredictOptions;
}

/** A client that remembers what it was asked and answers what `answer` says. */
class FakeClient implements ControllerClient {
  readonly asked: Asked[] = [];
  readonly observed: { readonly slot: string; readonly observation: Observation }[] = [];
  readonly #answer: (asked: Asked, index: number) => Answer;
  isRecording = true;

  constructor(answer: (asked: Asked, index: number) => Answer) {
    this.#answer = answer;
  }

  predict: ControllerClient['predict'] = (slot, input, options) => {
    const asked = { slot, features: input as Float32Array, options: options ?? {} };
    this.asked.push(asked);
    return Promise.resolve(this.#answer(asked, this.asked.length - 1));
  };

  observe: ControllerClient['observe'] = (slot, observation) => {
    this.observed.push({ slot, observation });
    if (!this.isRecording)
      return Promise.resolve({ recorded: false, cause: 'timeout', error: new SetpointError('not_ready', 'no answer') });
    const observed = { kind: 6, requestId: 1, sequence: 1, stream: 0, outcome: 'applied', estimate: null } as const;
    return Promise.resolve({ recorded: true, outcome: 'applied', estimate: null, observed });
  };
}

function agentAnswer(value: number | null, correction: number | null, reasons = 0): Answer {
  const action = reasons === 0 ? 'model' : 'fallback';
  const decision = { action, reasons, value, correction } as DecisionFrame;
  return { source: 'agent', value, correction, action, decision };
}

function lineOf(spec: ToolSpec, client: ControllerClient, seed = 1) {
  const alerts = new AlertLog();
  let micros = 0;
  const clock = { wallMillis: () => 5000, micros: () => (micros += 100) };
  return { line: new ToolLine({ spec, seed, lotPrefix: 'T-', client, clock, alerts, startedMillis: 0 }), alerts };
}

async function steps(line: ToolLine, count: number): Promise<void> {
  for (let step = 0; step < count; step++) await line.step();
}

describe('ToolLine', () => {
  test('applies a correction to the next wafer of the same module', async () => {
    const client = new FakeClient((_, index) => agentAnswer(null, 60 + index));
    const { line } = lineOf(polisher, client);
    await steps(line, 5);
    expect(client.asked.map((asked) => asked.options.lastApplied)).toEqual([60, 60, 60, 61, 62]);
    expect(client.asked[4]!.features[0]).toBeCloseTo(62, 1);
    expect(line.settings).toEqual([64, 63]);
  });

  test('sends measurements once they arrive, with the setting of the wafer they belong to', async () => {
    const client = new FakeClient((_, index) => agentAnswer(null, 60 + index / 10));
    const { line } = lineOf(polisher, client);
    await steps(line, 31);
    expect(client.observed.map(({ observation }) => observation.context.substrateId)).toEqual(['T-00001.01', 'T-00001.06', 'T-00001.11']);
    expect(client.observed[1]!.observation).toMatchObject({ parameter: 'THICKNESS', unit: 'nm', measuredAtMillis: 5000 });
    expect(client.observed[1]!.observation.appliedInput).toBe(client.asked[5]!.options.lastApplied);
    expect(line.statistics.observations).toBe(3);
  });

  test('sends a measurement again that was not recorded, and gives up the oldest of more than 32', async () => {
    const client = new FakeClient(() => agentAnswer(null, 60));
    client.isRecording = false;
    const { line, alerts } = lineOf(polisher, client);
    await steps(line, 26);
    const ids = () => client.observed.splice(0).map(({ observation }) => observation.context.substrateId);
    expect(ids()).toEqual(['T-00001.01', 'T-00001.01', 'T-00001.06']);
    expect(alerts.list()[0]).toMatchObject({ text: 'CMP-1 measurement not recorded: timeout', times: 3 });
    client.isRecording = true;
    await steps(line, 5);
    expect(ids()).toEqual(['T-00001.01', 'T-00001.06', 'T-00001.11']);
    await steps(line, 5);
    expect(ids()).toEqual(['T-00001.16']);
    client.isRecording = false;
    await steps(line, 34 * 5);
    expect(line.statistics.observationsLost).toBe(2);
  });

  test('keeps a predicted slot on target by its own EWMA, and holds the setting on a fallback', async () => {
    const offTarget = new FakeClient(() => agentAnswer(46, null));
    const { line } = lineOf(scanner, offTarget);
    await steps(line, 2);
    // 1 nm above the target, a weight of 0.1, a gain of -0.9 nm per mJ/cm2.
    expect(line.settings[0]).toBeCloseTo(28 + 0.1 / 0.9, 9);
    const { line: holding } = lineOf(scanner, new FakeClient(() => agentAnswer(46, null, REASONS.deadline)));
    await steps(holding, 2);
    expect(holding.settings).toEqual([28, 28]);
  });

  test('keeps the setting in force and says so when there is no agent', async () => {
    const error = new SetpointError('not_ready', 'Cannot ask the agent: no connection to it');
    const client = new FakeClient(({ options }) => ({
      source: 'local',
      value: options.localFallback?.value ?? null,
      correction: options.localFallback?.correction ?? null,
      cause: 'disconnected',
      error,
    }));
    const { line, alerts } = lineOf(polisher, client);
    await steps(line, 4);
    expect(line.settings).toEqual([60, 60]);
    expect(line.statistics.actions).toEqual({ model: 0, clamped: 0, fallback: 0, local: 4 });
    expect(alerts.list()).toEqual([{ atMillis: 5000, text: 'CMP-1 local fallback: disconnected', times: 4 }]);
  });
});

describe('what a person sees of a ToolLine', () => {
  test('alerts with the reasons of a decision and its place', async () => {
    const client = new FakeClient(() => agentAnswer(null, 60, REASONS.input_not_finite | REASONS.fallback_missing));
    const { line, alerts } = lineOf(polisher, client);
    await steps(line, 1);
    expect(alerts.list()[0]!.text).toBe('CMP-1/PLATEN-1 fallback: input_not_finite, fallback_missing');
  });

  test('has hostile moments: NaN, stuck sensors, steps and maintenances within some thousand wafers', async () => {
    const client = new FakeClient(() => agentAnswer(null, 60));
    const { line } = lineOf(polisher, client);
    const stuck = new Set<number>();
    await steps(line, 6000);
    for (const { features } of client.asked) {
      for (const [index, sensor] of polisher.sensors.entries()) {
        if (Math.abs(features[index]! - sensor.nominal) > 8 * sensor.spread) stuck.add(index);
      }
    }
    const broken = client.asked.filter(({ features }) => features.some(Number.isNaN)).length;
    expect(broken).toBeGreaterThan(5);
    expect(broken).toBeLessThan(40);
    expect(stuck.size).toBeGreaterThan(0);
    expect(line.statistics.maintenances).toBeGreaterThanOrEqual(9);
  });

  test('times a round trip on the clock it is given', async () => {
    const { line } = lineOf(polisher, new FakeClient(() => agentAnswer(null, 60)));
    await steps(line, 3);
    expect(line.statistics.recent(5000)).toMatchObject({ count: 3, p50Micros: 100 });
  });
});
