import { decodeGap, type Gap } from '../journal/gap.ts';
import { RECORD_KINDS } from '../journal/record.ts';
import { EVENT_KIND } from '../store/entry.ts';
import { type Finding, type Findings, recordNames } from './findings.ts';

/** What the check needs of an entry or of a record of the journal. */
export interface NumberedRecord {
  /** Null for the store's own events. */
  readonly stream: number | null;
  readonly kind: number;
  readonly epoch: bigint;
  readonly sequence: number;
  readonly timeMicros: number;
  readonly request: Uint8Array;
}

interface StreamState {
  epoch: bigint;
  lastSequence: number;
  /** Index of the last sound entry of this stream. */
  lastIndex: number;
}

/** Numbers that the log itself states as lost. */
export interface StatedGap {
  readonly stream: number | null;
  readonly from: number;
  readonly to: number;
  readonly timeMicros: number;
  readonly reason: string;
}

const MAX_STATED_GAPS = 1000;
const MAX_DAMAGED = 1000;

/**
 * The numbers of every stream follow each other, or a record says why not. A hole that a changed, missing or moved entry
 * leaves names that entry's record and is no finding of its own, so that one change is one finding. Pure.
 */
export class SequenceCheck {
  readonly gaps: StatedGap[] = [];
  gapCount = 0;
  readonly #findings: Findings;
  readonly #streams = new Map<number, StreamState>();
  /** Findings about entries, whose records leave holes. */
  readonly #damaged: Finding[] = [];
  /** By index of the entry, the record that it was. */
  readonly #known = new Map<number, { readonly stream: number | null; readonly sequence: number }>();
  #isWhole: boolean;

  /** @param isWhole the log is here from its first entry on, so that every stream starts with number 1 */
  constructor(findings: Findings, isWhole: boolean) {
    this.#findings = findings;
    this.#isWhole = isWhole;
  }

  /** An entry that cannot be trusted; its record will be missed. */
  damaged(finding: Finding): void {
    if (this.#damaged.length < MAX_DAMAGED) this.#damaged.push(finding);
  }

  /** Entries are left out that retention dropped: what comes next in a stream may have any number. */
  skipped(): void {
    this.#isWhole = false;
    this.#streams.clear();
  }

  /** What an entry was that was found elsewhere, or whose bytes are whole though its link is wrong. */
  belongs(index: number, { stream, sequence }: Pick<NumberedRecord, 'stream' | 'sequence'>): void {
    if (this.#known.size < MAX_DAMAGED) this.#known.set(index, { stream, sequence });
  }

  /** A sound entry, in the order of the log. */
  add(record: NumberedRecord, index: number): void {
    const { stream, kind, request, sequence, timeMicros, epoch } = record;
    if (stream === null) {
      if (kind === EVENT_KIND) this.#event(request, timeMicros, index);
      return;
    }
    const gap = this.stated(record);
    this.#follow(stream, { from: Math.min(gap?.from ?? sequence, sequence), to: sequence, epoch }, timeMicros, index);
  }

  /** Takes down what a gap record states, also one that is in the journal only. */
  stated({ stream, kind, request, timeMicros }: Pick<NumberedRecord, 'stream' | 'kind' | 'request' | 'timeMicros'>): Gap | null {
    const gap = kind === RECORD_KINDS.gap ? decodeGap(request) : null;
    if (gap !== null) this.#state({ stream, from: gap.from, to: gap.to, timeMicros, reason: `${gap.reason}: ${gap.detail}` });
    return gap;
  }

  /** The store says that a stream was stored up to this number. */
  expect(stream: number, lastSequence: number, index: number): void {
    const state = this.#streams.get(stream);
    const last = state?.lastSequence ?? (this.#isWhole ? 0 : lastSequence);
    if (last < lastSequence) this.#hole(stream, last + 1, lastSequence, state, null, index);
  }

  #event(request: Uint8Array, timeMicros: number, index: number): void {
    const body = JSON.parse(new TextDecoder().decode(request)) as Record<string, unknown>;
    const { event, stream, from, to, reason, detail } = body;
    if (event !== 'lost' || typeof from !== 'number' || typeof to !== 'number') return;
    const isOfStream = typeof stream === 'number';
    this.#state({ stream: isOfStream ? stream : null, from, to, timeMicros, reason: `${String(reason)}: ${String(detail)}` });
    if (!isOfStream) return;
    this.#follow(stream, { from, to, epoch: null }, timeMicros, index);
  }

  #state(gap: StatedGap): void {
    this.gapCount += 1;
    if (this.gaps.length < MAX_STATED_GAPS) this.gaps.push(gap);
  }

  #follow(
    stream: number,
    { from, to, epoch }: { from: number; to: number; epoch: bigint | null },
    timeMicros: number,
    index: number,
  ): void {
    const state = this.#streams.get(stream);
    if (state === undefined) {
      if (this.#isWhole && from > 1) this.#hole(stream, 1, from - 1, undefined, timeMicros, index);
      this.#streams.set(stream, { epoch: epoch ?? 0n, lastSequence: to, lastIndex: index });
      return;
    }
    // An event that states a loss twice, after a crash between its commit and the next, changes nothing.
    if (to <= state.lastSequence && epoch !== null) this.#again(stream, from, to, epoch, state, timeMicros, index);
    else if (from > state.lastSequence + 1) this.#hole(stream, state.lastSequence + 1, from - 1, state, timeMicros, index);
    const isAnew = epoch !== null && epoch !== state.epoch;
    state.lastSequence = isAnew ? to : Math.max(state.lastSequence, to);
    state.epoch = epoch ?? state.epoch;
    state.lastIndex = index;
  }

  #again(stream: number, from: number, to: number, epoch: bigint, state: StreamState, timeMicros: number, index: number): void {
    const records = [recordNames(stream, from, to)];
    if (epoch === state.epoch) {
      const detail = `its number does not follow ${state.lastSequence}, the one before it in its stream`;
      this.#findings.add({ kind: 'moved', fromIndex: index, records, timeMicros, detail });
    } else {
      this.#findings.note(`stream ${stream} was begun anew: number ${from} follows ${state.lastSequence} (entry ${index})`);
    }
  }

  /** Between the last sound entry of the stream and this one: entries that are no longer what they were explain it. */
  #hole(stream: number, from: number, to: number, state: StreamState | undefined, timeMicros: number | null, index: number): void {
    const since = state?.lastIndex ?? 0;
    const causes = this.#damaged.filter(({ toIndex, fromIndex }) => (toIndex ?? 0) > since && (fromIndex ?? 0) < index);
    if (causes.length === 0) {
      const detail = 'no record holds these numbers, and no gap record says why';
      this.#findings.add({ kind: 'hole', fromIndex: index, records: [recordNames(stream, from, to)], timeMicros, detail });
      return;
    }
    const possible = causes.filter((cause) => {
      const known = this.#known.get(cause.fromIndex ?? 0);
      if (known === undefined) return cause.records.length === 0 || cause.kind === 'missing';
      return known.stream === stream && isIn(known.sequence, from, to);
    });
    const sure = possible.filter(({ fromIndex }) => this.#known.has(fromIndex ?? 0));
    const fitting = sure.length === to - from + 1 ? sure : possible;
    let next = from;
    for (const [at, cause] of (fitting.length > 0 ? fitting : causes.slice(0, 1)).entries()) {
      if (next > to) return;
      const capacity = (cause.toIndex ?? 0) - (cause.fromIndex ?? 0) + 1;
      const last = at >= fitting.length - 1 ? to : Math.min(to, this.#known.get(cause.fromIndex ?? 0)?.sequence ?? next + capacity - 1);
      cause.records.push(recordNames(stream, next, last));
      next = last + 1;
    }
  }
}

function isIn(value: number, from: number, to: number): boolean {
  return value >= from && value <= to;
}
