import { CONTEXT_FIELDS, type Context, type DecisionFrame, type ObserveFrame, type PredictFrame } from '../../protocol/frames.ts';
import { visible } from './escape.ts';
import { featureCount, nameOf, reasonTexts, type Row } from './row.ts';
import { formatMicros, formatMillis } from './times.ts';

/** A record as a person reads it on a terminal: one line that says what it is, and indented lines below. Pure. */

const KIND_WIDTH = 'observation'.length;
const INDENT = '    ';

const CONTEXT_WORDS: Readonly<Record<keyof Context, string>> = {
  substrateId: 'substrate',
  lotId: 'lot',
  carrierId: 'carrier',
  slotId: 'carrier slot',
  equipmentId: 'equipment',
  moduleId: 'module',
  recipeId: 'recipe',
  stepId: 'step',
  processJobId: 'process job',
  controlJobId: 'control job',
  product: 'product',
  runNumber: 'run',
  processEndMillis: 'process end',
};

export function textOf(row: Row): string {
  const lines = row.defect === null ? linesOf(row) : [`unreadable: ${visible(row.defect)}`];
  const [summary = '', ...rest] = lines;
  const head = `${formatMicros(row.timeMicros)}  ${row.name.padEnd(KIND_WIDTH)}  ${nameOf(row)}  ${summary}\n`;
  return head + rest.map((line) => `${INDENT}${line}\n`).join('');
}

function linesOf(row: Row): string[] {
  if (row.predict !== null && row.decision !== null) return decisionLines(row, row.predict, row.decision);
  if (row.observe !== null) return observationLines(row.observe);
  return [visible(noticeText(row))];
}

function decisionLines({ telemetry }: Row, predict: PredictFrame, decision: DecisionFrame): string[] {
  const { action, reasons, version, value, rawValue, correction, rawCorrection, ri, riThreshold, gsi, gsiThreshold } = decision;
  const why = reasons === 0 ? '' : `: ${reasonTexts(reasons).join(', ')}`;
  const count = featureCount(predict);
  const given = count === null ? 'named tensors' : `${count} ${predict.features.encoding}`;
  return [
    `${visible(predict.slot)}  ${action}${why}`,
    contextLine(predict.context),
    `bundle ${Buffer.from(decision.bundleId).toString('hex')}  version ${visible(version)}`,
    [
      pair('value', value, rawValue, 'the model said'),
      pair('correction', correction, rawCorrection, 'asked for'),
      `last applied ${predict.lastApplied ?? 'unknown'}`,
    ].join('  '),
    [pair('ri', ri, riThreshold, 'at least'), pair('gsi', gsi, gsiThreshold, 'at most')].join('  '),
    `features ${telemetry === 'dropped' ? 'dropped by retention' : given}  request ${predict.requestId}`,
  ];
}

function observationLines(observe: ObserveFrame): string[] {
  const { slot, context, measurementId, parameter, value, unit, appliedInput, measuredAtMillis } = observe;
  const measured = `${visible(parameter)} ${value}${unit === null ? '' : ` ${visible(unit)}`}`;
  return [
    `${visible(slot)}  ${measured}`,
    contextLine(context),
    `measurement ${visible(measurementId)}  measured at ${formatMillis(measuredAtMillis)}  applied input ${appliedInput ?? 'unknown'}`,
  ];
}

/** Only what is known: most controllers send some of the thirteen. */
function contextLine(context: Context | null): string {
  if (context === null) return 'no context';
  const parts = CONTEXT_FIELDS.flatMap((field) => {
    const value = context[field];
    if (value === null) return [];
    const text = field === 'processEndMillis' ? formatMillis(Number(value)) : visible(String(value));
    return [`${CONTEXT_WORDS[field]} ${text}`];
  });
  return parts.length === 0 ? 'no context' : parts.join('  ');
}

function pair(name: string, value: number | null, other: number | null, words: string): string {
  return `${name} ${value ?? 'none'}${other === null ? '' : ` (${words} ${other})`}`;
}

/** What an alert, a gap or an event says, in one line. */
export function noticeText({ name, stream, body }: Row): string {
  const said = body ?? {};
  if (name === 'gap') {
    const count = said['isExact'] === true ? '' : 'at most ';
    return `records ${text(said['from'])} to ${text(said['to'])} of stream ${stream} are lost (${count}${text(said['count'])}, ${text(said['reason'])}): ${text(said['detail'])}`;
  }
  if (name === 'alert') return `${text(said['alert'])}${said['slot'] === null ? '' : ` ${text(said['slot'])}`}: ${text(said['message'])}`;
  if (said['event'] === 'lost') {
    const where = said['stream'] === null ? 'of an earlier log' : `of stream ${text(said['stream'])}`;
    return `records ${text(said['from'])} to ${text(said['to'])} ${where} are lost (${text(said['reason'])}): ${text(said['detail'])}`;
  }
  if (said['event'] === 'dropped') {
    const what = said['what'] === 'telemetry' ? 'features and outputs' : 'whole records';
    return `${what} of ${text(said['count'])} entries (${text(said['fromIndex'])} to ${text(said['toIndex'])}) were dropped: ${text(said['reason'])}`;
  }
  return JSON.stringify(said);
}

function text(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value ?? null);
}
