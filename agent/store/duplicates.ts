import { assert } from '../../protocol/errors.ts';
import { digestOf } from './chain.ts';
import { readAnchor } from './contents.ts';
import type { Tables } from './database.ts';
import { type Entry, EVENT_KIND, featuresCut, outputsCut, telemetryOf, withoutCut } from './entry.ts';
import { StoreConflictError } from './errors.ts';
import { isSame } from './keys.ts';
import { findSequence, type SequencePlace } from './lookup.ts';
import { lastRun } from './runs.ts';
import type { DrainPosition, RecordToStore } from './writer.ts';

/**
 * The records that are not stored yet. One whose number is not above the stream's last must be the very record that is
 * stored under it: draining again what was drained before a crash changes nothing, and a number given twice is told.
 * Numbers of another epoch are other numbers.
 * @throws StoreConflictError
 */
export function withoutDuplicates(tables: Tables, records: readonly RecordToStore[], position: DrainPosition): RecordToStore[] {
  const { stream, epoch } = position;
  const last = lastRun(tables, stream, epoch, Number.MAX_SAFE_INTEGER)?.run.high ?? 0;
  let before = 0;
  return records.filter((record) => {
    const { kind, sequence } = record;
    assert(kind > 0 && kind < EVENT_KIND, `a record of kind ${kind} is none of the journal`);
    if (sequence <= before) throw conflict(`it follows record ${before}`, stream, sequence);
    before = sequence;
    if (sequence > position.lastSequence) throw conflict(`its position says that ${position.lastSequence} is the last`, stream, sequence);
    if (sequence > last) return true;
    if (!isStored(tables, record, { stream, epoch, sequence })) throw conflict('another one is stored under its number', stream, sequence);
    return false;
  });
}

function conflict(why: string, stream: number, sequence: number): StoreConflictError {
  return new StoreConflictError(`Cannot store record ${sequence} of stream ${stream}: ${why}`, stream, sequence);
}

/** Whether this very record is stored, or may have been: of one that was dropped nothing is left to compare with. */
function isStored(tables: Tables, record: RecordToStore, place: SequencePlace): boolean {
  const found = findSequence(tables, place);
  if (found !== null) return isSameRecord(found.entry, record);
  const isOldest = lastRun(tables, place.stream, place.epoch, place.sequence) === null;
  return isOldest && readAnchor(tables) !== null;
}

/** Compared as they are stored: without what is cut out, and by the digest of that, which stays when telemetry is dropped. */
function isSameRecord(entry: Entry, { kind, timeMicros, request, reply }: RecordToStore): boolean {
  const requestCut = featuresCut(kind, request);
  const replyCut = outputsCut(kind, reply);
  const telemetry = telemetryOf(request, requestCut, reply, replyCut);
  const digest = telemetry.length === 0 ? NO_DIGEST : digestOf(telemetry);
  return (
    entry.kind === kind &&
    entry.timeMicros === timeMicros &&
    isSame(entry.request, withoutCut(request, requestCut)) &&
    isSame(entry.reply, withoutCut(reply, replyCut)) &&
    isSame(entry.telemetryDigest ?? NO_DIGEST, digest)
  );
}

const NO_DIGEST = new Uint8Array(0);
