import { checked } from './contents.ts';
import type { Table, Tables } from './database.ts';
import type { EntryHeader } from './entry.ts';
import { blockOf, bundleKey, decodeRun, encodeRun, epochOfKey, isSame, numberKey, type Run, sequenceKey } from './keys.ts';

interface OpenRun {
  readonly table: Table;
  readonly key: Uint8Array;
  readonly run: Run;
}

/** A run of sequences with its place. */
export interface FoundRun {
  readonly key: Uint8Array;
  readonly run: Run;
}

/**
 * The sparse indices of the entries being added. Within a block of 1,024 entries there is one key for its times, one for
 * each bundle, and one for each stream and epoch: three small values where a dense index would have 3,072.
 */
export class OpenRuns {
  readonly #tables: Tables;
  #block = -1;
  #times: OpenRun | null = null;
  readonly #streams = new Map<number, OpenRun & { readonly epoch: bigint }>();
  readonly #bundles = new Map<string, OpenRun>();
  #lastBundle: { readonly id: Uint8Array; readonly open: OpenRun } | null = null;
  readonly #touched = new Set<OpenRun>();

  constructor(tables: Tables) {
    this.#tables = tables;
  }

  /** Takes an entry into the runs it belongs to. Call write() before the end of the transaction that adds it. */
  note(header: EntryHeader, bundleId: Uint8Array | null): void {
    const { index, stream, timeMicros } = header;
    const block = blockOf(index);
    if (block !== this.#block) this.#begin(block);
    this.#times ??= this.#load(this.#tables.blocks, numberKey(block));
    this.#extend(this.#times, index, timeMicros);
    if (stream !== null) this.#extend(this.#sequences(stream, header), index, header.sequence);
    if (bundleId !== null) this.#extend(this.#bundle(bundleId), index, timeMicros);
  }

  #begin(block: number): void {
    this.#block = block;
    this.#times = null;
    this.#streams.clear();
    this.#bundles.clear();
    this.#lastBundle = null;
  }

  #sequences(stream: number, { epoch, sequence }: EntryHeader): OpenRun {
    const known = this.#streams.get(stream);
    if (known !== undefined && known.epoch === epoch) return known;
    const found = lastRun(this.#tables, stream, epoch, sequence);
    const table = this.#tables.sequences;
    const open =
      found !== null && blockOf(found.run.lastIndex) === this.#block
        ? { table, ...found, epoch }
        : { table, key: sequenceKey(stream, epoch, sequence), run: emptyRun(), epoch };
    this.#streams.set(stream, open);
    return open;
  }

  #bundle(id: Uint8Array): OpenRun {
    const last = this.#lastBundle;
    if (last !== null && isSame(last.id, id)) return last.open;
    const name = Buffer.from(id.buffer, id.byteOffset, id.length).toString('latin1');
    const open = this.#bundles.get(name) ?? this.#load(this.#tables.bundles, bundleKey(id, this.#block));
    this.#bundles.set(name, open);
    this.#lastBundle = { id: id.slice(), open };
    return open;
  }

  #load(table: Table, key: Uint8Array): OpenRun {
    const value = table.get(key);
    return { table, key, run: value === null ? emptyRun() : checked(decodeRun(key, value), 'an index') };
  }

  #extend(open: OpenRun, index: number, value: number): void {
    const { run } = open;
    if (run.count === 0) run.firstIndex = index;
    run.lastIndex = index;
    run.low = run.count === 0 ? value : Math.min(run.low, value);
    run.high = Math.max(run.high, value);
    run.count += 1;
    this.#touched.add(open);
  }

  /** Inside the transaction. */
  write(): void {
    for (const { table, key, run } of this.#touched) table.put(key, encodeRun(key, run));
    this.#touched.clear();
  }
}

function emptyRun(): Run {
  return { firstIndex: 0, lastIndex: 0, low: 0, high: 0, count: 0 };
}

/** The last run of a stream and epoch that starts at `sequence` or before. */
export function lastRun(tables: Tables, stream: number, epoch: bigint, sequence: number): FoundRun | null {
  const end = sequenceKey(stream, epoch, 0).slice(0, 12);
  const found = tables.sequences.first({ start: sequenceKey(stream, epoch, sequence), end, reverse: true });
  if (found === null || !isSame(found.key.subarray(0, 12), end)) return null;
  return { key: found.key, run: checked(decodeRun(found.key, found.value), 'an index') };
}

/** The epochs that a stream has had in this store. */
export function epochsOf(tables: Tables, stream: number): bigint[] {
  const epochs: bigint[] = [];
  const end = sequenceKey(stream + 1, 0n, 0);
  let start = sequenceKey(stream, 0n, 0);
  for (;;) {
    const found = tables.sequences.first({ start, end });
    if (found === null) return epochs;
    const epoch = epochOfKey(found.key);
    epochs.push(epoch);
    if (epoch === 0xffff_ffff_ffff_ffffn) return epochs;
    start = sequenceKey(stream, epoch + 1n, 0);
  }
}
