import { writeSync } from 'node:fs';
import { readAnchor, readHead } from './contents.ts';
import { StoreDatabase } from './database.ts';
import { decodeEntry } from './entry.ts';
import { numberKey, numberOfKey } from './keys.ts';
import { encodeMessage, MESSAGE_TYPES } from './salvage-messages.ts';

/**
 * Writes what a damaged store still gives to stdout, until the damage kills it.
 * Arguments: the folder, and the index to start at, or "bounds" for how far the store should reach.
 */
const STDOUT = 1;
const PAUSE_MILLIS = 1;
const [directory = '', from = ''] = process.argv.slice(2);
const database = StoreDatabase.openForReading(directory);

/** Synchronously, so that nothing that was read is lost when the next read is the last. */
function write(bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    try {
      at += writeSync(STDOUT, bytes, at);
    } catch (error) {
      if (!(error instanceof Error) || !('code' in error) || error.code !== 'EAGAIN') throw error;
      // The reader is behind.
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MILLIS);
    }
  }
}

if (database !== null && from === 'bounds') {
  const { tables } = database;
  write(encodeMessage(MESSAGE_TYPES.bounds, [readAnchor(tables)?.index ?? 0, readHead(tables)?.index ?? 0]));
} else if (database !== null) {
  const { records, telemetry } = database.tables;
  for (const { key, value } of records.range({ start: numberKey(Number(from)) })) {
    const entry = decodeEntry(value);
    if (entry === null || key.length !== 8 || entry.index !== numberOfKey(key)) continue;
    // First the entry alone: reading its telemetry may be the end of this process.
    write(encodeMessage(MESSAGE_TYPES.entry, [entry.index, 0], value));
    if (entry.telemetryDigest === null) continue;
    const apart = telemetry.get(key);
    if (apart !== null) write(encodeMessage(MESSAGE_TYPES.entry, [entry.index, 0], value, apart));
  }
}
