import { decodeRecord } from './record.ts';

interface RingRecord {
  readonly sequence: number;
  readonly bytes: Uint8Array;
}

/** Consecutive records as they stand in a file. */
export interface Batch {
  readonly bytes: Uint8Array;
  readonly lastSequence: number;
}

/**
 * The records that could not be written yet, oldest first, in bounded memory. What does not fit pushes out the oldest: what
 * is lost is always one run of numbers, right behind the last number in the file.
 */
export class Ring {
  readonly #maxBytes: number;
  #records: RingRecord[] = [];
  /** Index of the oldest: taking from the front of a long array one by one would copy it each time. */
  #head = 0;
  #bytes = 0;

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  get count(): number {
    return this.#records.length - this.#head;
  }

  /** Number of the oldest record, null when there is none. */
  get firstSequence(): number | null {
    return this.#records[this.#head]?.sequence ?? null;
  }

  /** Takes copies of the records in `encoded`, whole ones that follow one another. */
  push(encoded: Uint8Array): void {
    for (let at = 0; at < encoded.byteLength;) {
      const record = decodeRecord(encoded, at);
      if (typeof record === 'string') throw new Error(`Assertion failed: the journal's own bytes are ${record} at ${at}`);
      this.#records.push({ sequence: record.sequence, bytes: encoded.slice(at, at + record.stride) });
      this.#bytes += record.stride;
      at += record.stride;
      while (this.#bytes > this.#maxBytes) this.#removeOldest();
    }
  }

  /** Takes back the records from `sequence` on. */
  withdrawFrom(sequence: number): void {
    for (let last = this.#records.at(-1); this.count > 0 && last !== undefined && last.sequence >= sequence; last = this.#records.at(-1)) {
      this.#bytes -= last.bytes.byteLength;
      this.#records.pop();
    }
  }

  /** The oldest records, of together `maxBytes` at most, but one at least; null when there is none. */
  oldest(maxBytes: number): Batch | null {
    let end = this.#head;
    let length = 0;
    for (let record = this.#records[end]; record !== undefined; record = this.#records[++end]) {
      if (length > 0 && length + record.bytes.byteLength > maxBytes) break;
      length += record.bytes.byteLength;
    }
    const last = this.#records[end - 1];
    if (length === 0 || last === undefined) return null;
    const bytes = new Uint8Array(length);
    let at = 0;
    for (const record of this.#records.slice(this.#head, end)) {
      bytes.set(record.bytes, at);
      at += record.bytes.byteLength;
    }
    return { bytes, lastSequence: last.sequence };
  }

  /** Lets go of the records up to `sequence`; returns how many there were. */
  removeThrough(sequence: number): number {
    const before = this.count;
    for (let first = this.firstSequence; first !== null && first <= sequence; first = this.firstSequence) this.#removeOldest();
    return before - this.count;
  }

  #removeOldest(): void {
    this.#bytes -= this.#records[this.#head]?.bytes.byteLength ?? 0;
    this.#head++;
    if (this.#head * 2 > this.#records.length) {
      this.#records = this.#records.slice(this.#head);
      this.#head = 0;
    }
  }
}
