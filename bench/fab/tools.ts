import { ETCHER_SENSORS, POLISHER_SENSORS, SCANNER_SENSORS, type SensorSpec } from './sensors.ts';

/**
 * One tool running one product: what the fab process, the training and the bundle of its slot need to know.
 * Values are in `valueUnit`, settings in `settingUnit`; "per run" counts runs of one module.
 */
export interface ToolSpec {
  readonly slot: string;
  readonly seed: number;
  readonly equipmentId: string;
  readonly modules: readonly string[];
  /** Fixed difference of each module from the tool, value unit. */
  readonly moduleOffsets: readonly number[];
  readonly product: string;
  readonly recipeId: string;
  readonly stepId: string;
  readonly parameter: string;
  readonly valueUnit: string;
  readonly settingUnit: string;
  readonly target: number;
  /** The recipe setting at which a fresh tool meets the target. */
  readonly baseline: number;
  readonly window: readonly [number, number];
  readonly step: number;
  readonly totalOffset: number;
  /** True process gain beta and the engineer's estimate of it b; xi = beta / b. Value unit per setting unit. */
  readonly gain: number;
  readonly nominalGain: number;
  /** What one standard deviation of each disturbance does to the value, value unit. */
  readonly effects: { readonly flow: number; readonly pressure: number; readonly temperature: number; readonly power: number };
  /** Effect of flow x pressure, which a linear model cannot see, value unit. */
  readonly interaction: number;
  readonly thermalEffect: number;
  readonly driftPerRun: number;
  readonly runsBetweenMaintenance: number;
  /** Standard deviation of the shift that each maintenance leaves, value unit. */
  readonly maintenanceShift: number;
  readonly processNoise: number;
  readonly metrologyNoise: number;
  /** Standard deviation of the settings tried in the training campaign, setting unit. */
  readonly campaignSpread: number;
  readonly sensors: readonly SensorSpec[];
}

/** Wafers between two maintenances of a module: the 600-wafer cycle of Wan and McLoone, IEEE TSM 31(1):12-21, 2018. */
const MAINTENANCE_CYCLE = 600;

const SCANNER_A: ToolSpec = {
  slot: 'cd/scanner-a/product-x',
  seed: 101,
  equipmentId: 'SCANNER-A',
  modules: ['CHUCK-1', 'CHUCK-2'],
  moduleOffsets: [0, 0.4],
  product: 'PRODUCT-X',
  recipeId: 'M1-EXPOSE/7',
  stepId: 'M1-LITHO',
  parameter: 'CD',
  valueUnit: 'nm',
  settingUnit: 'mJ/cm2',
  target: 45,
  baseline: 28,
  window: [25, 31],
  step: 0.5,
  totalOffset: 2.5,
  gain: -0.95,
  nominalGain: -0.9,
  effects: { flow: 0.5, pressure: -0.35, temperature: 0.25, power: -0.2 },
  interaction: 0.22,
  thermalEffect: 0.3,
  driftPerRun: 0.0017,
  runsBetweenMaintenance: MAINTENANCE_CYCLE,
  maintenanceShift: 0.25,
  processNoise: 0.1,
  metrologyNoise: 0.08,
  campaignSpread: 0.5,
  sensors: SCANNER_SENSORS,
};

const SCANNER_B: ToolSpec = {
  ...SCANNER_A,
  slot: 'cd/scanner-b/product-x',
  seed: 102,
  equipmentId: 'SCANNER-B',
  moduleOffsets: [-0.2, 0.1],
  gain: -0.85,
  effects: { flow: 0.4, pressure: -0.4, temperature: 0.3, power: -0.25 },
  interaction: 0.05,
  driftPerRun: 0.0012,
};

const POLISHER_1: ToolSpec = {
  slot: 'thickness/cmp-1/product-x',
  seed: 103,
  equipmentId: 'CMP-1',
  modules: ['PLATEN-1', 'PLATEN-2'],
  moduleOffsets: [1.2, -1.2],
  product: 'PRODUCT-X',
  recipeId: 'ILD-POLISH/3',
  stepId: 'ILD-CMP',
  parameter: 'THICKNESS',
  valueUnit: 'nm',
  settingUnit: 's',
  target: 300,
  baseline: 60,
  window: [52, 70],
  step: 1.5,
  totalOffset: 8,
  gain: -5.5,
  nominalGain: -5,
  effects: { flow: -1.4, pressure: -1, temperature: -0.8, power: -0.5 },
  interaction: 0.5,
  thermalEffect: -1.5,
  driftPerRun: 0.04,
  runsBetweenMaintenance: MAINTENANCE_CYCLE,
  maintenanceShift: 2,
  processNoise: 0.6,
  metrologyNoise: 0.4,
  campaignSpread: 0.8,
  sensors: POLISHER_SENSORS,
};

const ETCHER_1: ToolSpec = {
  slot: 'depth/etch-1/product-y',
  seed: 104,
  equipmentId: 'ETCH-1',
  modules: ['CHAMBER-A', 'CHAMBER-B'],
  moduleOffsets: [0.8, -0.8],
  product: 'PRODUCT-Y',
  recipeId: 'DT-ETCH/12',
  stepId: 'DT-ETCH',
  parameter: 'DEPTH',
  valueUnit: 'nm',
  settingUnit: 's',
  target: 180,
  baseline: 45,
  window: [39, 53],
  step: 1,
  totalOffset: 6,
  gain: 4.3,
  nominalGain: 4,
  effects: { flow: 0.9, pressure: -0.8, temperature: 0.5, power: 0.6 },
  interaction: 0.4,
  thermalEffect: 0.9,
  driftPerRun: -0.022,
  runsBetweenMaintenance: MAINTENANCE_CYCLE,
  maintenanceShift: 1.2,
  processNoise: 0.4,
  metrologyNoise: 0.3,
  campaignSpread: 0.7,
  sensors: ETCHER_SENSORS,
};

/** Every tool of the simulated fab; each has a slot and a bundle of its own. */
export const TOOLS: readonly ToolSpec[] = [SCANNER_A, SCANNER_B, POLISHER_1, ETCHER_1];

/** The folder of a slot's bundle: a slot's name with '-' for '/'. */
export function bundleFolder(slot: string): string {
  return slot.replaceAll('/', '-');
}
