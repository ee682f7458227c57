import { SetpointError } from '../../protocol/errors.ts';
import type { LogView } from './log-view.ts';
import type { Question, Selection } from './messages.ts';
import { noticeText } from './format-text.ts';
import { Notices } from './notices.ts';
import { type LogRecord, type Row, rowOf } from './row.ts';
import { FIRST_NOTICE_KIND, noticesOf } from './store-scans.ts';
import { formatMicros } from './times.ts';

export interface Answer {
  /** What was found, in words. */
  readonly summary: string;
  readonly warnings: readonly string[];
}

/**
 * Gives every record that a question asks for, once: first those of the store, in the order in which they were stored, then
 * those of the journal, in the order of time. Then says what may be missing. Rows are views of buffers that are used again.
 * @throws SetpointError invalid_config when the digits of a bundle id begin several
 */
export function answer(view: LogView, question: Question, give: (row: Row) => void): Answer {
  const { fromMicros, toMicros } = question;
  const selection = resolved(view, question.selection);
  const notices = new Notices();
  const counts = new Map<string, number>();
  const found = { firstMicros: Infinity, lastMicros: -Infinity };
  const take = (row: Row): void => {
    if (row.timeMicros < fromMicros || row.timeMicros > toMicros || !matches(row, selection)) return;
    counts.set(row.name, (counts.get(row.name) ?? 0) + 1);
    found.firstMicros = Math.min(found.firstMicros, row.timeMicros);
    found.lastMicros = Math.max(found.lastMicros, row.timeMicros);
    give(row);
  };
  for (const record of storedRecords(view, selection, question)) take(rowOf(record));
  for (const record of view.journalRecords((trouble) => notices.trouble(trouble))) take(rowOf(record));
  const isRange = fromMicros > 0 || toMicros < Number.MAX_SAFE_INTEGER;
  const alertRange = isRange ? { firstMicros: fromMicros, lastMicros: toMicros } : found;
  collectNotices(view, question, alertRange, notices);
  return { summary: summaryOf(counts), warnings: notices.lines() };
}

function resolved(view: LogView, selection: Selection): Selection {
  if (selection.by !== 'bundle' || selection.prefix.length === 64) return selection;
  const ids = new Set<string>();
  const look = (record: LogRecord): void => {
    const id = bundleIdOf(rowOf(record));
    if (id?.startsWith(selection.prefix)) ids.add(id);
  };
  for (const record of view.store?.between(0, Number.MAX_SAFE_INTEGER) ?? []) look(record);
  for (const record of view.journalRecords(() => {})) look(record);
  const [only, ...others] = ids;
  if (others.length > 0) {
    throw new SetpointError(
      'invalid_config',
      `Cannot tell which bundle ${selection.prefix} is: ${[...ids].slice(0, 8).join(', ')} begin so`,
      {
        field: 'bundle',
        remedy: 'give more digits',
      },
    );
  }
  return only === undefined ? selection : { by: 'bundle', prefix: only };
}

function* storedRecords({ store, head }: LogView, selection: Selection, { fromMicros, toMicros }: Question): Generator<LogRecord> {
  if (store === null || head === null) return;
  let records: Iterable<LogRecord>;
  if (selection.by === 'substrate') records = store.bySubstrate(selection.substrateId);
  else if (selection.by === 'time') records = store.between(fromMicros, toMicros);
  else if (selection.by === 'bundle') {
    // Fewer digits are left only when no bundle begins with them.
    records =
      selection.prefix.length < 64 ? [] : store.byBundle(Uint8Array.from(Buffer.from(selection.prefix, 'hex')), fromMicros, toMicros);
  } else {
    const record = store.bySequence(selection.stream, selection.sequence);
    records = record === null ? [] : [record];
  }
  for (const record of records) if (record.index !== null && record.index <= head.index) yield record;
}

function matches(row: Row, selection: Selection): boolean {
  switch (selection.by) {
    case 'time':
      return true;
    case 'decision':
      return row.stream === selection.stream && row.sequence === selection.sequence;
    case 'substrate':
      return (row.predict?.context ?? row.observe?.context ?? null)?.substrateId === selection.substrateId;
    case 'bundle':
      return bundleIdOf(row) === selection.prefix;
    default:
      return selection satisfies never;
  }
}

function bundleIdOf({ decision }: Row): string | null {
  return decision === null ? null : hexOf(decision.bundleId);
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}

interface Range {
  readonly firstMicros: number;
  readonly lastMicros: number;
}

/** What is missing is told by the time the records had, as far as it can be known: a gap is written after what it states. */
function collectNotices(view: LogView, question: Question, alertRange: Range, notices: Notices): void {
  const { selection, fromMicros, toMicros } = question;
  const take = (record: LogRecord): void => {
    const row = rowOf(record);
    if (row.name === 'alert') {
      if (selection.by !== 'decision' && row.timeMicros >= alertRange.firstMicros && row.timeMicros <= alertRange.lastMicros)
        notices.alert(row);
    } else if (isMissing(row) && row.timeMicros >= fromMicros && startOf(view, row) <= toMicros && concerns(row, selection)) {
      notices.gap(noticeText(row), row.timeMicros);
    }
  };
  const { store, head } = view;
  if (store !== null && head !== null) {
    stateDropped(view, fromMicros, notices);
    // From the start of the question to the end of the log: a gap stands behind what it states.
    for (const record of noticesOf(store, fromMicros)) if (record.index <= head.index) take(record);
  }
  for (const record of view.journalRecords(() => {})) if (record.kind >= FIRST_NOTICE_KIND) take(record);
}

function isMissing({ name, body }: Row): boolean {
  return name === 'gap' || (name === 'event' && (body?.['event'] === 'lost' || (body?.['event'] === 'begun' && body['previous'] !== null)));
}

/** When the missing records can have been made at the earliest: after the last one before them. */
function startOf({ store }: LogView, { name, stream, body }: Row): number {
  const said = name === 'gap' ? stream : body?.['stream'];
  const from = body?.['from'];
  if (store === null || typeof said !== 'number' || typeof from !== 'number' || from < 2) return 0;
  return store.bySequence(said, from - 1)?.timeMicros ?? 0;
}

/** A question about one record is concerned only by what may be that record. */
function concerns({ name, stream, body }: Row, selection: Selection): boolean {
  if (selection.by !== 'decision') return true;
  const said = name === 'gap' ? stream : body?.['stream'];
  if (typeof said !== 'number') return true;
  return said === selection.stream && Number(body?.['from']) <= selection.sequence && selection.sequence <= Number(body?.['to']);
}

function stateDropped({ store }: LogView, fromMicros: number, notices: Notices): void {
  const anchor = store?.anchor() ?? null;
  if (store === null || anchor === null || anchor.index === 0) return;
  const [oldest] = store.between(0, Number.MAX_SAFE_INTEGER);
  if (oldest === undefined || oldest.timeMicros < fromMicros) return;
  notices.statement(
    `retention has dropped the ${anchor.index} oldest entries; the answer reaches back to entry ${oldest.index}, ${formatMicros(oldest.timeMicros)}`,
  );
}

const PLURALS: Readonly<Record<string, string>> = { decision: 'decisions', observation: 'observations', alert: 'alerts', gap: 'gaps' };

function summaryOf(counts: ReadonlyMap<string, number>): string {
  if (counts.size === 0) return 'nothing was found';
  return [...counts].map(([name, count]) => `${count} ${count === 1 ? name : (PLURALS[name] ?? `${name}s`)}`).join(', ');
}
