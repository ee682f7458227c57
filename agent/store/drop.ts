import { checked, checkedEntry, missingEntry, readAnchor, readEntry, readTelemetryFirst } from './contents.ts';
import type { Tables } from './database.ts';
import { bundleOf, type Entry, substrateOf } from './entry.ts';
import {
  ANCHOR_KEY,
  blockOf,
  bundleKey,
  decodeRun,
  encodeHead,
  encodeNumber,
  numberKey,
  numberOfKey,
  substrateKey,
  TELEMETRY_KEY,
} from './keys.ts';
import { LINK_BYTES } from './chain.ts';
import { lastRun } from './runs.ts';
import type { DropLimit, StoreHead } from './writer.ts';

/**
 * Entries dropped in one transaction. lmdb has been reported to fail with large batches of deletes; batches of this size
 * were run for hours.
 */
const MAX_DROPS = 500;

/** What one transaction drops, found beforehand so that inside it there are only deletes. */
export interface Drop {
  readonly fromIndex: number;
  readonly toIndex: number;
  readonly count: number;
  /** Inside the transaction. */
  readonly write: () => void;
}

/** The oldest telemetry within the limit; null when there is none. */
export function planTelemetryDrop(tables: Tables, limit: DropLimit): Drop | null {
  const { olderThanMicros = Infinity, maxRecords } = limit;
  const indices: number[] = [];
  for (const key of tables.telemetry.keys({ limit: Math.min(maxRecords, MAX_DROPS) })) {
    const index = numberOfKey(key);
    if (readEntry(tables, index).entry.timeMicros >= olderThanMicros) break;
    indices.push(index);
  }
  const fromIndex = indices[0];
  const toIndex = indices.at(-1);
  if (fromIndex === undefined || toIndex === undefined) return null;
  const write = (): void => {
    for (const index of indices) tables.telemetry.remove(numberKey(index));
    tables.meta.put(TELEMETRY_KEY, encodeNumber(TELEMETRY_KEY, toIndex + 1));
  };
  return { fromIndex, toIndex, count: indices.length, write };
}

/** The oldest entries within the limit, with everything that leads to them; never the last entry. Null when there is none. */
export function planRecordDrop(tables: Tables, limit: DropLimit, head: StoreHead): Drop | null {
  const { olderThanMicros = Infinity, maxRecords } = limit;
  const fromIndex = (readAnchor(tables)?.index ?? 0) + 1;
  const toEnd = Math.min(fromIndex + Math.min(maxRecords, MAX_DROPS), head.index);
  const entries: Entry[] = [];
  let link: Uint8Array | null = null;
  for (const { key, value } of tables.records.range({ start: numberKey(fromIndex), end: numberKey(toEnd) })) {
    const index = fromIndex + entries.length;
    if (numberOfKey(key) !== index) throw missingEntry(index);
    const { entry } = checkedEntry(value, index);
    if (entry.timeMicros >= olderThanMicros) break;
    entries.push(entry);
    link = value.subarray(0, LINK_BYTES);
  }
  if (link === null) return null;
  const toIndex = fromIndex + entries.length - 1;
  const anchor = { log: head.log, index: toIndex, link };
  const telemetryFirst = Math.max(readTelemetryFirst(tables), toIndex + 1);
  const leading = keysLeadingTo(tables, entries, toIndex);
  const write = (): void => {
    for (const entry of entries) {
      const key = numberKey(entry.index);
      tables.records.remove(key);
      if (entry.telemetryDigest !== null) tables.telemetry.remove(key);
    }
    for (const [table, key] of leading) tables[table].remove(key);
    tables.meta.put(ANCHOR_KEY, encodeHead(ANCHOR_KEY, anchor));
    tables.meta.put(TELEMETRY_KEY, encodeNumber(TELEMETRY_KEY, telemetryFirst));
  };
  return { fromIndex, toIndex, count: entries.length, write };
}

type Leading = readonly ['substrates' | 'bundles' | 'sequences' | 'blocks' | 'checkpoints', Uint8Array];

/**
 * Keys that lead to nothing any more. A sparse key goes with the last entry it stands for, and that entry is among those
 * dropped; so looking at the dropped ones finds every such key.
 */
function keysLeadingTo(tables: Tables, entries: readonly Entry[], toIndex: number): Leading[] {
  const leading: Leading[] = [];
  const seen = new Set<string>();
  const dropRun = (table: 'bundles' | 'sequences' | 'blocks', key: Uint8Array): void => {
    const name = `${table} ${Buffer.from(key).toString('latin1')}`;
    if (seen.has(name)) return;
    seen.add(name);
    const value = tables[table].get(key);
    if (value !== null && checked(decodeRun(key, value), 'an index').lastIndex <= toIndex) leading.push([table, key]);
  };
  const lastOfStream = new Map<string, Entry>();
  for (const entry of entries) {
    const block = blockOf(entry.index);
    dropRun('blocks', numberKey(block));
    const substrate = substrateOf(entry.kind, entry.request);
    if (substrate !== null) leading.push(['substrates', substrateKey(substrate, entry.index)]);
    const bundleId = bundleOf(entry.kind, entry.reply);
    if (bundleId !== null) dropRun('bundles', bundleKey(bundleId, block));
    if (entry.stream !== null) lastOfStream.set(`${entry.stream} ${entry.epoch} ${block}`, entry);
  }
  for (const { stream, epoch, sequence } of lastOfStream.values()) {
    const found = stream === null ? null : lastRun(tables, stream, epoch, sequence);
    if (found !== null) dropRun('sequences', found.key);
  }
  // A checkpoint of a dropped entry vouches for nothing that is here; the newest of them still vouches for the anchor.
  const checkpoints = [...tables.checkpoints.keys({ end: numberKey(toIndex), limit: MAX_DROPS })];
  for (const key of checkpoints) leading.push(['checkpoints', key]);
  return leading;
}
