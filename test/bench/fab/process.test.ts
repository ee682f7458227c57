import { describe, expect, test } from 'vitest';
import { FabTool, type Fault, type ProcessOptions, type Run } from '../../../bench/fab/process.ts';
import { TOOLS, type ToolSpec } from '../../../bench/fab/tools.ts';

const polisher = TOOLS.find((spec) => spec.equipmentId === 'CMP-1')!;

/** The polisher without anything random that hides what a test looks at. */
const quiet: ToolSpec = {
  ...polisher,
  effects: { flow: 0, pressure: 0, temperature: 0, power: 0 },
  interaction: 0,
  thermalEffect: 0,
  processNoise: 0,
  metrologyNoise: 0,
};

function play(spec: ToolSpec, count: number, options: Partial<ProcessOptions> = {}, setting = spec.baseline): Run[] {
  const tool = new FabTool(spec, { seed: 1, ...options });
  return Array.from({ length: count }, (_, index) => tool.run(setting, 1000 * index));
}

describe('FabTool', () => {
  test.each(TOOLS)('$slot has 24 named sensors, of which the first reads the setting back', (spec) => {
    expect(new Set(spec.sensors.map((sensor) => sensor.name)).size).toBe(24);
    const [low, high] = [play(spec, 1)[0]!, play(spec, 1, {}, spec.baseline + 1)[0]!];
    expect(high.features[0]! - low.features[0]!).toBeCloseTo(1, 4);
  });

  test('plays the same wafers for the same seed, and others for another', () => {
    expect(play(polisher, 50)).toEqual(play(polisher, 50));
    expect(play(polisher, 5, { seed: 2 })[0]!.trueValue).not.toBe(play(polisher, 5)[0]!.trueValue);
  });

  test('answers a change of setting with its gain', () => {
    const [before, after] = [play(polisher, 10)[9]!, play(polisher, 10, {}, polisher.baseline + 2)[9]!];
    expect(after.trueValue - before.trueValue).toBeCloseTo(2 * polisher.gain, 9);
  });

  test('drifts by its drift per run of a module, between maintenances', () => {
    const runs = play(quiet, 201);
    expect(runs[200]!.trueValue - runs[0]!.trueValue).toBeCloseTo(100 * quiet.driftPerRun, 9);
  });

  test('a maintenance resets the wear of one module, redraws its shift and leaves the other module alone', () => {
    const runs = play(quiet, 2 * quiet.runsBetweenMaintenance + 4);
    const maintained = runs.filter((run) => run.maintained);
    expect(maintained.map((run) => run.moduleIndex)).toEqual([1, 0]);
    const at = maintained[1]!.sequence;
    const [before, after] = [runs[at - 2]!, runs[at]!];
    const wearLost = quiet.driftPerRun * (quiet.runsBetweenMaintenance - 1);
    const shift = after.trueValue - before.trueValue + wearLost;
    expect(Math.abs(shift)).toBeGreaterThan(0.01);
    expect(Math.abs(shift)).toBeLessThan(6 * quiet.maintenanceShift);
    expect(after.features[1]! - before.features[1]!).toBeLessThan(-500);
    expect(runs[at + 1]!.trueValue - runs[at - 1]!.trueValue).toBeCloseTo(quiet.driftPerRun, 9);
  });

  test('can start in the middle of a maintenance cycle', () => {
    const runs = play(quiet, 4, { runsSinceMaintenance: quiet.runsBetweenMaintenance - 1 });
    expect(runs.map((run) => run.maintained)).toEqual([false, false, true, false]);
  });

  test('keeps its modules apart by their offsets', () => {
    const still = { ...quiet, driftPerRun: 0, maintenanceShift: 1e-9 };
    const runs = play(still, 2);
    expect(runs[0]!.trueValue - runs[1]!.trueValue).toBeCloseTo(still.moduleOffsets[0]! - still.moduleOffsets[1]!, 6);
  });

  test('measures one wafer in five and delivers it twenty runs later, with the setting of that wafer', () => {
    const tool = new FabTool(quiet, { seed: 1 });
    const runs = Array.from({ length: 60 }, (_, index) => tool.run(quiet.baseline + index / 100, 1000 * index));
    const delivered = runs.flatMap((run) => run.measurements.map((measurement) => ({ run, measurement })));
    expect(delivered.map(({ run }) => run.sequence)).toEqual([20, 25, 30, 35, 40, 45, 50, 55]);
    for (const { run, measurement } of delivered) {
      const measured = runs[run.sequence - 20]!;
      expect(measurement.context).toEqual(measured.context);
      expect(measurement.value).toBe(measured.trueValue);
      expect(measurement.appliedInput).toBe(measured.setting);
    }
  });

  test('names wafers by lot and place, counts the runs of a module and never names two alike', () => {
    const runs = play(polisher, 60, { lotPrefix: 'A-' });
    expect(runs[0]!.context).toMatchObject({
      substrateId: 'A-00001.01',
      lotId: 'A-00001',
      slotId: '01',
      moduleId: 'PLATEN-1',
      runNumber: 1,
    });
    expect(runs[25]!.context).toMatchObject({ substrateId: 'A-00002.01', moduleId: 'PLATEN-2', runNumber: 13, processEndMillis: 25_000 });
    expect(new Set(runs.map((run) => run.context.substrateId)).size).toBe(60);
  });

  test('refuses a setting that is not a finite number', () => {
    expect(() => new FabTool(polisher, { seed: 1 }).run(Number.NaN, 0)).toThrow('finite');
  });
});

describe('a fault', () => {
  const clean = play(polisher, 40);
  const difference = (fault: Fault) => play(polisher, 40, { faults: [fault] }).map((run, index) => run.trueValue - clean[index]!.trueValue);

  test('step adds its size while it lasts, and nothing else changes', () => {
    const steps = difference({ kind: 'step', fromRun: 10, runs: 5, size: 3 });
    for (const [index, step] of steps.entries()) expect(step).toBeCloseTo(index >= 10 && index < 15 ? 3 : 0, 9);
  });

  test('drift grows with every run of the tool', () => {
    const steps = difference({ kind: 'drift', fromRun: 10, runs: 100, perRun: 0.5 });
    for (const [index, step] of steps.entries()) expect(step).toBeCloseTo(Math.max(0, index - 9) * 0.5, 9);
  });

  test('variance multiplies the variance of the process noise', () => {
    const noisy = play({ ...quiet, processNoise: 1, driftPerRun: 0 }, 2, {
      faults: [{ kind: 'variance', fromRun: 1, runs: 1, factor: 4 }],
    });
    const plain = play({ ...quiet, processNoise: 1, driftPerRun: 0 }, 2);
    const silent = play({ ...quiet, driftPerRun: 0 }, 2);
    expect(noisy[0]!.trueValue).toBe(plain[0]!.trueValue);
    expect(noisy[1]!.trueValue - silent[1]!.trueValue).toBeCloseTo(2 * (plain[1]!.trueValue - silent[1]!.trueValue), 9);
  });

  test('of a sensor shows in that feature only, as NaN or stuck, and not in the wafer', () => {
    const runs = play(polisher, 3, {
      faults: [
        { kind: 'sensor-nan', fromRun: 1, runs: 1, sensor: 4 },
        { kind: 'sensor-stuck', fromRun: 2, runs: 1, sensor: 5, reading: 7 },
      ],
    });
    expect(runs[0]!.features).toEqual(clean[0]!.features);
    expect([...runs[1]!.features.keys()].filter((index) => !Object.is(runs[1]!.features[index], clean[1]!.features[index]))).toEqual([4]);
    expect(runs[1]!.features[4]).toBeNaN();
    expect(runs[2]!.features[5]).toBe(7);
    expect(runs.map((run) => run.trueValue)).toEqual(clean.slice(0, 3).map((run) => run.trueValue));
  });

  test('can be injected while the tool runs', () => {
    const tool = new FabTool(polisher, { seed: 1 });
    tool.run(polisher.baseline, 0);
    tool.inject({ kind: 'step', fromRun: tool.nextSequence, runs: 1, size: 2 });
    expect(tool.run(polisher.baseline, 1000).trueValue - clean[1]!.trueValue).toBeCloseTo(2, 9);
    expect(tool.run(polisher.baseline, 2000).trueValue).toBe(clean[2]!.trueValue);
  });
});
