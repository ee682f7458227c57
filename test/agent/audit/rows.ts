import type { LogRecord } from '../../../agent/audit/row.ts';
import { encodeAlert, encodeGap, type Gap } from '../../../agent/journal/gap.ts';
import { encodeDecision, encodeFrame } from '../../../protocol/codec.ts';
import {
  CONTEXT_FIELDS,
  type Context,
  type DecisionFrame,
  FRAME_KINDS,
  type ObserveFrame,
  type PredictFrame,
} from '../../../protocol/frames.ts';

/** Records as an agent makes them. */

export const T0 = Date.UTC(2026, 10, 22, 10, 15) * 1000;
export const BUNDLE = Uint8Array.from({ length: 32 }, (_, at) => at);
const EMPTY = new Uint8Array(0);

export function contextOf(fields: Partial<Context> = {}): Context {
  const nothing = Object.fromEntries(CONTEXT_FIELDS.map((field) => [field, null])) as unknown as Context;
  return { ...nothing, ...fields };
}

/** A number with more than one byte, so that a flip of any bit of it shows. */
export function featuresOf(...values: number[]): PredictFrame['features'] {
  const bytes = new Uint8Array(values.length * 4);
  values.forEach((value, at) => new DataView(bytes.buffer).setFloat32(at * 4, value, true));
  return { encoding: 'float32', bytes };
}

export interface DecisionParts {
  readonly stream?: number;
  readonly sequence: number;
  readonly timeMicros?: number;
  readonly predict?: Partial<PredictFrame>;
  readonly decision?: Partial<DecisionFrame>;
}

/** What is stored: copies, because the codec's bytes are views of a pool. */
export function decisionRecord({ stream = 0, sequence, timeMicros = T0 + sequence, predict, decision }: DecisionParts): LogRecord {
  const request: PredictFrame = {
    kind: FRAME_KINDS.predict,
    requestId: sequence,
    slot: 'cd/scanner-a/x',
    context: contextOf({ substrateId: `W${sequence}`, lotId: 'LOT42' }),
    deadlineMicros: 5000,
    lastApplied: 12.5,
    features: featuresOf(sequence, 0.5),
    outputs: null,
    ...predict,
  };
  const reply: DecisionFrame = {
    kind: FRAME_KINDS.decision,
    requestId: sequence,
    sequence,
    stream,
    action: 'model',
    reasons: 0,
    value: 45.125,
    rawValue: 45.125,
    correction: null,
    rawCorrection: null,
    ri: 0.875,
    riThreshold: 0.5,
    gsi: null,
    gsiThreshold: null,
    bundleId: BUNDLE,
    version: '2026.11.1',
    serverTimeMicros: timeMicros,
    outputs: null,
    ...decision,
  };
  return {
    index: null,
    kind: 1,
    stream,
    sequence,
    timeMicros,
    request: Uint8Array.from(encodeFrame(request)),
    reply: Uint8Array.from(encodeDecision(reply)),
    telemetry: 'kept',
  };
}

export function observationRecord(sequence: number, parts: Partial<ObserveFrame> = {}, stream = 0, timeMicros = T0 + sequence): LogRecord {
  const frame: ObserveFrame = {
    kind: FRAME_KINDS.observe,
    requestId: sequence,
    slot: 'cd/scanner-a/x',
    context: contextOf({ substrateId: `W${sequence}`, lotId: 'LOT42' }),
    measurementId: `CDSEM-1/${sequence}`,
    parameter: 'CD',
    value: 45.25,
    unit: 'nm',
    appliedInput: 12.5,
    measuredAtMillis: 1_795_000_360_000,
    ...parts,
  };
  const request = Uint8Array.from(encodeFrame(frame));
  return { index: null, kind: 2, stream, sequence, timeMicros, request, reply: EMPTY, telemetry: 'none' };
}

export function alertRecord(
  sequence: number,
  message: string,
  slot: string | null = null,
  stream = 0,
  timeMicros = T0 + sequence,
): LogRecord {
  const request = encodeAlert({ alert: 'guard', slot, message });
  return { index: null, kind: 3, stream, sequence, timeMicros, request, reply: EMPTY, telemetry: 'none' };
}

export function gapRecord(
  gap: Partial<Gap> & { readonly from: number; readonly to: number },
  stream = 0,
  timeMicros = T0 + gap.to,
): LogRecord {
  const whole: Gap = { count: gap.to - gap.from + 1, isExact: true, reason: 'disk_full', detail: 'no space', ...gap };
  return { index: null, kind: 4, stream, sequence: gap.to, timeMicros, request: encodeGap(whole), reply: EMPTY, telemetry: 'none' };
}
