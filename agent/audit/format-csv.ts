import { CONTEXT_FIELDS, type Context } from '../../protocol/frames.ts';
import { csvNumber, csvText } from './escape.ts';
import { featureCount, reasonTexts, type Row } from './row.ts';
import { formatMicros, formatMillis } from './times.ts';

/** RFC 4180: lines end in CR LF, the first names the columns. agent/audit/README.md describes them. Pure. */
type Cell = readonly [name: string, value: (row: Row, agentId: string | null) => string];

const CELLS: readonly Cell[] = [
  ['kind', (row) => csvText(row.name)],
  ['agentId', (_row, agentId) => csvText(agentId)],
  ['stream', (row) => csvNumber(row.stream)],
  ['sequence', (row) => csvNumber(row.sequence)],
  ['index', (row) => csvNumber(row.index)],
  ['time', (row) => csvText(formatMicros(row.timeMicros))],
  ['slot', (row) => csvText(row.predict?.slot ?? row.observe?.slot ?? null)],
  ...CONTEXT_FIELDS.map((field): Cell => [field, (row) => contextCell(row.predict?.context ?? row.observe?.context ?? null, field)]),
  ['bundleId', (row) => (row.decision === null ? '' : Buffer.from(row.decision.bundleId).toString('hex'))],
  ['version', (row) => csvText(row.decision?.version ?? null)],
  ['action', (row) => csvText(row.decision?.action ?? null)],
  ['reasons', (row) => csvText(row.decision === null ? null : reasonTexts(row.decision.reasons).join(' '))],
  ['value', (row) => csvNumber(row.decision?.value ?? null)],
  ['rawValue', (row) => csvNumber(row.decision?.rawValue ?? null)],
  ['correction', (row) => csvNumber(row.decision?.correction ?? null)],
  ['rawCorrection', (row) => csvNumber(row.decision?.rawCorrection ?? null)],
  ['lastApplied', (row) => csvNumber(row.predict?.lastApplied ?? null)],
  ['ri', (row) => csvNumber(row.decision?.ri ?? null)],
  ['riThreshold', (row) => csvNumber(row.decision?.riThreshold ?? null)],
  ['gsi', (row) => csvNumber(row.decision?.gsi ?? null)],
  ['gsiThreshold', (row) => csvNumber(row.decision?.gsiThreshold ?? null)],
  ['features', featuresCell],
  ['measurementId', (row) => csvText(row.observe?.measurementId ?? null)],
  ['parameter', (row) => csvText(row.observe?.parameter ?? null)],
  ['measuredValue', (row) => csvNumber(row.observe?.value ?? null)],
  ['unit', (row) => csvText(row.observe?.unit ?? null)],
  ['appliedInput', (row) => csvNumber(row.observe?.appliedInput ?? null)],
  ['measuredAt', (row) => csvText(row.observe === null ? null : formatMillis(row.observe.measuredAtMillis))],
  ['detail', (row) => csvText(row.defect === null ? bodyText(row) : `unreadable: ${row.defect}`)],
];

export const CSV_HEADER = `${CELLS.map(([name]) => name).join(',')}\r\n`;

export function csvOf(row: Row, agentId: string | null): string {
  return `${CELLS.map(([, value]) => value(row, agentId)).join(',')}\r\n`;
}

function contextCell(context: Context | null, field: keyof Context): string {
  const value = context?.[field] ?? null;
  return typeof value === 'number' ? csvNumber(value) : csvText(value);
}

/** How many; the values themselves are in JSONL. */
function featuresCell({ predict, telemetry }: Row): string {
  if (predict === null) return '';
  if (telemetry === 'dropped') return 'dropped by retention';
  return csvNumber(featureCount(predict)) || 'tensors';
}

function bodyText({ body }: Row): string | null {
  return body === null ? null : JSON.stringify(body);
}
