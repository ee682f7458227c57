import type { SetpointClient } from '../../protocol/client.ts';
import { reasonNames, type DecisionFrame } from '../../protocol/frames.ts';
import { FabTool, type Fault, type Measurement, type Run } from './process.ts';
import { Random } from './random.ts';
import { type AlertLog, LineStatistics } from './statistics.ts';
import type { ToolSpec } from './tools.ts';

/** The two calls of the client that a controller makes. */
export type ControllerClient = Pick<SetpointClient, 'predict' | 'observe'>;

/** Time as the controller reads it: the wall clock, and a monotonic clock in microseconds. */
export interface Clock {
  readonly wallMillis: () => number;
  readonly micros: () => number;
}

export interface LineOptions {
  readonly spec: ToolSpec;
  readonly seed: number;
  readonly lotPrefix: string;
  readonly client: ControllerClient;
  readonly clock: Clock;
  readonly alerts: AlertLog;
  readonly startedMillis: number;
}

/** What an answer is worth after this long: the wafer is already in front of the next step. */
const DEADLINE_MICROS = 20_000;
/** Weight of the controller's own EWMA on virtual metrology: a third of metrology's, since it comes with every wafer. */
const VIRTUAL_LAMBDA = 0.1;

/** Measurements kept to send again: those of 160 wafers, two lots of each module and more. Beyond it the oldest are lost. */
const MAX_UNRECORDED = 32;

/** Chance per run that a fault begins. At 75 runs a second: a NaN every 5 s, the others every 30 to 60 s. */
const CHANCES = { nan: 1 / 400, stuck: 1 / 2500, step: 1 / 4000 } as const;
const STUCK_RUNS = 5;
const STEP_RUNS = 400;
/** How many spreads off a stuck sensor reads: inside its range, where only the similarity index sees it, or outside. */
const STUCK_SPREADS = [10, 40] as const;
/** A step fault in standard deviations of the process noise. */
const STEP_DEVIATIONS = 6;

/**
 * One tool and its controller: processes a wafer, asks the agent, applies what it answers to the next wafer of that module,
 * and passes on the metrology that arrives. A slot that only predicts feeds the controller's own EWMA, which
 * keeps the tool on target with virtual metrology.
 */
export class ToolLine {
  readonly spec: ToolSpec;
  readonly statistics = new LineStatistics();
  /** The setting of each module for its next wafer. */
  readonly settings: number[];
  readonly #tool: FabTool;
  readonly #mischief: Random;
  readonly #options: LineOptions;
  readonly #intercepts: number[];
  #unrecorded: readonly Measurement[] = [];

  constructor(options: LineOptions) {
    const { spec, seed, lotPrefix } = options;
    this.spec = spec;
    this.#options = options;
    this.#mischief = new Random(seed, 7);
    // Tools that run side by side are not maintained at the same moment.
    const runsSinceMaintenance = Math.floor(this.#mischief.uniform() * spec.runsBetweenMaintenance);
    this.#tool = new FabTool(spec, { seed, lotPrefix, runsSinceMaintenance });
    this.settings = spec.modules.map(() => spec.baseline);
    this.#intercepts = spec.modules.map(() => spec.target - spec.nominalGain * spec.baseline);
  }

  /** One wafer, from processing to the setting of the next. */
  async step(): Promise<void> {
    const { client, clock } = this.#options;
    const { spec, statistics } = this;
    this.#makeMischief();
    const setting = this.settings[this.#tool.nextModuleIndex] ?? spec.baseline;
    const run = this.#tool.run(setting, clock.wallMillis());
    statistics.processed(run.trueValue - spec.target);
    if (run.maintained) {
      statistics.maintenances++;
      this.#alert(`${this.#place(run)} maintenance: wear reset, process shifted`);
    }
    const sentMicros = clock.micros();
    const answer = await client.predict(spec.slot, run.features, {
      context: run.context,
      deadlineMicros: DEADLINE_MICROS,
      lastApplied: setting,
      // Without an agent the tool keeps the recipe setting that is in force.
      localFallback: { value: spec.target, correction: setting },
    });
    const action = answer.source === 'agent' ? answer.action : 'local';
    statistics.answered(action, clock.micros() - sentMicros, clock.wallMillis());
    if (answer.source === 'local') this.#alert(`${spec.equipmentId} local fallback: ${localReason(answer)}`);
    else if (answer.decision.reasons !== 0) this.#alertReasons(run, answer.decision);
    if (answer.correction !== null) this.settings[run.moduleIndex] = answer.correction;
    else if (answer.source === 'agent' && answer.action === 'model' && answer.value !== null) this.#adjust(run, answer.value);
    if (run.measurements.length > 0) await this.#report(run.measurements);
  }

  /** The controller's own run-to-run law, a = lambda (y - b u) + (1 - lambda) a, u = (target - a) / b, inside the window. */
  #adjust(run: Run, value: number): void {
    const { target, nominalGain, window } = this.spec;
    const before = this.#intercepts[run.moduleIndex] ?? 0;
    const intercept = before + VIRTUAL_LAMBDA * (value - nominalGain * run.setting - before);
    this.#intercepts[run.moduleIndex] = intercept;
    this.settings[run.moduleIndex] = Math.min(window[1], Math.max(window[0], (target - intercept) / nominalGain));
  }

  /** Sends new metrology and what could not be recorded before: a repeated measurement changes nothing at the agent. */
  async #report(arrived: readonly Measurement[]): Promise<void> {
    const measurements = [...this.#unrecorded, ...arrived];
    const recorded = await Promise.all(measurements.map((measurement) => this.#observe(measurement)));
    const unrecorded = measurements.filter((_, index) => recorded[index] === false);
    this.statistics.observationsLost += Math.max(0, unrecorded.length - MAX_UNRECORDED);
    this.#unrecorded = unrecorded.slice(-MAX_UNRECORDED);
  }

  async #observe(measurement: Measurement): Promise<boolean> {
    const { client, clock } = this.#options;
    const { spec, statistics } = this;
    const answer = await client.observe(spec.slot, {
      context: measurement.context,
      measurementId: measurement.measurementId,
      parameter: spec.parameter,
      value: measurement.value,
      unit: spec.valueUnit,
      appliedInput: measurement.appliedInput,
      measuredAtMillis: clock.wallMillis(),
    });
    if (answer.recorded) {
      statistics.observations++;
      return true;
    }
    this.#alert(`${spec.equipmentId} measurement not recorded: ${localReason(answer)}`);
    return false;
  }

  #makeMischief(): void {
    const dice = this.#mischief.uniform();
    const sensor = Math.floor(this.#mischief.uniform() * this.spec.sensors.length);
    const fromRun = this.#tool.nextSequence;
    const fault = this.#chooseFault(dice, sensor, fromRun);
    if (fault !== null) this.#tool.inject(fault);
  }

  #chooseFault(dice: number, sensor: number, fromRun: number): Fault | null {
    const { nan, stuck, step } = CHANCES;
    const { sensors, processNoise, equipmentId } = this.spec;
    if (dice < nan) return { kind: 'sensor-nan', fromRun, runs: 1, sensor };
    if (dice < nan + stuck) {
      const spec = sensors[sensor];
      const reading = (spec?.nominal ?? 0) + STUCK_SPREADS[fromRun % 2 === 0 ? 0 : 1] * (spec?.spread ?? 1);
      return { kind: 'sensor-stuck', fromRun, runs: STUCK_RUNS, sensor, reading };
    }
    if (dice >= nan + stuck + step) return null;
    this.#alert(`${equipmentId} process step that no sensor sees, for ${STEP_RUNS} wafers`);
    return { kind: 'step', fromRun, runs: STEP_RUNS, size: STEP_DEVIATIONS * processNoise };
  }

  #alertReasons(run: Run, decision: DecisionFrame): void {
    this.#alert(`${this.#place(run)} ${decision.action}: ${reasonNames(decision.reasons).join(', ')}`);
  }

  #place(run: Run): string {
    return `${this.spec.equipmentId}/${run.context.moduleId ?? ''}`;
  }

  #alert(text: string): void {
    this.#options.alerts.add(text, this.#options.clock.wallMillis() - this.#options.startedMillis);
  }
}

/** A refusal says what was wrong with the request; the other causes say enough by their name. */
function localReason({ cause, error }: { readonly cause: string; readonly error: Error }): string {
  return cause === 'refused' ? `${cause}: ${error.message}` : cause;
}
