/** The hidden quantities of one run that sensors can see. All but `setting` are dimensionless with a spread near 1. */
export type HiddenName = 'flow' | 'pressure' | 'temperature' | 'power' | 'wear' | 'thermal' | 'offset' | 'setting';
export type Hidden = Readonly<Record<HiddenName, number>>;

/** A summary feature of one sensor: reading = nominal + spread * (sum of load * hidden + noise * N(0, 1)). */
export interface SensorSpec {
  readonly name: string;
  readonly unit: string;
  readonly nominal: number;
  readonly spread: number;
  readonly noise: number;
  readonly loads: Readonly<Partial<Record<HiddenName, number>>>;
}

type Row = readonly [name: string, unit: string, nominal: number, spread: number, loads: SensorSpec['loads'], noise?: number];

/** Noise of a summary feature as a part of its spread: a mean over some hundred samples keeps about a quarter. */
const SENSOR_NOISE = 0.25;

function sensors(rows: readonly Row[]): readonly SensorSpec[] {
  return rows.map(([name, unit, nominal, spread, loads, noise = SENSOR_NOISE]) => ({ name, unit, nominal, spread, noise, loads }));
}

/** An immersion scanner with its track. `dose_actual` reads back the setting, mJ/cm2. */
export const SCANNER_SENSORS = sensors([
  ['dose_actual', 'mJ/cm2', 28, 1, { setting: 1 }, 0.005],
  ['lamp_hours', 'h', 400, 230, { wear: 1 }, 0.002],
  ['focus_offset_mean', 'nm', 0, 6, { flow: 0.95 }],
  ['focus_offset_std', 'nm', 4, 0.6, { flow: 0.5, pressure: 0.3 }],
  ['leveling_residual', 'nm', 12, 2, { flow: 0.8, thermal: 0.2 }],
  ['stage_x_error', 'nm', 1.6, 0.2, { pressure: 0.7 }],
  ['stage_y_error', 'nm', 1.5, 0.2, { pressure: 0.75 }],
  ['stage_sync_error', 'nm', 2.2, 0.3, { pressure: 0.9 }],
  ['lens_pressure', 'hPa', 1013, 1.5, { pressure: 0.95 }],
  ['lens_temperature', 'degC', 22, 0.02, { temperature: 0.6, thermal: 0.7 }],
  ['immersion_temperature', 'degC', 22.5, 0.015, { temperature: 0.9 }],
  ['immersion_flow', 'l/min', 1.8, 0.05, { flow: 0.6, temperature: 0.3 }],
  ['reticle_temperature', 'degC', 22.3, 0.05, { thermal: 0.95 }],
  ['wafer_table_temperature', 'degC', 22.1, 0.03, { thermal: 0.8, temperature: 0.3 }],
  ['laser_energy_mean', 'mJ', 10, 0.1, { power: 0.95 }],
  ['laser_energy_sigma', '%', 0.3, 0.03, { power: 0.6, wear: 0.4 }],
  ['laser_bandwidth', 'pm', 0.3, 0.01, { power: 0.8 }],
  ['laser_wavelength_error', 'fm', 0, 4, { power: 0.4, offset: 0.5 }],
  ['illumination_uniformity', '%', 0.5, 0.06, { wear: 0.8, offset: 0.4 }],
  ['alignment_residual', 'nm', 1.2, 0.15, { offset: 0.9 }],
  ['reference_mark_shift', 'nm', 0, 2, { offset: 1 }],
  ['bake_plate_temperature', 'degC', 110, 0.08, { temperature: 0.95 }],
  ['bake_time', 's', 60, 0.1, { temperature: 0.3, thermal: 0.3 }],
  ['developer_flow', 'ml/s', 15, 0.2, { flow: 0.7, power: 0.2 }],
]);

/** A chemical-mechanical polisher. `polish_time_actual` reads back the setting, s. */
export const POLISHER_SENSORS = sensors([
  ['polish_time_actual', 's', 60, 1, { setting: 1 }, 0.005],
  ['pad_usage', 'wafers', 300, 173, { wear: 1 }, 0.002],
  ['conditioner_usage', 'wafers', 300, 173, { wear: 1 }, 0.02],
  ['slurry_flow_a', 'ml/min', 200, 2, { flow: 0.95 }],
  ['slurry_flow_b', 'ml/min', 60, 0.8, { flow: 0.9 }],
  ['slurry_ph', 'pH', 10.8, 0.04, { flow: 0.6, temperature: 0.3 }],
  ['slurry_density', 'g/ml', 1.08, 0.004, { flow: 0.7 }],
  ['membrane_pressure', 'hPa', 180, 2, { pressure: 0.95 }],
  ['retainer_pressure', 'hPa', 260, 3, { pressure: 0.9 }],
  ['ripple_pressure', 'hPa', 160, 2, { pressure: 0.7 }],
  ['edge_pressure', 'hPa', 150, 2.5, { pressure: 0.6, offset: 0.4 }],
  ['downforce_std', 'N', 3, 0.4, { pressure: 0.4, wear: 0.3 }],
  ['pad_temperature_mean', 'degC', 38, 0.8, { temperature: 0.7, thermal: 0.6 }],
  ['pad_temperature_max', 'degC', 44, 1, { temperature: 0.8, thermal: 0.4 }],
  ['cooling_water_temperature', 'degC', 20, 0.3, { thermal: 0.95 }],
  ['ambient_temperature', 'degC', 22, 0.2, { thermal: 0.85 }],
  ['table_torque_mean', 'Nm', 95, 2.5, { power: 0.8, wear: 0.4 }],
  ['table_torque_std', 'Nm', 4, 0.5, { power: 0.5, wear: 0.3 }],
  ['head_torque_mean', 'Nm', 24, 0.8, { power: 0.9 }],
  ['motor_current', 'A', 12, 0.3, { power: 0.85, pressure: 0.2 }],
  ['table_rotation', 'rpm', 90, 0.3, { power: 0.5, temperature: 0.2 }],
  ['conditioner_force', 'N', 35, 0.7, { offset: 0.8, wear: 0.2 }],
  ['pad_profile_index', 'um', 0, 5, { offset: 1 }],
  ['head_height_zero', 'um', 0, 3, { offset: 0.9 }],
]);

/** A plasma etcher. `etch_time_actual` reads back the setting, s. */
export const ETCHER_SENSORS = sensors([
  ['etch_time_actual', 's', 45, 1, { setting: 1 }, 0.005],
  ['rf_hours', 'h', 300, 173, { wear: 1 }, 0.002],
  ['focus_ring_usage', 'wafers', 300, 173, { wear: 1 }, 0.02],
  ['sf6_flow', 'sccm', 120, 0.6, { flow: 0.95 }],
  ['c4f8_flow', 'sccm', 80, 0.5, { flow: 0.9 }],
  ['ar_flow', 'sccm', 200, 1, { flow: 0.6 }],
  ['oes_703nm', 'counts', 5200, 90, { flow: 0.7, power: 0.3 }],
  ['oes_251nm', 'counts', 3100, 60, { flow: 0.5, pressure: 0.4 }],
  ['chamber_pressure_mean', 'mTorr', 30, 0.2, { pressure: 0.95 }],
  ['chamber_pressure_std', 'mTorr', 0.3, 0.04, { pressure: 0.5, flow: 0.3 }],
  ['throttle_position', '%', 42, 1.2, { pressure: 0.8, wear: 0.3 }],
  ['foreline_pressure', 'mTorr', 55, 1, { pressure: 0.7 }],
  ['chuck_temperature', 'degC', 20, 0.3, { temperature: 0.9, thermal: 0.2 }],
  ['wall_temperature', 'degC', 60, 0.8, { thermal: 0.95 }],
  ['lid_temperature', 'degC', 75, 1, { thermal: 0.85 }],
  ['helium_backside_flow', 'sccm', 12, 0.4, { temperature: 0.8 }],
  ['helium_leak_rate', 'sccm', 1.5, 0.15, { temperature: 0.6, offset: 0.3 }],
  ['source_power_forward', 'W', 2500, 12, { power: 0.95 }],
  ['source_power_reflected', 'W', 20, 3, { power: 0.6, wear: 0.4 }],
  ['bias_voltage', 'V', 310, 4, { power: 0.85 }],
  ['bias_peak_to_peak', 'V', 640, 9, { power: 0.8, offset: 0.2 }],
  ['match_capacitor_1', '%', 48, 1, { offset: 0.9 }],
  ['match_capacitor_2', '%', 52, 1, { offset: 0.95 }],
  ['endpoint_slope', '1/s', 0.8, 0.05, { wear: 0.5, offset: 0.5 }],
]);
