import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Journal } from '../../../agent/journal/journal.ts';
import { MARK_FILE_BYTES } from '../../../agent/journal/mark.ts';
import { markPath } from '../../../agent/journal/mark-file.ts';
import { scanJournal } from '../../../agent/journal/reader.ts';
import { encodeFileHeader, FILE_HEADER_BYTES, RECORD_KINDS } from '../../../agent/journal/record.ts';
import { segmentPath } from '../../../agent/journal/segments.ts';
import type { JournalOptions } from '../../../agent/journal/settings.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { SimulatedDisk } from './simulated-disk.ts';
import { contentsOf } from './stream-contents.ts';

const EMPTY = new Uint8Array(0);

function open(directory: string, options: Partial<JournalOptions> = {}): Journal {
  return new Journal({ directory, stream: 0, newEpoch: () => 0x100n, onSyncFailure: () => {}, ...options });
}

/** One turn of decisions whose requests have these sizes. */
function turn(journal: Journal, ...sizes: readonly number[]): void {
  for (const size of sizes) {
    journal.append(RECORD_KINDS.decision, 5, new Uint8Array(size).fill(journal.nextSequence), Uint8Array.of(1, 2, 3));
  }
  journal.commit();
}

const first = (directory: string, stream = 0): string => segmentPath(directory, stream, 1);

describe('a journal', () => {
  test('starts with a header and number 1', () => {
    const directory = join(temporaryDirectory(), 'made', 'on the way');
    const journal = open(directory, { stream: 5 });
    expect([journal.stream, journal.nextSequence]).toEqual([5, 1]);
    expect(readFileSync(first(directory, 5))).toEqual(Buffer.from(encodeFileHeader({ stream: 5, epoch: 0x100n, firstSequence: 1 })));
    expect([first(directory, 5), markPath(directory, 5)].map((path) => statSync(path).mode & 0o777)).toEqual([0o640, 0o640]);
    journal.close();
  });

  test('has nothing of a turn in the file before commit(), and all of it after', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    journal.append(RECORD_KINDS.decision, 5, Uint8Array.of(1), Uint8Array.of(1, 2, 3));
    journal.append(RECORD_KINDS.decision, 5, Uint8Array.of(2), Uint8Array.of(1, 2, 3));
    expect(statSync(first(directory)).size).toBe(FILE_HEADER_BYTES);
    journal.commit();
    expect(statSync(first(directory)).size).toBe(FILE_HEADER_BYTES + 2 * 36);
    expect([journal.writtenBytes, journal.nextSequence]).toEqual([2 * 36, 3]);
    expect(contentsOf(directory).sequences).toEqual([1, 2]);
    journal.close();
  });

  test('writes kind, time, request and reply as they were given', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    journal.append(RECORD_KINDS.observation, 1_795_000_000_123_456, Uint8Array.of(9, 8), EMPTY);
    journal.commit();
    journal.close();
    const seen: unknown[] = [];
    scanJournal(first(directory), 0, ({ kind, timeMicros, request, reply }) =>
      seen.push({ kind, timeMicros, request: [...request], reply: [...reply] }),
    );
    expect(seen).toEqual([{ kind: RECORD_KINDS.observation, timeMicros: 1_795_000_000_123_456, request: [9, 8], reply: [] }]);
  });

  test('does nothing on a commit without records', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    journal.commit();
    expect(statSync(first(directory)).size).toBe(FILE_HEADER_BYTES);
    journal.close();
  });

  test('goes on with the next number when it is opened again, in the same segment', () => {
    const directory = temporaryDirectory();
    for (const next of [1, 4, 7]) {
      const journal = open(directory);
      expect(journal.nextSequence).toBe(next);
      turn(journal, 10, 0);
      turn(journal, 700);
      journal.close();
    }
    expect(contentsOf(directory)).toMatchObject({ segments: [1], sequences: [1, 2, 3, 4, 5, 6, 7, 8, 9], gaps: [], tails: ['clean'] });
  });

  test('loses nothing when its process ends without close()', () => {
    const directory = temporaryDirectory();
    turn(open(directory), 10, 20);
    const journal = open(directory);
    expect(journal.nextSequence).toBe(3);
    journal.close();
    expect(contentsOf(directory)).toMatchObject({ segments: [1], sequences: [1, 2], gaps: [] });
  });

  test('keeps streams apart', () => {
    const directory = temporaryDirectory();
    const journals = [open(directory), open(directory, { stream: 1 })];
    turn(journals[0]!, 1, 2);
    turn(journals[1]!, 3);
    for (const journal of journals) journal.close();
    expect([contentsOf(directory, 0).sizes, contentsOf(directory, 1).sizes]).toEqual([[1, 2], [3]]);
  });

  test('takes a turn larger than its buffer, and a record larger than its buffer', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    const sizes = [400_000, 400_000, 400_000, 3, 3_000_000, 5, 1_048_576, 0];
    turn(journal, ...sizes);
    turn(journal, 12);
    journal.close();
    expect(contentsOf(directory)).toMatchObject({ sequences: [1, 2, 3, 4, 5, 6, 7, 8, 9], sizes: [...sizes, 12], tails: ['clean'] });
  });

  test('is read back whole whatever the sizes of its turns and of its segments', () => {
    fc.assert(
      fc.property(
        fc.array(fc.array(fc.nat(3000), { maxLength: 5 }), { maxLength: 6 }),
        fc.integer({ min: 33, max: 5000 }),
        (turns, bytes) => {
          const directory = temporaryDirectory();
          for (const sizes of turns) {
            const journal = open(directory, { segmentBytes: bytes });
            turn(journal, ...sizes);
            journal.close();
          }
          expect(contentsOf(directory)).toMatchObject({ sizes: turns.flat(), gaps: [] });
        },
      ),
      { numRuns: 20 },
    );
  });
});

describe('a journal whose last write was cut short', () => {
  test('loses only the record that was cut, wherever it was cut, and gives its number again', () => {
    const directory = temporaryDirectory();
    const written = open(directory);
    turn(written, 21);
    const whole = statSync(first(directory)).size;
    turn(written, 14);
    const bytes = readFileSync(first(directory));
    for (let length = whole; length < bytes.byteLength; length++) {
      writeFileSync(first(directory), bytes.subarray(0, length));
      const journal = open(directory);
      expect([journal.nextSequence, statSync(first(directory)).size], `${length} bytes`).toEqual([2, whole]);
      turn(journal, 3);
      expect(contentsOf(directory)).toMatchObject({ segments: [1], sequences: [1, 2], sizes: [21, 3], gaps: [] });
    }
  });
});

describe('a damaged segment', () => {
  /** A journal of five records of `size` bytes, not closed, and the offset where record `number` starts. */
  function fiveRecords(directory: string, size = 50): (number: number) => number {
    const journal = open(directory);
    turn(journal, ...Array<number>(5).fill(size));
    const stride = (statSync(first(directory)).size - FILE_HEADER_BYTES) / 5;
    return (number) => FILE_HEADER_BYTES + (number - 1) * stride;
  }

  function damage(path: string, at: number): Buffer {
    const bytes = readFileSync(path);
    bytes[at]! ^= 0x5a;
    writeFileSync(path, bytes);
    return bytes;
  }

  test('stays with all its bytes, and the next one states what may be lost and counts on above it', () => {
    const directory = temporaryDirectory();
    const startOf = fiveRecords(directory);
    const bytes = damage(first(directory), startOf(3) + 40);
    const journal = open(directory);
    const next = journal.nextSequence;
    expect(next).toBeGreaterThan(5);
    turn(journal, 1, 2);
    journal.close();
    expect(readFileSync(first(directory))).toEqual(bytes);
    const detail = 'segment 1 cannot be read behind record 2';
    expect(contentsOf(directory)).toMatchObject({
      segments: [1, next - 1],
      sequences: [1, 2, next, next + 1],
      gaps: [{ from: 3, to: next - 1, count: next - 3, isExact: false, reason: 'journal_damaged', detail }],
      tails: ['damaged', 'clean'],
    });
    expect(new Set(contentsOf(directory).epochs)).toEqual(new Set([0x100n]));
    const reopened = open(directory);
    expect(reopened.nextSequence).toBe(next + 2);
    reopened.close();
  });

  test('never lets a number be given twice, whichever byte of it is wrong', () => {
    const disk = new SimulatedDisk();
    turn(open('/journal', { files: disk, bootId: 'boot' }), 0, 0, 0, 0, 0);
    const content = disk.content();
    const path = first('/journal');
    for (let at = 0; at < content.get(path)!.byteLength; at++) {
      const damaged = new SimulatedDisk(content);
      const descriptor = damaged.open(path, 'r+');
      damaged.write(descriptor, Uint8Array.of(content.get(path)![at]! ^ 0x81), 0, 1, at);
      damaged.close(descriptor);
      const journal = open('/journal', { files: damaged, bootId: 'boot' });
      // The reply is 3 bytes, so each record ends with one byte of padding, whose change is no damage.
      const isPadding = at >= FILE_HEADER_BYTES && (at - FILE_HEADER_BYTES) % 36 === 35;
      expect(journal.nextSequence, `byte ${at}`)[isPadding ? 'toBe' : 'toBeGreaterThan'](isPadding ? 6 : 5);
      const gaps = contentsOf('/journal', 0, damaged).gaps.map(({ to }) => to);
      expect(gaps, `byte ${at}`).toEqual(isPadding ? [] : [journal.nextSequence - 1]);
    }
  });

  test.each([
    ['is no journal at all', (path: string) => writeFileSync(path, 'something else, 40 bytes long or more ...')],
    ['is empty', (path: string) => truncateSync(path, 0)],
    ['belongs to another stream', (path: string) => writeFileSync(path, encodeFileHeader({ stream: 1, epoch: 9n, firstSequence: 1 }))],
    [
      'has another number than its name',
      (path: string) => writeFileSync(path, encodeFileHeader({ stream: 0, epoch: 9n, firstSequence: 50 })),
    ],
  ])('is stated when it %s, from its first number on, and a stream begins anew', (_name, spoil) => {
    const directory = temporaryDirectory();
    fiveRecords(directory);
    spoil(first(directory));
    const bytes = readFileSync(first(directory));
    const journal = open(directory, { newEpoch: () => 0x200n });
    const next = journal.nextSequence;
    turn(journal, 4);
    journal.close();
    expect(readFileSync(first(directory))).toEqual(bytes);
    expect(contentsOf(directory)).toMatchObject({ segments: [1, next - 1], gaps: [{ from: 1, to: next - 1, isExact: false }] });
    expect(contentsOf(directory).epochs.at(-1)).toBe(0x200n);
  });

  test('says how many records are lost when the journal was closed before it was damaged', () => {
    const directory = temporaryDirectory();
    const startOf = fiveRecords(directory);
    open(directory).close();
    damage(first(directory), startOf(3) + 40);
    const journal = open(directory);
    expect(journal.nextSequence).toBe(6);
    journal.close();
    expect(contentsOf(directory).gaps).toMatchObject([{ from: 3, to: 5, count: 3, isExact: false, reason: 'journal_damaged' }]);
  });

  test('behind the newest one is not touched', () => {
    const directory = temporaryDirectory();
    const journal = open(directory, { segmentBytes: 100 });
    turn(journal, 200);
    journal.close();
    open(directory, { segmentBytes: 100 }).close();
    const bytes = damage(first(directory), FILE_HEADER_BYTES + 40);
    const reopened = open(directory, { segmentBytes: 100 });
    turn(reopened, 5);
    reopened.close();
    expect(contentsOf(directory)).toMatchObject({ segments: [1, 2], sequences: [2], gaps: [], tails: ['damaged', 'clean'] });
    expect(readFileSync(first(directory))).toEqual(bytes);
  });
});

describe('a mark', () => {
  test('that is missing beside segments makes the next start skip what may have been given', () => {
    const directory = temporaryDirectory();
    turn(open(directory), 1, 2);
    rmSync(markPath(directory, 0));
    const journal = open(directory);
    expect(journal.nextSequence).toBe(3 + 65_536);
    journal.close();
    expect(contentsOf(directory).gaps).toMatchObject([{ from: 3, to: 65_538, isExact: false, reason: 'journal_damaged' }]);
  });

  test('brings the numbers back when every segment is gone', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    turn(journal, 1, 2);
    journal.close();
    rmSync(first(directory));
    const clean = open(directory, { newEpoch: () => 0x200n });
    expect(clean.nextSequence).toBe(3);
    turn(clean, 4);
    rmSync(segmentPath(directory, 0, 3));
    const open2 = open(directory);
    expect(open2.nextSequence).toBeGreaterThan(2 ** 21);
    open2.close();
  });

  test('is always the same file of the same length', () => {
    const directory = temporaryDirectory();
    const { ino } = (open(directory), statSync(markPath(directory, 0)));
    for (let opening = 0; opening < 5; opening++) {
      turn(open(directory), 1);
      open(directory).close();
      expect(statSync(markPath(directory, 0))).toMatchObject({ ino, size: MARK_FILE_BYTES });
    }
  });
});

describe('a journal whose files may not grow', () => {
  const KIBI = 1024;

  interface Outcome {
    readonly turns: string[];
    readonly episodes: { readonly lost: number; readonly recovered: number }[];
    readonly nextSequence: number;
  }

  /** Runs turns in a process whose files may not grow beyond 64 KiB; it recovers, or is killed before it can. */
  function runLimited(directory: string, ending: 'wait' | 'die', sizes: readonly number[]): Outcome {
    const child = new URL('../../../test/agent/journal/full-disk-child.ts', import.meta.url).pathname;
    // The pipe keeps the output when the process kills itself.
    const script = `ulimit -S -f 64 && "$0" "$@" | cat`;
    const output = execFileSync('bash', ['-c', script, process.execPath, child, directory, ending, ...sizes.map(String)], {
      encoding: 'utf8',
    });
    return JSON.parse(output) as Outcome;
  }

  const refused = expect.stringMatching(/^journal_failed: Cannot write the journal of stream 0: EFBIG/) as unknown;

  test('throws from commit(), keeps the records in memory, and writes them to further segments', () => {
    const directory = temporaryDirectory();
    const { turns, episodes, nextSequence } = runLimited(directory, 'wait', [40 * KIBI, 40 * KIBI, 60 * KIBI, 2 * KIBI]);
    expect(turns).toEqual(['written', refused, refused, refused]);
    expect([episodes, nextSequence]).toEqual([[{ lost: 0, recovered: 3 }], 5]);
    expect(filesOf(directory)).toEqual([[1], [2], [3, 4]]);
  });

  test('states what was given, exactly, when it is killed before it can write again', () => {
    const directory = temporaryDirectory();
    expect(runLimited(directory, 'die', [40 * KIBI, 40 * KIBI, 10]).turns).toEqual(['written', refused, refused]);
    const journal = open(directory);
    expect([journal.nextSequence, journal.lostRecords]).toEqual([4, 2]);
    journal.close();
    const detail = expect.stringContaining('EFBIG') as unknown;
    expect(contentsOf(directory).gaps).toEqual([{ from: 2, to: 3, count: 2, isExact: true, reason: 'write_failed', detail }]);
  });

  function filesOf(directory: string): number[][] {
    return contentsOf(directory).segments.map((segment) => {
      const sequences: number[] = [];
      scanJournal(segmentPath(directory, 0, segment), 0, ({ sequence }) => sequences.push(sequence));
      return sequences;
    });
  }
});
