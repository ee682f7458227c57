import { noticeText } from './format-text.ts';
import type { TailTrouble } from './log-view.ts';
import type { Row } from './row.ts';
import { formatMicros } from './times.ts';

/** Why an answer may lack something, and what the agent itself complained of at the time. Collected, then told. Pure. */

/** More than this is told as a number: a disk that was full for a night makes one gap, a broken one makes many. */
const MAX_GAPS = 200;
const MAX_ALERTS = 100;

interface AlertGroup {
  readonly text: string;
  count: number;
  readonly firstMicros: number;
  lastMicros: number;
}

export class Notices {
  readonly #gaps = new Map<string, number>();
  readonly #alerts = new Map<string, AlertGroup>();
  readonly #troubles: string[] = [];
  #moreGaps = 0;
  #moreAlerts = 0;

  /** A statement that something is missing; the same one is told once. */
  gap(text: string, timeMicros: number): void {
    if (this.#gaps.has(text)) return;
    if (this.#gaps.size < MAX_GAPS) this.#gaps.set(text, timeMicros);
    else this.#moreGaps += 1;
  }

  alert(row: Row): void {
    const text = noticeText(row);
    const group = this.#alerts.get(text);
    if (group !== undefined) {
      group.count += 1;
      group.lastMicros = Math.max(group.lastMicros, row.timeMicros);
    } else if (this.#alerts.size < MAX_ALERTS) {
      this.#alerts.set(text, { text, count: 1, firstMicros: row.timeMicros, lastMicros: row.timeMicros });
    } else {
      this.#moreAlerts += 1;
    }
  }

  trouble(trouble: TailTrouble): void {
    this.#troubles.push(troubleText(trouble));
  }

  statement(text: string): void {
    this.#troubles.push(text);
  }

  /** What may be missing first, then the alerts. */
  lines(): string[] {
    const gaps = [...this.#gaps].map(([text, timeMicros]) => `${text} [noted ${formatMicros(timeMicros)}]`);
    if (this.#moreGaps > 0) gaps.push(`${this.#moreGaps} more statements of missing records are not shown; audit verify counts them`);
    const alerts = [...this.#alerts.values()].map(alertText);
    if (this.#moreAlerts > 0) alerts.push(`${this.#moreAlerts} more alerts are not shown; --from and --to narrow the time`);
    return [...this.#troubles, ...gaps, ...alerts];
  }
}

function alertText({ text, count, firstMicros, lastMicros }: AlertGroup): string {
  const when = count === 1 ? formatMicros(firstMicros) : `${count} times, ${formatMicros(firstMicros)} to ${formatMicros(lastMicros)}`;
  return `alert at the time: ${text} [${when}]`;
}

export function troubleText(trouble: TailTrouble): string {
  const { type, stream } = trouble;
  if (type === 'hole') {
    return `records ${trouble.hole.from} to ${trouble.hole.to} of stream ${stream} are in the journal of no file, and no record says why`;
  }
  if (type === 'unreadable') {
    return `${trouble.path} cannot be read from byte ${trouble.offset} on: records in its last ${trouble.bytes} bytes are not in this answer`;
  }
  const { from, given, reason, sinceMicros, detail } = trouble.mark;
  return `the journal of stream ${stream} fails (${reason}, since ${formatMicros(sinceMicros)}): records ${from} to ${given} or later are not on the disk: ${detail}`;
}
