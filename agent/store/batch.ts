import { RecordBuffer } from '../journal/record.ts';
import { LINK_BYTES, linkEntry, writeDigest } from './chain.ts';
import type { Tables } from './database.ts';
import { bundleOf, encodeEntry, entryLength, type EntryHeader, featuresCut, outputsCut, substrateOf } from './entry.ts';
import { encodeHead, HEAD_KEY, numberKey, substrateKey } from './keys.ts';
import { OpenRuns } from './runs.ts';
import type { StoreHead } from './writer.ts';

/** Room for 1,024 usual entries, or their telemetry, without growing. */
const START_BYTES = 1024 * 1024;
const NO_BYTES = new Uint8Array(0);

/**
 * Entries made ready for one transaction. Everything that can fail for a reason of ours is done here, so that inside the
 * transaction there is nothing but puts. Its memory is used again by the next batch.
 */
export class Batch {
  readonly #tables: Tables;
  readonly #runs: OpenRuns;
  #buffer = new RecordBuffer(START_BYTES);
  #used = 0;
  #telemetryBuffer = new Uint8Array(START_BYTES);
  #telemetryUsed = 0;
  readonly #entries: Uint8Array[] = [];
  readonly #telemetry: (Uint8Array | null)[] = [];
  readonly #substrates: (Uint8Array | null)[] = [];
  readonly #log: bigint;
  #index: number;
  readonly #link: Uint8Array;
  readonly #digest = new Uint8Array(LINK_BYTES);
  readonly #key = new Uint8Array(8);

  constructor(tables: Tables, { log, index, link }: StoreHead) {
    this.#tables = tables;
    this.#runs = new OpenRuns(tables);
    this.#log = log;
    this.#index = index;
    this.#link = link.slice();
  }

  /** The last entry that was added. */
  get head(): StoreHead {
    return { log: this.#log, index: this.#index, link: this.#link.slice() };
  }

  add(record: Omit<EntryHeader, 'index'>, request: Uint8Array, reply: Uint8Array): void {
    const requestCut = featuresCut(record.kind, request);
    const replyCut = outputsCut(record.kind, reply);
    const telemetry = this.#keepApart(
      request.subarray(requestCut.start, requestCut.start + requestCut.length),
      reply.subarray(replyCut.start, replyCut.start + replyCut.length),
    );
    if (telemetry !== null) writeDigest(telemetry, this.#digest, 0);
    this.#index += 1;
    const header = { ...record, index: this.#index };
    const start = this.#reserve(entryLength(request, requestCut, reply, replyCut));
    const end = encodeEntry(this.#buffer, start, header, request, requestCut, reply, replyCut, telemetry === null ? null : this.#digest);
    this.#used = Math.ceil(end / 4) * 4;
    const entry = this.#buffer.bytes.subarray(start, end);
    linkEntry(entry, this.#link);
    for (let at = 0; at < LINK_BYTES; at += 1) this.#link[at] = entry[at] as number;
    const substrate = substrateOf(record.kind, request);
    this.#entries.push(entry);
    this.#telemetry.push(telemetry);
    this.#substrates.push(substrate === null ? null : substrateKey(substrate, header.index));
    this.#runs.note(header, bundleOf(record.kind, reply));
  }

  /** Both elements, one behind the other. */
  #keepApart(features: Uint8Array, outputs: Uint8Array): Uint8Array | null {
    const length = features.length + outputs.length;
    if (length === 0) return null;
    const start = this.#telemetryUsed;
    const end = start + length;
    // What was given out before stays in the memory it is in.
    if (end > this.#telemetryBuffer.length) {
      this.#telemetryBuffer = new Uint8Array(Math.max(START_BYTES, length));
      this.#telemetryUsed = 0;
      return this.#keepApart(features, outputs);
    }
    this.#telemetryBuffer.set(features, start);
    this.#telemetryBuffer.set(outputs, start + features.length);
    this.#telemetryUsed = end;
    return this.#telemetryBuffer.subarray(start, end);
  }

  #reserve(length: number): number {
    if (this.#used + length > this.#buffer.bytes.length) {
      this.#buffer = new RecordBuffer(Math.max(START_BYTES, length));
      this.#used = 0;
    }
    return this.#used;
  }

  /** Inside the transaction: the entries, what leads to them, and the head. */
  write(): void {
    const { records, telemetry, substrates, meta } = this.#tables;
    const first = this.#index - this.#entries.length + 1;
    for (const [at, entry] of this.#entries.entries()) {
      numberKey(first + at, this.#key);
      records.append(this.#key, entry);
      const apart = this.#telemetry[at];
      if (apart !== null && apart !== undefined) telemetry.append(this.#key, apart);
      const substrate = this.#substrates[at];
      if (substrate !== null && substrate !== undefined) substrates.put(substrate, NO_BYTES);
    }
    this.#runs.write();
    meta.put(HEAD_KEY, encodeHead(HEAD_KEY, this.head));
  }

  /** Makes room for the next batch, once this one is committed. */
  clear(): void {
    this.#entries.length = 0;
    this.#telemetry.length = 0;
    this.#substrates.length = 0;
    this.#used = 0;
    this.#telemetryUsed = 0;
  }
}
