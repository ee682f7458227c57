import type { Action } from '../../protocol/frames.ts';
import type { Alert, Percentiles } from './statistics.ts';

/** Everything the live view shows, at one instant. */
export interface ViewSnapshot {
  readonly agent: string;
  readonly elapsedMillis: number;
  readonly lines: readonly ViewLine[];
  /** The agent's own service time over all slots, when it could be read. */
  readonly service: Percentiles | null;
  readonly alerts: readonly Alert[];
}

export interface ViewLine {
  readonly slot: string;
  readonly perSecond: number;
  readonly roundTrip: Percentiles;
  readonly actions: Readonly<Record<Action | 'local', number>>;
  readonly observations: number;
  /** Mean distance of the true value from the target, and the unit of both. */
  readonly controlError: number | null;
  readonly valueUnit: string;
  /** Setting of each module, as last applied. */
  readonly settings: readonly number[];
  readonly settingUnit: string;
}

type Cell = readonly [text: string, width: number];

const HEADINGS: readonly Cell[] = [
  ['slot', -28],
  ['per s', 7],
  ['p50', 8],
  ['p99', 8],
  ['p99.9', 8],
  ['model', 9],
  ['clamped', 8],
  ['fallback', 9],
  ['local', 6],
  ['off target', 11],
  ['  settings', -24],
];

/**
 * The view as lines of at most `columns` characters: a title, one line per slot, the agent's own time, the newest alerts.
 * Times are microseconds below 10 ms and milliseconds above. Plain text; colour is the driver's.
 */
export function renderView(snapshot: ViewSnapshot, columns: number): string {
  const rows = [
    title(snapshot),
    '',
    row(HEADINGS),
    ...snapshot.lines.map(slotRow),
    '',
    serviceLine(snapshot.service),
    '',
    snapshot.alerts.length === 0 ? 'No alerts yet' : 'Alerts, newest first',
    ...snapshot.alerts.toReversed().map(alertLine),
    '',
    'Ctrl-C stops',
  ];
  return rows.map((text) => fit(text, columns)).join('\n');
}

/** One line for a log: the same facts, without the slots. */
export function renderLine(snapshot: ViewSnapshot): string {
  const { elapsedMillis, lines, service } = snapshot;
  const actions = totalActions(lines);
  const rate = lines.reduce((sum, line) => sum + line.perSecond, 0);
  const worst = Math.max(0, ...lines.map((line) => line.roundTrip.p99Micros));
  const own = service === null ? 'unknown' : duration(service.p99Micros);
  return (
    `${clock(elapsedMillis)} ${count(total(actions))} predictions, ${count(Math.round(rate))}/s, ` +
    `round trip p99 ${duration(worst)}, service p99 ${own}, ` +
    `model ${count(actions.model)} clamped ${count(actions.clamped)} fallback ${count(actions.fallback)} local ${count(actions.local)}`
  );
}

export function totalActions(lines: readonly Pick<ViewLine, 'actions'>[]): Record<Action | 'local', number> {
  const sum = { model: 0, clamped: 0, fallback: 0, local: 0 };
  for (const { actions } of lines) {
    sum.model += actions.model;
    sum.clamped += actions.clamped;
    sum.fallback += actions.fallback;
    sum.local += actions.local;
  }
  return sum;
}

export function total(actions: Readonly<Record<Action | 'local', number>>): number {
  return actions.model + actions.clamped + actions.fallback + actions.local;
}

function title(snapshot: ViewSnapshot): string {
  const predictions = total(totalActions(snapshot.lines));
  const observations = snapshot.lines.reduce((sum, line) => sum + line.observations, 0);
  const facts = [clock(snapshot.elapsedMillis), `${count(predictions)} predictions`, `${count(observations)} measurements`];
  return `Setpoint  ${snapshot.agent}  ${facts.join('  ')}`;
}

function slotRow(line: ViewLine): string {
  const { roundTrip, actions } = line;
  const error = line.controlError === null ? '-' : `${line.controlError.toPrecision(3)} ${line.valueUnit}`;
  const settings = `${line.settings.map((setting) => setting.toFixed(2)).join(' ')} ${line.settingUnit}`;
  const texts = [
    line.slot,
    count(Math.round(line.perSecond)),
    ...[roundTrip.p50Micros, roundTrip.p99Micros, roundTrip.p999Micros].map((micros) => (roundTrip.count === 0 ? '-' : duration(micros))),
    ...[actions.model, actions.clamped, actions.fallback, actions.local].map(count),
    error,
    `  ${settings}`,
  ];
  return row(texts.map((text, index) => [text, HEADINGS[index]?.[1] ?? 0] as const));
}

function serviceLine(service: Percentiles | null): string {
  if (service === null || service.count === 0) return "The agent's own service time is not known yet";
  const { p50Micros, p99Micros, p999Micros } = service;
  return `The agent's own service time: p50 ${duration(p50Micros)}, p99 ${duration(p99Micros)}, p99.9 ${duration(p999Micros)}`;
}

function alertLine({ atMillis, text, times }: Alert): string {
  return `  ${clock(atMillis)}  ${text}${times > 1 ? `  (${count(times)} times)` : ''}`;
}

/** Infinity is what the buckets of a histogram cannot tell. */
export function duration(micros: number): string {
  if (micros === Infinity) return 'off scale';
  return micros < 10_000 ? `${Math.round(micros)} us` : `${(micros / 1000).toFixed(1)} ms`;
}

/** Minutes and seconds since the start. */
function clock(millis: number): string {
  const seconds = Math.floor(millis / 1000);
  return `${String(Math.floor(seconds / 60)).padStart(2, '0')}:${String(seconds % 60).padStart(2, '0')}`;
}

/** Digits in groups of three, the same on every machine. */
export function count(value: number): string {
  return String(value).replaceAll(/\B(?=(\d{3})+$)/g, ',');
}

/** A negative width aligns left. */
function row(cells: readonly Cell[]): string {
  return cells
    .map(([text, width]) => (width < 0 ? text.padEnd(-width) : text.padStart(width)))
    .join('')
    .trimEnd();
}

function fit(text: string, columns: number): string {
  return text.length <= columns ? text : `${text.slice(0, Math.max(0, columns - 1))}…`;
}
