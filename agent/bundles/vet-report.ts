import { z } from 'zod';
import { SetpointError } from '../../protocol/errors.ts';

/** What a vetting found out about a bundle on this machine; stored as `<bundleId>.vet.json`. Pure. */
const count = z.int().min(0);
const measure = z.number().finite().min(0);

/** What the vet process measured; its output is checked against this before anything believes it. */
export const vetMeasurementSchema = z.strictObject({
  isBatchable: z.boolean(),
  /** Time of one run, microseconds: one row where the model takes rows, else the first golden case. */
  runMicros: z.strictObject({ p50: measure, p99: measure, max: measure }),
  /** Runs in the block that runMicros describes: 200, fewer for slow models. */
  runs: z.int().positive(),
  loadMillis: measure,
  /** Largest resident memory of the vet process, bytes; about 100 MB of it are the runtime itself. */
  peakMemoryBytes: count,
  goldenCases: z.int().positive(),
  /** Largest |got - want| over all floats of all golden cases. */
  goldenMaxDifference: measure,
});

const vetReportSchema = vetMeasurementSchema.extend({
  format: z.literal('setpoint.vet.v1'),
  bundleId: z.string().regex(/^[0-9a-f]{64}$/),
  engine: z.string().min(1).max(255),
  lane: z.enum(['inline', 'heavy']),
  isUnbounded: z.boolean(),
  inlineBudgetMicros: z.number().positive(),
  vettedAtMillis: count,
});

export type VetReport = Readonly<z.infer<typeof vetReportSchema>>;
export type Lane = VetReport['lane'];

/** Inline only what is surely short: within the budget, and with no operator that a value can make long. */
export function chooseLane(p99Micros: number, inlineBudgetMicros: number, isUnbounded: boolean): Lane {
  return p99Micros <= inlineBudgetMicros && !isUnbounded ? 'inline' : 'heavy';
}

export function formatVetReport(report: VetReport): Uint8Array {
  return new TextEncoder().encode(`${JSON.stringify(report, null, 1)}\n`);
}

/** @throws SetpointError invalid_bundle */
export function parseVetReport(bytes: Uint8Array, source: string): VetReport {
  try {
    return vetReportSchema.parse(JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)));
  } catch (cause) {
    throw new SetpointError('invalid_bundle', `Cannot read ${source}: it is not a vet report`, {
      field: source,
      remedy: 'remove the file; the bundle is vetted again',
      cause,
    });
  }
}

/** Whether a stored report still holds: the same engine, and the same budget for the lane. */
export function isCurrent(report: VetReport, bundleId: string, engine: string, inlineBudgetMicros: number): boolean {
  return report.bundleId === bundleId && report.engine === engine && report.inlineBudgetMicros === inlineBudgetMicros;
}
