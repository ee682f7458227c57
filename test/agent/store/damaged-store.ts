import { mkdirSync } from 'node:fs';
import type { StoredRecord } from '../../../agent/store/reader.ts';
import { type RecordToStore, StoreWriter } from '../../../agent/store/writer.ts';
import { decision, observation, positionAt } from './records.ts';

/** A small store with a bit of everything in it, and what its records must be. */

export const LAST = 600;
export const DROPPED = 100;

function recordAt(sequence: number): RecordToStore {
  return sequence % 10 === 0 ? observation(sequence, `LOT${Math.floor(sequence / 25)}.${sequence % 25}`) : decision(sequence);
}

export async function makeStore(directory: string): Promise<void> {
  mkdirSync(directory, { recursive: true });
  const writer = StoreWriter.open(directory, { newLog: () => 77n, nowMicros: () => 1, previous: null });
  for (let from = 1; from <= LAST; from += 60) {
    const records = Array.from({ length: 60 }, (_, at) => recordAt(from + at));
    await writer.append(records, positionAt(from + 59));
  }
  await writer.dropTelemetry({ maxRecords: DROPPED }, 'size');
  await writer.putState('counters', { a: 1 });
  await writer.putCheckpoint(300, Uint8Array.of(1, 2, 3));
  await writer.close();
}

/** Whether a record that was given out is the one that was stored, as far as it still has its telemetry. */
export function isRight(record: Pick<StoredRecord, 'kind' | 'sequence' | 'timeMicros' | 'request' | 'reply' | 'telemetry'>): boolean {
  if (record.kind === 5) return JSON.parse(new TextDecoder().decode(record.request)) !== null;
  const stored = record.sequence > LAST ? decision(record.sequence) : recordAt(record.sequence);
  if (record.kind !== stored.kind || record.timeMicros !== stored.timeMicros) return false;
  if (!Buffer.from(record.reply).equals(stored.reply)) return false;
  return record.telemetry === 'dropped' || Buffer.from(record.request).equals(stored.request);
}
