/** What a verification found wrong, in bounded memory. Pure. */

type FindingKind =
  /** An entry, or what was kept apart of it, is not what was stored. */
  | 'changed'
  | 'missing'
  /** An entry stands where another one belongs. */
  | 'moved'
  /** Numbers of a stream that no record holds and no gap record explains. */
  | 'hole'
  /** A checkpoint that does not fit the log, the key or the agent. */
  | 'checkpoint'
  /** A file of the journal that cannot be read. */
  | 'journal';

export interface Finding {
  readonly kind: FindingKind;
  /** Entries of the store, first and last; null where it is about none. */
  readonly fromIndex: number | null;
  readonly toIndex: number | null;
  /** Names of the records, STREAM/SEQUENCE or STREAM/FROM..TO, as far as they can be told. */
  readonly records: string[];
  /** Of the record, or of the one before it when it cannot be told; null when neither can. */
  readonly timeMicros: number | null;
  readonly detail: string;
}

/** A page of a terminal is 50 lines; whoever has more findings has one cause. */
const MAX_FINDINGS = 1000;

export class Findings {
  readonly list: Finding[] = [];
  total = 0;
  readonly notes: string[] = [];
  #moreNotes = 0;

  add(finding: Partial<Finding> & Pick<Finding, 'kind' | 'detail'>): Finding {
    const whole = { fromIndex: null, toIndex: finding.fromIndex ?? null, records: [], timeMicros: null, ...finding };
    this.total += 1;
    if (this.list.length < MAX_FINDINGS) this.list.push(whole);
    return whole;
  }

  /** Whether there is a finding about an entry already. */
  isAbout(index: number): boolean {
    return this.list.some(({ fromIndex, toIndex }) => fromIndex !== null && fromIndex <= index && index <= (toIndex ?? fromIndex));
  }

  /** Something an auditor should know that is no proof of a change. */
  note(text: string): void {
    if (this.notes.length < MAX_FINDINGS) this.notes.push(text);
    else this.#moreNotes += 1;
  }

  /** Says what did not fit. Call once, at the end. */
  close(): void {
    if (this.total > this.list.length) this.notes.push(`${this.total - this.list.length} more findings are not listed`);
    if (this.#moreNotes > 0) this.notes.push(`${this.#moreNotes} more notes are not listed`);
  }
}

/** Names of consecutive numbers of a stream. */
export function recordNames(stream: number, from: number, to: number): string {
  return from === to ? `${stream}/${from}` : `${stream}/${from}..${to}`;
}
