import type { WireTensor } from '../../protocol/datatype.ts';
import type { DecisionFrame, Features, ObserveFrame, PredictFrame } from '../../protocol/frames.ts';
import { jsonLine } from './escape.ts';
import { reasonTexts, type Row } from './row.ts';
import { formatMicros, formatMillis } from './times.ts';

/** One JSON object a line, with everything that is known. agent/audit/README.md lists the keys. Pure. */
export function jsonlOf(row: Row, agentId: string | null): string {
  const { name, stream, sequence, index, timeMicros } = row;
  const head = { kind: name, agentId, stream, sequence, index, time: formatMicros(timeMicros), timeMicros };
  if (row.defect !== null) return jsonLine({ ...head, ...unreadablePart(row) });
  if (row.predict !== null && row.decision !== null) {
    return jsonLine({ ...head, ...decisionPart(row.predict, row.decision), ...telemetryPart(row.telemetry, row.predict, row.decision) });
  }
  if (row.observe !== null) return jsonLine({ ...head, ...observationPart(row.observe) });
  // A body may hold any key: it must not take the place of those before it.
  return jsonLine({ ...head, body: row.body });
}

/** The exact bytes, so that nothing is lost on a reader that knows less than the writer did. */
function unreadablePart({ defect, request, reply }: Row): object {
  return { defect, request: base64(request), reply: base64(reply) };
}

function decisionPart(predict: PredictFrame, decision: DecisionFrame): object {
  const { requestId, slot, context, deadlineMicros, lastApplied } = predict;
  const { value, rawValue, correction, rawCorrection, ri, riThreshold, gsi, gsiThreshold } = decision;
  return {
    slot,
    context,
    bundleId: Buffer.from(decision.bundleId).toString('hex'),
    version: decision.version,
    action: decision.action,
    reasons: reasonTexts(decision.reasons),
    value: jsonNumber(value),
    rawValue: jsonNumber(rawValue),
    correction: jsonNumber(correction),
    rawCorrection: jsonNumber(rawCorrection),
    lastApplied: jsonNumber(lastApplied),
    ri: jsonNumber(ri),
    riThreshold: jsonNumber(riThreshold),
    gsi: jsonNumber(gsi),
    gsiThreshold: jsonNumber(gsiThreshold),
    requestId,
    deadlineMicros,
  };
}

function telemetryPart(telemetry: Row['telemetry'], { features }: PredictFrame, { outputs }: DecisionFrame): object {
  if (telemetry === 'dropped') return { telemetry: 'dropped by retention', features: null, outputs: null };
  return { telemetry: 'kept', features: featuresOf(features), outputs: outputs?.map(tensorOf) ?? null };
}

function observationPart(observe: ObserveFrame): object {
  const { slot, context, measurementId, parameter, value, unit, appliedInput, measuredAtMillis, requestId } = observe;
  const measuredAt = formatMillis(measuredAtMillis);
  return { slot, context, measurementId, parameter, value, unit, appliedInput, measuredAt, measuredAtMillis, requestId };
}

function featuresOf(features: Features): object {
  if (features.encoding === 'tensors') return { encoding: 'tensors', tensors: features.tensors.map(tensorOf) };
  const { encoding, bytes } = features;
  const elementBytes = encoding === 'float32' ? 4 : 8;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = Array.from({ length: bytes.byteLength / elementBytes }, (_, at) =>
    jsonNumber(encoding === 'float32' ? view.getFloat32(at * 4, true) : view.getFloat64(at * 8, true)),
  );
  return { encoding, values };
}

function tensorOf({ name, datatype, shape, bytes }: WireTensor): object {
  return { name, datatype, shape, data: base64(bytes) };
}

/** JSON has no NaN and no infinities: they are the texts "NaN", "Infinity" and "-Infinity". */
function jsonNumber(value: number | null): number | string | null {
  return value === null || Number.isFinite(value) ? value : String(value);
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
}
