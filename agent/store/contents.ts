import type { Tables } from './database.ts';
import { decodeEntry, type Entry } from './entry.ts';
import { StoreDamagedError } from './errors.ts';
import {
  ANCHOR_KEY,
  decodeHead,
  decodeNumber,
  decodePosition,
  HEAD_KEY,
  numberKey,
  POSITION_PREFIX,
  prefixEnd,
  stateKey,
  TELEMETRY_KEY,
  unseal,
} from './keys.ts';
import type { DrainPosition, StoreHead } from './writer.ts';

/** What a store says of itself, and single entries; each value with its check. Shared by writer, reader and check. */

/** The last entry; null in a store whose first entry was never committed. */
export function readHead(tables: Tables): StoreHead | null {
  return readMeta(tables, HEAD_KEY, decodeHead);
}

/** The last entry that was dropped; null when every entry is still there. */
export function readAnchor(tables: Tables): StoreHead | null {
  return readMeta(tables, ANCHOR_KEY, decodeHead);
}

/** Index of the first entry whose telemetry was not dropped. */
export function readTelemetryFirst(tables: Tables): number {
  return readMeta(tables, TELEMETRY_KEY, decodeNumber) ?? 1;
}

export function readPositions(tables: Tables): DrainPosition[] {
  const range = { start: POSITION_PREFIX, end: prefixEnd(POSITION_PREFIX) };
  return [...tables.meta.range(range)].map(({ key, value }) => checked(decodePosition(key, value), 'a position'));
}

export function readState(tables: Tables, name: string): unknown {
  const json = readMeta(tables, stateKey(name), unseal);
  return json === null ? null : (JSON.parse(new TextDecoder().decode(json)) as unknown);
}

function readMeta<Value>(tables: Tables, key: Uint8Array, decode: (key: Uint8Array, value: Uint8Array) => Value | null): Value | null {
  const value = tables.meta.get(key);
  return value === null ? null : checked(decode(key, value), `"${new TextDecoder().decode(key)}"`);
}

/** @throws StoreDamagedError for null */
export function checked<Value>(value: Value | null, what: string): Value {
  if (value === null) throw new StoreDamagedError(`Cannot read ${what} of the store: its bytes are damaged`);
  return value;
}

export interface ReadEntry {
  readonly entry: Entry;
  readonly bytes: Uint8Array;
}

/** An entry as it must be under this index. @throws StoreDamagedError */
export function checkedEntry(bytes: Uint8Array, index: number): ReadEntry {
  const entry = decodeEntry(bytes);
  if (entry === null || entry.index !== index) {
    const why = entry === null ? 'its bytes are damaged' : `entry ${entry.index} is in its place`;
    throw new StoreDamagedError(`Cannot read entry ${index} of the store: ${why}`, { index });
  }
  return { entry, bytes };
}

export function missingEntry(index: number): StoreDamagedError {
  return new StoreDamagedError(`Cannot read entry ${index} of the store: it is missing`, { index });
}

/** The entry at an index that was not dropped. @throws StoreDamagedError */
export function readEntry(tables: Tables, index: number): ReadEntry {
  const bytes = tables.records.get(numberKey(index));
  if (bytes === null) throw missingEntry(index);
  return checkedEntry(bytes, index);
}
