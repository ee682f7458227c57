import { decodeGap, type Gap } from '../../../agent/journal/gap.ts';
import { Journal } from '../../../agent/journal/journal.ts';
import { MarkFile, markPath } from '../../../agent/journal/mark-file.ts';
import { scanJournal } from '../../../agent/journal/reader.ts';
import { decodeRecord, FILE_HEADER_BYTES, type JournalRecord, RECORD_KINDS } from '../../../agent/journal/record.ts';
import { MAX_UNSYNCED_RECORDS } from '../../../agent/journal/resume.ts';
import { listSegments } from '../../../agent/journal/segments.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { type Content, type Cut, CUTS, type DiskOptions, SimulatedDisk, SimulatedTimers, systemError } from './simulated-disk.ts';

/**
 * Lives of one stream, each ended by a power cut or a kill after any of its operations, and what must hold after each. The
 * next life begins on what the cut left, so recovery itself is cut, too.
 */

const DIRECTORY = '/data/journal';
const STREAM = 0;
const EMPTY = new Uint8Array(0);

/** Numbers that damaged bytes of a segment can hold, at most. */
const MAX_HIDDEN_RECORDS = 400;

/** What is known from outside. */
interface Truth {
  /** By number, what its record says. */
  readonly bodies: Map<number, string>;
  /** Numbers whose answers left. */
  readonly given: Set<number>;
  /** Numbers whose answers left when their record was in the file. */
  readonly written: Set<number>;
  /** Numbers that somebody was told to be on the disk. */
  readonly acknowledged: Set<number>;
  /** Numbers that the store took before it deleted their segment. */
  readonly stored: Set<number>;
  /** Numbers that gap records state which the store took. */
  readonly storedGaps: Set<number>;
}

type EventKind = 'given' | 'written' | 'acknowledged' | 'stored' | 'storedGaps';

interface Event {
  readonly at: number;
  readonly kind: EventKind;
  readonly sequence: number;
}

export interface Counts {
  cuts: number;
  kills: number;
  records: number;
  gaps: number;
  recoveries: number;
  syncFailures: number;
  withdrawn: number;
}

function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** What goes wrong first, over many streams; null when nothing does. */
export function firstViolation(seed: number, options: DiskOptions = {}): string | null {
  for (let stream = 0; stream < 60; stream++) {
    try {
      runLives(seed + stream, 30, options);
    } catch (error) {
      return (error as Error).message;
    }
  }
  return null;
}

/** @throws Error that says what was wrong, after which cut */
export function runLives(seed: number, lives: number, options: DiskOptions = {}, counts: Counts = noCounts()): Counts {
  const random = randomFrom(seed);
  const sets = { given: new Set<number>(), written: new Set<number>(), acknowledged: new Set<number>() };
  const truth: Truth = { bodies: new Map(), ...sets, stored: new Set(), storedGaps: new Set() };
  let content: Content = new Map();
  let bootId = 'boot-0';
  let ending: Ending | null = null;
  for (let number = 1; number <= lives; number++) {
    const life = new Life(new SimulatedDisk(content, options), bootId, truth, random, counts);
    try {
      life.begin(ending);
      life.run(Math.floor(random() * 40));
    } catch (cause) {
      throw new Error(`seed ${seed}, life ${number} after ${JSON.stringify(ending)}: ${(cause as Error).message}`, { cause });
    }
    const end = Math.floor(random() * (life.disk.operations + 1));
    const isKill = random() < 0.25;
    const mode: Cut = isKill ? 'all' : CUTS[Math.floor(random() * CUTS.length)]!;
    counts[isKill ? 'kills' : 'cuts'] += 1;
    ending = { isKill, mode, end, highest: Math.max(0, ...truth.bodies.keys()) };
    life.forget(end);
    content = life.disk.cut(end, mode, random);
    if (!isKill) bootId = `boot-${number}`;
  }
  return counts;
}

export function noCounts(): Counts {
  return { cuts: 0, kills: 0, records: 0, gaps: 0, recoveries: 0, syncFailures: 0, withdrawn: 0 };
}

interface Ending {
  readonly isKill: boolean;
  readonly mode: Cut;
  readonly end: number;
  /** The highest number that was ever appended. */
  readonly highest: number;
}

class Life {
  readonly disk: SimulatedDisk;
  readonly #bootId: string;
  readonly #truth: Truth;
  readonly #random: () => number;
  readonly #counts: Counts;
  readonly #events: Event[] = [];
  /** Records by the write that holds them whole. */
  readonly #writes: { readonly write: number; readonly sequence: number }[] = [];
  #timers = new SimulatedTimers();
  /** Records that were in the file when their answers left, and are not now. */
  #missing: number[] = [];
  #journal: Journal | null = null;

  constructor(disk: SimulatedDisk, bootId: string, truth: Truth, random: () => number, counts: Counts) {
    this.disk = disk;
    this.#bootId = bootId;
    this.#truth = truth;
    this.#random = random;
    this.#counts = counts;
    disk.onWrite = (path, bytes, position, operation) => this.#noteWrite(path, bytes, position, operation);
  }

  begin(ending: Ending | null): void {
    const mark = MarkFile.read(this.disk, markPath(DIRECTORY, STREAM))?.mark;
    const known = Math.max(ending?.highest ?? 0, mark?.given ?? 0, this.#lastInFiles());
    if (this.#random() < 0.1 && ending !== null && this.disk.bytes(`${DIRECTORY}/stream-0.mark`) !== null) this.disk.freeBytes = 0;
    const journal = this.#open();
    this.disk.freeBytes = Infinity;
    // It may be full of what the lives before left.
    for (let tries = 0; tries < 20 && journal.isFailing; tries++) {
      this.#store();
      this.#timers.run();
    }
    this.#check(journal);
    const isKnown = ending?.isKill === true && mark?.bootId === this.#bootId;
    // After a kill, a gap record for a failed sync takes a number of its own, at most twice.
    const most = known + (isKnown ? 3 : MAX_UNSYNCED_RECORDS + MAX_HIDDEN_RECORDS);
    if (journal.nextSequence > most) throw new Error(`${journal.nextSequence} follows ${known}`);
    if (ending?.isKill === true && this.#missing.length > 0) throw new Error(`a kill took the records ${this.#missing.join(', ')}`);
  }

  run(steps: number): void {
    for (let step = 0; step < steps; step++) this.#step(this.#journal ?? this.#open());
  }

  #open(): Journal {
    this.#timers = new SimulatedTimers();
    this.#journal = new Journal({
      directory: DIRECTORY,
      stream: STREAM,
      newEpoch: () => BigInt(this.disk.operations + 1),
      onSyncFailure: () => {
        this.#counts.syncFailures += 1;
      },
      onRecovered: () => {
        this.#counts.recoveries += 1;
      },
      segmentBytes: 3000,
      maxBytes: 12_000,
      ringBytes: 2000,
      bootId: this.#bootId,
      nowMicros: () => 1000,
      files: this.disk,
      timers: this.#timers,
    });
    return this.#journal;
  }

  #step(journal: Journal): void {
    const random = this.#random;
    const dice = random();
    if (dice < 0.5) this.#turn(journal);
    else if (dice < 0.62) this.#timers.run(10);
    else if (dice < 0.72) this.disk.completeSync();
    else if (dice < 0.78) this.#timers.run();
    else if (dice < 0.84) this.#store();
    else if (dice < 0.88) this.disk.freeBytes = this.disk.freeBytes === Infinity ? Math.floor(random() * 400) : Infinity;
    else if (dice < 0.94) this.#injectFault();
    else this.#close(journal);
  }

  #turn(journal: Journal): void {
    const random = this.#random;
    const first = journal.nextSequence;
    const count = 1 + Math.floor(random() * 4);
    for (let record = 0; record < count; record++) this.#append(journal);
    const appended = Array.from({ length: journal.nextSequence - first }, (_, at) => first + at);
    try {
      journal.commit();
      this.#note('written', appended);
      this.#note('given', appended);
      if (random() < 0.3) {
        journal.whenSynced((error) => {
          if (error === null) this.#note('acknowledged', appended);
        });
      }
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
      if (!journal.isFailing) throw new Error('commit() threw though nothing fails', { cause: error });
      const back = random() < 0.4 ? journal.withdrawFrom(first) : Infinity;
      this.#counts.withdrawn += Math.max(0, first + count - back);
      this.#note(
        'given',
        appended.filter((sequence) => sequence < back),
      );
    }
  }

  #append(journal: Journal): void {
    const sequence = journal.nextSequence;
    const body = `${sequence} ${this.#random()}`.padEnd(Math.floor(this.#random() * 300), '.');
    this.#truth.bodies.set(sequence, body);
    journal.append(RECORD_KINDS.decision, 1, new TextEncoder().encode(body), EMPTY);
  }

  /** The store takes finished segments and deletes them. */
  #store(): void {
    const { fault } = this.disk;
    this.disk.fault = () => null;
    const finished = listSegments(DIRECTORY, this.disk).slice(0, -1);
    for (const { path } of finished.slice(0, 1 + Math.floor(this.#random() * finished.length))) {
      const stored: number[] = [];
      const gaps: number[] = [];
      const take = ({ kind, sequence, request }: JournalRecord): void => {
        const gap = kind === RECORD_KINDS.gap ? decodeGap(request) : null;
        if (gap === null) stored.push(sequence);
        else gaps.push(sequence, ...[...this.#truth.given].filter((one) => gap.from <= one && one < gap.to));
      };
      scanJournal(path, 0, take, this.disk);
      this.#note('stored', stored);
      this.#note('storedGaps', gaps);
      this.disk.remove(path);
    }
    this.disk.fault = fault;
  }

  /** The next such call fails, but not for the mark: a disk that takes neither records nor the mark is beyond what is promised. */
  #injectFault(): void {
    const actions = ['write', 'sync', 'syncLater', 'truncate', 'rename', 'open', 'syncFolder'] as const;
    const action = actions[Math.floor(this.#random() * actions.length)]!;
    this.disk.fault = (asked, path) => {
      if (asked !== action || path.includes('.mark')) return null;
      this.disk.fault = () => null;
      return systemError('EIO');
    };
  }

  #close(journal: Journal): void {
    this.disk.fault = () => null;
    try {
      journal.close();
    } catch (error) {
      if (!(error instanceof SetpointError)) throw error;
    }
    const open = this.disk.openPaths.length;
    if (open > this.disk.syncsInFlight) throw new Error(`${open} descriptors are open after close()`);
    this.#journal = null;
  }

  #noteWrite(path: string, bytes: Uint8Array, position: number, write: number): void {
    if (!path.includes('.journal')) return;
    let at = position === 0 ? FILE_HEADER_BYTES : 0;
    for (let record = decodeRecord(bytes, at); typeof record !== 'string'; record = decodeRecord(bytes, at)) {
      if (record.kind !== RECORD_KINDS.gap) this.#writes.push({ write, sequence: record.sequence });
      at += record.stride;
    }
  }

  #note(kind: EventKind, sequences: readonly number[]): void {
    for (const sequence of sequences) {
      // A segment whose deletion a cut took back is stored once more: it is stored whatever becomes of that.
      if (this.#truth[kind].has(sequence)) continue;
      this.#events.push({ at: this.disk.operations, kind, sequence });
      this.#truth[kind].add(sequence);
    }
  }

  /** What came after the cut has not happened; what was on the disk before it must be there. */
  forget(end: number): void {
    for (const { at, kind, sequence } of this.#events) if (at > end) this.#truth[kind].delete(sequence);
    for (const { write, sequence } of this.#writes) {
      if (write < end && this.disk.isDurable(write, end)) this.#truth.acknowledged.add(sequence);
    }
  }

  #check(journal: Journal): void {
    const { truth, gaps, records } = { truth: this.#truth, ...this.#read() };
    if (journal.isFailing) throw new Error('the journal still fails');
    const has = (sequence: number): boolean => records.has(sequence) || truth.stored.has(sequence);
    const isStated = (sequence: number): boolean =>
      truth.storedGaps.has(sequence) || gaps.some(({ from, to }) => from <= sequence && sequence <= to);
    for (const sequence of truth.acknowledged) if (!has(sequence)) throw new Error(`record ${sequence} was on the disk and is gone`);
    for (const sequence of truth.given) {
      if (sequence >= journal.nextSequence) throw new Error(`number ${sequence} was given and will be again (${journal.nextSequence})`);
      if (!has(sequence) && !isStated(sequence)) throw new Error(`record ${sequence} is gone and no gap says so`);
    }
    for (const { from, to, isExact, count } of gaps) {
      this.#counts.gaps += 1;
      if (isExact && count !== 0 && count !== to - from + 1) throw new Error(`an exact gap ${from}..${to} counts ${count}`);
      if (isExact)
        for (let one = from; one <= Math.min(to, from + 5000); one++) if (has(one)) throw new Error(`the gap over ${one} is none`);
    }
    this.#missing = [...truth.written].filter((sequence) => !has(sequence));
    // What is stated once is known: it need not be there after the next cut.
    for (const sequence of truth.given) if (!has(sequence)) truth.given.delete(sequence);
    for (const sequence of truth.written) if (!has(sequence)) truth.written.delete(sequence);
  }

  #lastInFiles(): number {
    let last = 0;
    for (const { path, firstSequence } of listSegments(DIRECTORY, this.disk)) {
      last = Math.max(last, firstSequence, scanJournal(path, 0, () => {}, this.disk)?.lastSequence ?? 0);
    }
    return last;
  }

  /** Reads every segment as the README says it is read. */
  #read(): { readonly records: Set<number>; readonly gaps: Gap[] } {
    const records = new Set<number>();
    const gaps: Gap[] = [];
    const holes: { readonly from: number; readonly to: number }[] = [];
    let last: number | null = null;
    for (const { path, firstSequence } of listSegments(DIRECTORY, this.disk)) {
      scanJournal(
        path,
        0,
        ({ kind, sequence, request }) => {
          const gap = kind === RECORD_KINDS.gap ? decodeGap(request) : null;
          const from = gap?.from ?? sequence;
          if (last !== null && sequence <= last) throw new Error(`number ${sequence} follows ${last} in ${path}`);
          if (sequence < firstSequence) throw new Error(`number ${sequence} is in segment ${firstSequence}`);
          if (last !== null && from > last + 1) holes.push({ from: last + 1, to: from - 1 });
          last = sequence;
          if (gap !== null) {
            if (gap.to !== sequence) throw new Error(`gap ${gap.from}..${gap.to} has number ${sequence}`);
            gaps.push(gap);
            return;
          }
          if (kind === RECORD_KINDS.gap) throw new Error(`gap record ${sequence} says nothing`);
          const body = new TextDecoder().decode(request);
          if (body !== this.#truth.bodies.get(sequence)) throw new Error(`record ${sequence} is wrong: ${body}`);
          this.#counts.records += 1;
          records.add(sequence);
        },
        this.disk,
      );
    }
    // Only what a failed sync left open may be stated behind the hole.
    const late = gaps.filter(({ reason }) => reason === 'sync_failed');
    const storedThrough = Math.max(0, ...this.#truth.stored, ...this.#truth.storedGaps);
    for (const hole of holes) {
      // A cut may bring a file back that was deleted, and not the one behind it.
      const from = Math.max(hole.from, storedThrough + 1);
      if (from <= hole.to && !late.some((gap) => gap.from <= from && gap.to >= hole.to))
        throw new Error(`numbers ${from} to ${hole.to} are a hole`);
    }
    return { records, gaps };
  }
}
