import type { StoredRecord, StoreReader } from '../store/reader.ts';

/**
 * Questions that the store has no index for: they read every entry from a time on, features included. They come after
 * what was asked for has been given.
 */

/** Kinds from this one on say what is missing, or what the agent complained of. */
export const FIRST_NOTICE_KIND = 3;

/** Alerts, gaps and the store's own events with a time from `fromMicros` on. */
export function* noticesOf(store: StoreReader, fromMicros: number): Generator<StoredRecord> {
  for (const record of store.between(fromMicros, Number.MAX_SAFE_INTEGER)) if (record.kind >= FIRST_NOTICE_KIND) yield record;
}
