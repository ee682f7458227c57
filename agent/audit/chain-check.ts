import { digestOf, LINK_BYTES, linkOf } from '../store/chain.ts';
import { decodeEntry, type Entry } from '../store/entry.ts';
import type { StoredEntry } from '../store/reader.ts';
import type { Findings } from './findings.ts';
import type { SequenceCheck } from './sequence-check.ts';

export interface ChainCounts {
  entries: number;
  /** By kind: 1 decision, 2 observation, 3 alert, 4 gap, 5 event. */
  readonly kinds: Map<number, number>;
  telemetryKept: number;
  telemetryDropped: number;
  firstIndex: number | null;
  firstMicros: number | null;
  lastMicros: number | null;
}

/**
 * Every entry has the link that follows from the one before it. After a finding the check goes on from the link as it is
 * stored, so that a change is found at its own entry and not at every one behind it.
 */
export class ChainCheck {
  readonly counts: ChainCounts = {
    entries: 0,
    kinds: new Map(),
    telemetryKept: 0,
    telemetryDropped: 0,
    firstIndex: null,
    firstMicros: null,
    lastMicros: null,
  };
  readonly #findings: Findings;
  readonly #sequences: SequenceCheck;
  readonly #onDropped: (index: number) => void;
  #index: number;
  /**
   * What the link before may be. Two after a link that does not follow: as stored, when it is the entry that was changed, and
   * as it should be, when it is the link. None when the entry before is not there.
   */
  #links: readonly Uint8Array[];
  #isSound = true;

  constructor(
    start: { readonly index: number; readonly link: Uint8Array | null },
    services: { readonly findings: Findings; readonly sequences: SequenceCheck; readonly onDropped: (index: number) => void },
  ) {
    this.#index = start.index;
    this.#links = start.link === null ? [] : [start.link];
    this.#findings = services.findings;
    this.#sequences = services.sequences;
    this.#onDropped = services.onDropped;
  }

  get index(): number {
    return this.#index;
  }

  /** The link of the last entry; null when there is a finding about it already. */
  get link(): Uint8Array | null {
    return this.#isSound ? (this.#links[0] ?? null) : null;
  }

  /** Takes the entries of the log in the order of their keys. Returns the entry when it is sound. */
  add({ index, bytes, telemetry }: StoredEntry): Entry | null {
    if (index > this.#index + 1) this.missing(index - 1);
    const stored = Uint8Array.from(bytes.subarray(0, LINK_BYTES));
    const wanted = this.#links.map((link) => linkOf(bytes, link));
    const entry = decodeEntry(bytes);
    const defect = defectOf(entry, index, stored, wanted);
    this.#index = index;
    this.counts.entries += 1;
    this.counts.firstIndex ??= index;
    if (entry === null || defect !== null) {
      const isMoved = entry !== null && entry.index !== index;
      const timeMicros = entry === null || isMoved ? this.counts.lastMicros : entry.timeMicros;
      this.#sequences.damaged(
        this.#findings.add({ kind: isMoved ? 'moved' : 'changed', fromIndex: index, timeMicros, detail: defect ?? 'it cannot be read' }),
      );
      if (entry !== null) this.#sequences.belongs(entry.index, entry);
      this.#isSound = false;
      // The entry that belongs here is elsewhere, and its link with it.
      this.#links = isMoved ? [] : [stored, ...wanted.slice(0, 1)];
      return null;
    }
    if (this.#links.length === 0) {
      this.#findings.note(`entry ${index} cannot be checked against the one before it, which is not there; its check sum is right`);
    }
    this.#links = [stored];
    this.#isSound = true;
    this.#count(entry);
    this.#checkTelemetry(entry, telemetry);
    this.#sequences.add(entry, index);
    return entry;
  }

  /** The entries up to an index are not there. */
  missing(toIndex: number): void {
    if (toIndex <= this.#index) return;
    const timeMicros = this.counts.lastMicros;
    const detail = 'nothing is stored under these numbers';
    this.#sequences.damaged(this.#findings.add({ kind: 'missing', fromIndex: this.#index + 1, toIndex, timeMicros, detail }));
    this.#index = toIndex;
    this.#links = [];
    this.#isSound = false;
  }

  /** Entries that retention dropped while they were being read. */
  skip(toIndex: number, link: Uint8Array | null): void {
    this.#index = toIndex;
    this.#links = link === null ? [] : [link];
    this.#sequences.skipped();
  }

  #count({ kind, timeMicros }: Entry): void {
    const { counts } = this;
    counts.kinds.set(kind, (counts.kinds.get(kind) ?? 0) + 1);
    counts.firstMicros = counts.firstMicros === null ? timeMicros : Math.min(counts.firstMicros, timeMicros);
    counts.lastMicros = counts.lastMicros === null ? timeMicros : Math.max(counts.lastMicros, timeMicros);
  }

  #checkTelemetry({ index, telemetryDigest, stream, sequence, timeMicros }: Entry, telemetry: Uint8Array | null): void {
    if (telemetry === null) {
      if (telemetryDigest === null) return;
      this.counts.telemetryDropped += 1;
      this.#onDropped(index);
      return;
    }
    this.counts.telemetryKept += 1;
    if (telemetryDigest !== null && Buffer.from(digestOf(telemetry)).equals(telemetryDigest)) return;
    const detail =
      telemetryDigest === null
        ? 'it has features or outputs, and none were stored'
        : 'its features or outputs are not those it was stored with';
    const records = stream === null ? [] : [`${stream}/${sequence}`];
    this.#findings.add({ kind: 'changed', fromIndex: index, records, timeMicros, detail });
  }
}

function defectOf(entry: Entry | null, index: number, stored: Uint8Array, wanted: readonly Uint8Array[]): string | null {
  if (entry === null) return 'its bytes do not fit their own check sum';
  if (entry.index !== index) return `it is entry ${entry.index}`;
  if (wanted.length === 0 || wanted.some((link) => Buffer.from(link).equals(stored))) return null;
  return 'its link does not follow from the entry before it';
}
