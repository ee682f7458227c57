import { assert } from '../../protocol/errors.ts';
import type { Context } from '../../protocol/frames.ts';
import { Random } from './random.ts';
import type { Hidden, HiddenName } from './sensors.ts';
import type { ToolSpec } from './tools.ts';

/** Something that goes wrong from run `fromRun` of the tool on, for `runs` runs. */
export type Fault = { readonly fromRun: number; readonly runs: number } & (
  | { readonly kind: 'drift'; readonly perRun: number }
  | { readonly kind: 'step'; readonly size: number }
  | { readonly kind: 'variance'; readonly factor: number }
  | { readonly kind: 'sensor-nan'; readonly sensor: number }
  | { readonly kind: 'sensor-stuck'; readonly sensor: number; readonly reading: number }
);

export interface Measurement {
  readonly context: Context;
  readonly measurementId: string;
  readonly value: number;
  /** The setting this wafer was processed with. */
  readonly appliedInput: number;
}

export interface Run {
  /** Counts the tool's runs over all modules, from 0. */
  readonly sequence: number;
  readonly context: Context;
  readonly moduleIndex: number;
  readonly setting: number;
  readonly features: Float32Array;
  /** What a perfect metrology tool would measure; nobody in the fab knows it. */
  readonly trueValue: number;
  /** What metrology would say if it measured this wafer. */
  readonly measuredValue: number;
  /** Whether the module was maintained just before this run. */
  readonly maintained: boolean;
  /** Metrology that arrives with this run, oldest first; all of it from earlier runs. */
  readonly measurements: readonly Measurement[];
}

export interface ProcessOptions {
  readonly seed: number;
  /** Starts every lot id, so that two campaigns never name the same wafer. */
  readonly lotPrefix?: string;
  /** One wafer of this many is measured. */
  readonly metrologyEvery?: number;
  /** Runs of the tool between a measured wafer and its result. */
  readonly metrologyDelayRuns?: number;
  readonly faults?: readonly Fault[];
  /** Runs of the first module since its maintenance, at the start. */
  readonly runsSinceMaintenance?: number;
}

interface Module {
  runs: number;
  runsSinceMaintenance: number;
  thermal: number;
  shift: number;
}

const WAFERS_PER_LOT = 25;
/** Correlation of the thermal state from run to run: half of it is left after 23 runs. */
const THERMAL_MEMORY = 0.97;
/** Most results waiting for their delay; a delay of 1,000 runs with every wafer measured fits. */
const MAX_PENDING = 1024;
/** Standard deviation of a uniform law of width 1. */
const UNIFORM_DEVIATION = Math.sqrt(1 / 12);

/**
 * A tool with its modules (chambers, chucks, platens), each with its own wear, thermal state and maintenance history:
 *
 *   y = target + gain (u - baseline) + c v + i v1 v3 + t s + drift w + shift + module + e
 *
 * the run-to-run benchmark of Khan, Moyne and Tilbury (y = A u + C v + d k + e) with an interaction, a slow thermal state
 * s, and a maintenance that resets w and redraws the shift. README.md gives the numbers. Deterministic: a seed and
 * the settings given decide everything, and a fault changes nothing but what it names.
 */
export class FabTool {
  readonly spec: ToolSpec;
  readonly #process: Random;
  readonly #sensing: Random;
  readonly #metrology: Random;
  readonly #modules: Module[];
  readonly #options: Required<Pick<ProcessOptions, 'lotPrefix' | 'metrologyEvery' | 'metrologyDelayRuns'>>;
  readonly #faults: Fault[];
  readonly #pending: { readonly dueRun: number; readonly measurement: Measurement }[] = [];
  #sequence = 0;

  constructor(spec: ToolSpec, options: ProcessOptions) {
    const { seed, lotPrefix = 'L', metrologyEvery = 5, metrologyDelayRuns = 20, faults = [], runsSinceMaintenance = 0 } = options;
    assert(metrologyDelayRuns / metrologyEvery < MAX_PENDING, 'metrology delay fits the pending results');
    this.spec = spec;
    this.#process = new Random(seed, 0);
    this.#sensing = new Random(seed, 1);
    this.#metrology = new Random(seed, 2);
    this.#options = { lotPrefix, metrologyEvery, metrologyDelayRuns };
    this.#faults = [...faults];
    this.#modules = spec.modules.map((_, index) => ({
      runs: 0,
      // Maintenances of a tool's modules are spread evenly over the cycle, as a fab plans them.
      runsSinceMaintenance:
        (runsSinceMaintenance + Math.floor((spec.runsBetweenMaintenance * index) / spec.modules.length)) % spec.runsBetweenMaintenance,
      thermal: this.#process.normal(),
      shift: this.#process.normal(0, spec.maintenanceShift),
    }));
  }

  /** The module that processes the next wafer: wafers go round the modules. */
  get nextModuleIndex(): number {
    return this.#sequence % this.#modules.length;
  }

  get nextSequence(): number {
    return this.#sequence;
  }

  /** Adds a fault; those that ended are forgotten. */
  inject(fault: Fault): void {
    for (let index = this.#faults.length - 1; index >= 0; index--) {
      const old = this.#faults[index];
      if (old !== undefined && old.fromRun + old.runs <= this.#sequence) this.#faults.splice(index, 1);
    }
    this.#faults.push(fault);
  }

  /** Processes one wafer with `setting`, in the setting unit. */
  run(setting: number, processEndMillis: number): Run {
    assert(Number.isFinite(setting), 'a setting is a finite number');
    const sequence = this.#sequence++;
    const moduleIndex = sequence % this.#modules.length;
    const module = this.#modules[moduleIndex];
    assert(module, 'a tool has modules');
    const maintained = this.#age(module);
    const faults = this.#faults.filter((fault) => sequence >= fault.fromRun && sequence < fault.fromRun + fault.runs);
    const hidden = this.#hidden(module, setting);
    const noise = this.#process.normal(0, this.spec.processNoise);
    const trueValue = this.#value(module, moduleIndex, hidden, noise, sequence, faults);
    const measuredValue = trueValue + this.#metrology.normal(0, this.spec.metrologyNoise);
    const context = this.#context(sequence, moduleIndex, module.runs, processEndMillis);
    const measurements = this.#deliver(sequence, context, measuredValue, setting);
    const features = this.#sense(hidden, faults);
    return { sequence, context, moduleIndex, setting, features, trueValue, measuredValue, maintained, measurements };
  }

  /** Maintains the module when its cycle is over, then wears it by one run. */
  #age(module: Module): boolean {
    const maintained = module.runsSinceMaintenance >= this.spec.runsBetweenMaintenance;
    const shift = this.#process.normal(0, this.spec.maintenanceShift);
    if (maintained) {
      module.runsSinceMaintenance = 0;
      module.shift = shift;
    }
    module.runs++;
    module.runsSinceMaintenance++;
    module.thermal = THERMAL_MEMORY * module.thermal + Math.sqrt(1 - THERMAL_MEMORY ** 2) * this.#process.normal();
    return maintained;
  }

  /** The disturbances v1, v3, v5, v6 of the benchmark, standardised; v2 = 2 v1 and v4 = 3 v3 are redundant sensors. */
  #hidden(module: Module, setting: number): Hidden {
    const random = this.#process;
    return {
      flow: (random.normal(1, 0.2) - 1) / 0.2,
      pressure: (random.between(0.2, 1.2) - 0.7) / UNIFORM_DEVIATION,
      temperature: (random.between(0, 0.4) - 0.2) / (0.4 * UNIFORM_DEVIATION),
      power: (random.normal(-0.6, 0.2) + 0.6) / 0.2,
      wear: (module.runsSinceMaintenance / this.spec.runsBetweenMaintenance - 0.5) / UNIFORM_DEVIATION,
      thermal: module.thermal,
      offset: module.shift / this.spec.maintenanceShift,
      setting: setting - this.spec.baseline,
    };
  }

  #value(module: Module, moduleIndex: number, hidden: Hidden, noise: number, sequence: number, faults: readonly Fault[]): number {
    const { spec } = this;
    const { effects } = spec;
    let value = spec.target + spec.gain * hidden.setting + (spec.moduleOffsets[moduleIndex] ?? 0) + module.shift;
    value += effects.flow * hidden.flow + effects.pressure * hidden.pressure;
    value += effects.temperature * hidden.temperature + effects.power * hidden.power;
    value += spec.interaction * hidden.flow * hidden.pressure + spec.thermalEffect * hidden.thermal;
    value += spec.driftPerRun * module.runsSinceMaintenance;
    let scale = 1;
    for (const fault of faults) {
      if (fault.kind === 'step') value += fault.size;
      if (fault.kind === 'drift') value += fault.perRun * (sequence - fault.fromRun + 1);
      if (fault.kind === 'variance') scale *= Math.sqrt(fault.factor);
    }
    return value + noise * scale;
  }

  #sense(hidden: Hidden, faults: readonly Fault[]): Float32Array {
    const features = new Float32Array(this.spec.sensors.length);
    for (const [index, sensor] of this.spec.sensors.entries()) {
      let sum = sensor.noise * this.#sensing.normal();
      for (const [name, load] of Object.entries(sensor.loads)) sum += load * hidden[name as HiddenName];
      features[index] = sensor.nominal + sensor.spread * sum;
    }
    for (const fault of faults) {
      if (fault.kind === 'sensor-nan') features[fault.sensor] = Number.NaN;
      if (fault.kind === 'sensor-stuck') features[fault.sensor] = fault.reading;
    }
    return features;
  }

  #context(sequence: number, moduleIndex: number, moduleRuns: number, processEndMillis: number): Context {
    const { spec } = this;
    const lot = Math.floor(sequence / WAFERS_PER_LOT) + 1;
    const place = String((sequence % WAFERS_PER_LOT) + 1).padStart(2, '0');
    const lotId = `${this.#options.lotPrefix}${String(lot).padStart(5, '0')}`;
    return {
      substrateId: `${lotId}.${place}`,
      lotId,
      carrierId: `FOUP-${String(lot % 1000).padStart(3, '0')}`,
      slotId: place,
      equipmentId: spec.equipmentId,
      moduleId: spec.modules[moduleIndex] ?? null,
      recipeId: spec.recipeId,
      stepId: spec.stepId,
      processJobId: `PJ-${lotId}`,
      controlJobId: `CJ-${lotId}`,
      product: spec.product,
      runNumber: moduleRuns,
      processEndMillis,
    };
  }

  #deliver(sequence: number, context: Context, value: number, appliedInput: number): Measurement[] {
    const { metrologyEvery, metrologyDelayRuns } = this.#options;
    if (sequence % metrologyEvery === 0) {
      const measurementId = `${context.substrateId}/${this.spec.parameter}`;
      this.#pending.push({ dueRun: sequence + metrologyDelayRuns, measurement: { context, measurementId, value, appliedInput } });
    }
    const due: Measurement[] = [];
    while (this.#pending[0] !== undefined && this.#pending[0].dueRun <= sequence) {
      const arrived = this.#pending.shift();
      if (arrived !== undefined) due.push(arrived.measurement);
    }
    return due;
  }
}
