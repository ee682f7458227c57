import { checkedEntry, missingEntry, readAnchor, type ReadEntry } from './contents.ts';
import type { Tables } from './database.ts';
import { numberKey, numberOfKey } from './keys.ts';
import { lastRun } from './runs.ts';

export interface SequencePlace {
  readonly stream: number;
  readonly epoch: bigint;
  readonly sequence: number;
}

/** The entry of a record, null when there is none or it was dropped. Reads at most a block of entries. */
export function findSequence(tables: Tables, { stream, epoch, sequence }: SequencePlace): ReadEntry | null {
  const run = lastRun(tables, stream, epoch, sequence)?.run;
  if (run === undefined || sequence > run.high) return null;
  // Usually nothing lies between and no number is missing, and the place follows from the number.
  const isDense = run.count === run.lastIndex - run.firstIndex + 1 && run.count === run.high - run.low + 1;
  const from = isDense ? run.firstIndex + sequence - run.low : run.firstIndex;
  const to = isDense ? from : run.lastIndex;
  for (const found of entriesBetween(tables, from, to)) {
    const { entry } = found;
    if (entry.stream === stream && entry.epoch === epoch && entry.sequence === sequence) return found;
  }
  return null;
}

/**
 * The entries from..to that were not dropped, each checked, in one snapshot.
 * @throws StoreDamagedError for one that is damaged or missing
 */
export function* entriesBetween(tables: Tables, from: number, to: number): Generator<ReadEntry> {
  let index = Math.max(from, (readAnchor(tables)?.index ?? 0) + 1);
  if (index > to) return;
  for (const { key, value } of tables.records.range({ start: numberKey(index), end: numberKey(to + 1) })) {
    if (numberOfKey(key) !== index) throw missingEntry(index);
    yield checkedEntry(value, index);
    index += 1;
  }
  if (index <= to) throw missingEntry(index);
}
