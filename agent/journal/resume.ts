import type { Gap, GapReason } from './gap.ts';
import type { Mark } from './mark.ts';

/**
 * Numbers that are skipped after a power cut, because they may have been given to answers that left: the journal never gives
 * more than this many beyond what is synced (Journal.commit waits for the disk before it would). At 2 us a decision, the most
 * a thread can do, they last 130 ms: the 10 ms between two syncs and a sync of 120 ms.
 */
export const MAX_UNSYNCED_RECORDS = 65_536;

/** The mark of a journal that works is written anew after this many numbers: once in 700 MB of usual decisions. */
export const MARK_STRIDE = 2 ** 20;

/** What the newest segment of a stream says. */
export interface FoundSegment {
  readonly firstSequence: number;
  /** The highest number that it, or one before it, holds or states; firstSequence - 1 when it cannot be used. */
  readonly lastSequence: number;
  /** Bytes that are no record stand in it, or its header cannot be read. */
  readonly isDamaged: boolean;
  /** How many more numbers the damaged bytes can hold, at most. */
  readonly hiddenRecords: number;
}

export interface Resumption {
  /** Numbers that have no record, in order; they are written first, in a new segment. */
  readonly gaps: readonly Gap[];
  /** The highest number that was given or must be skipped. */
  readonly last: number;
}

/**
 * How a stream goes on: which numbers were given without a record to show for it. Pure, so that every mixture of a segment, a
 * mark and a boot can be tried.
 */
export function resume(found: FoundSegment | null, mark: Mark | null, bootId: string): Resumption {
  if (mark === null && found === null) return { gaps: [], last: 0 };
  const isSameBoot = mark !== null && bootId !== '' && mark.bootId === bootId;
  if (found !== null && found.isDamaged) return afterDamage(found, mark, isSameBoot);
  if (mark === null) return afterPowerCut(found?.lastSequence ?? 0, null, found?.lastSequence ?? 0);
  // Without a segment, the mark's word is all there is: numbers below `from` were in a file.
  const last = found?.lastSequence ?? mark.from - 1;
  const isMissing = found === null && mark.state === 'open';
  const given = Math.max(last, mark.given) + (isMissing ? 2 * MARK_STRIDE : 0);
  if (mark.state === 'failing') return afterFailure(last, mark, isSameBoot);
  if (mark.state === 'open' && !isSameBoot) return afterPowerCut(last, mark, given);
  if (given <= last) return { gaps: [], last };
  return one(inexact(last + 1, given, 'journal_damaged', 'these records were written, and are not in the journal any more'));
}

/** The process ended while the journal failed: the mark holds the last number that was given. */
function afterFailure(last: number, mark: Mark, isSameBoot: boolean): Resumption {
  const gaps: Gap[] = [];
  const reason = mark.reason ?? 'write_failed';
  let reached = Math.max(last, mark.given);
  if (reason === 'sync_failed') {
    // A gap record has its own number: one that was never given, when all that were have records that may be there.
    reached = Math.max(reached, last + 1);
    gaps.push(inexact(Math.min(mark.from, last + 1), reached, reason, mark.detail));
  } else if (reached > last) {
    // What an earlier opening could not write was no exact statement, and is none now.
    const isExact = reason !== 'power_cut' && reason !== 'journal_damaged';
    gaps.push({ from: last + 1, to: reached, count: reached - last, isExact, reason, detail: mark.detail });
  }
  if (isSameBoot) return { gaps, last: reached };
  const cut = afterPowerCut(reached, mark, reached);
  return { gaps: [...gaps, ...cut.gaps], last: cut.last };
}

/** Whatever was given in the last moments may be lost with the memory of the machine. */
function afterPowerCut(last: number, mark: Mark | null, given: number): Resumption {
  const from = last + 1;
  const to = Math.max(last, given) + MAX_UNSYNCED_RECORDS;
  if (mark === null) return one(inexact(from, to, 'journal_damaged', 'the mark of the stream is missing: what was given is not known'));
  if (mark.durability === 'power' && mark.state === 'open') {
    const detail = 'answers waited for the disk, so none of these left; their numbers are skipped';
    return one({ from, to, count: 0, isExact: true, reason: 'power_cut', detail });
  }
  return one(inexact(from, to, 'power_cut', 'the machine ended without a stop; what was given in its last moments is lost'));
}

/** Bytes that cannot be read keep their file, so the gap ends above its name: that of the next file is another one. */
function afterDamage(found: FoundSegment, mark: Mark | null, isSameBoot: boolean): Resumption {
  const { firstSequence, lastSequence, hiddenRecords } = found;
  const detail = `segment ${firstSequence} cannot be read behind record ${lastSequence}`;
  const given = Math.max(lastSequence, mark?.given ?? 0);
  let to = given;
  if (mark?.state !== 'clean') to = Math.max(given, lastSequence + hiddenRecords) + (isSameBoot ? 0 : MAX_UNSYNCED_RECORDS);
  const from = mark?.reason === 'sync_failed' ? Math.min(mark.from, lastSequence + 1) : lastSequence + 1;
  return one(inexact(from, Math.max(to, lastSequence + 1, firstSequence + 1), 'journal_damaged', detail));
}

function inexact(from: number, to: number, reason: GapReason, detail: string): Gap {
  return { from, to, count: to - from + 1, isExact: false, reason, detail };
}

function one(gap: Gap): Resumption {
  return { gaps: [gap], last: gap.to };
}
