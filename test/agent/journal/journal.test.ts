import { execFileSync } from 'node:child_process';
import {
  appendFileSync,
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Journal } from '../../../agent/journal/journal.ts';
import { journalPath } from '../../../agent/journal/open.ts';
import { scanJournal } from '../../../agent/journal/reader.ts';
import { encodeFileHeader, FILE_HEADER_BYTES, RECORD_KINDS } from '../../../agent/journal/record.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';

const EMPTY = new Uint8Array(0);

interface Opened {
  readonly journal: Journal;
  readonly syncFailures: SetpointError[];
}

function openWithFailures(directory: string, stream = 0): Opened {
  const syncFailures: SetpointError[] = [];
  let epoch = 0x100n;
  while (existsSync(`${journalPath(directory, stream)}.damaged-${epoch.toString(16)}`)) epoch++;
  const journal = new Journal({ directory, stream, newEpoch: () => epoch, onSyncFailure: (error) => syncFailures.push(error) });
  return { journal, syncFailures };
}

function open(directory: string, stream = 0): Journal {
  return openWithFailures(directory, stream).journal;
}

/** One turn of decisions whose requests have these sizes. */
function turn(journal: Journal, ...sizes: readonly number[]): void {
  for (const size of sizes) {
    journal.append(RECORD_KINDS.decision, 5, new Uint8Array(size).fill(journal.nextSequence), Uint8Array.of(1, 2, 3));
  }
  journal.commit();
}

function read(directory: string, stream = 0): { sequences: number[]; sizes: number[]; tail: string } {
  const sequences: number[] = [];
  const sizes: number[] = [];
  const scan = scanJournal(journalPath(directory, stream), 0, ({ sequence, request, reply }) => {
    expect(request.every((byte) => byte === (sequence & 0xff))).toBe(true);
    expect([...reply]).toEqual([1, 2, 3]);
    sequences.push(sequence);
    sizes.push(request.byteLength);
  });
  return { sequences, sizes, tail: scan?.tail ?? 'no journal' };
}

function setAside(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.includes('damaged'));
}

function codeOf(run: () => void): string {
  try {
    run();
    return 'nothing thrown';
  } catch (error) {
    return error instanceof SetpointError ? error.code : String(error);
  }
}

describe('a journal', () => {
  test('starts with a header and number 1', () => {
    const directory = join(temporaryDirectory(), 'made', 'on the way');
    const journal = open(directory, 5);
    expect([journal.stream, journal.nextSequence, journal.offset]).toEqual([5, 1, FILE_HEADER_BYTES]);
    expect(readFileSync(journalPath(directory, 5))).toEqual(Buffer.from(encodeFileHeader({ stream: 5, epoch: 0x100n, firstSequence: 1 })));
    expect(statSync(journalPath(directory, 5)).mode & 0o777).toBe(0o640);
    journal.close();
  });

  test('has nothing of a turn in the file before commit(), and all of it after', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    journal.append(RECORD_KINDS.decision, 5, Uint8Array.of(1), Uint8Array.of(1, 2, 3));
    journal.append(RECORD_KINDS.decision, 5, Uint8Array.of(2), Uint8Array.of(1, 2, 3));
    expect(statSync(journalPath(directory, 0)).size).toBe(FILE_HEADER_BYTES);
    journal.commit();
    expect(statSync(journalPath(directory, 0)).size).toBe(FILE_HEADER_BYTES + 2 * 36);
    expect([journal.offset, journal.nextSequence]).toEqual([FILE_HEADER_BYTES + 2 * 36, 3]);
    expect(read(directory).sequences).toEqual([1, 2]);
    journal.close();
  });

  test('writes kind, time, request and reply as they were given', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    journal.append(RECORD_KINDS.observation, 1_795_000_000_123_456, Uint8Array.of(9, 8), EMPTY);
    journal.commit();
    journal.close();
    const seen: unknown[] = [];
    scanJournal(journalPath(directory, 0), 0, ({ kind, timeMicros, request, reply }) =>
      seen.push({ kind, timeMicros, request: [...request], reply: [...reply] }),
    );
    expect(seen).toEqual([{ kind: RECORD_KINDS.observation, timeMicros: 1_795_000_000_123_456, request: [9, 8], reply: [] }]);
  });

  test('does nothing on a commit without records', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    journal.commit();
    expect(statSync(journalPath(directory, 0)).size).toBe(FILE_HEADER_BYTES);
    journal.close();
  });

  test('goes on with the next number when it is opened again', () => {
    const directory = temporaryDirectory();
    for (const first of [1, 4, 7]) {
      const journal = open(directory);
      expect(journal.nextSequence).toBe(first);
      turn(journal, 10, 0);
      turn(journal, 700);
      journal.close();
    }
    expect(read(directory)).toEqual({ sequences: [1, 2, 3, 4, 5, 6, 7, 8, 9], sizes: [10, 0, 700, 10, 0, 700, 10, 0, 700], tail: 'clean' });
  });

  test('keeps streams apart', () => {
    const directory = temporaryDirectory();
    const journals = [open(directory, 0), open(directory, 1)];
    turn(journals[0]!, 1, 2);
    turn(journals[1]!, 3);
    for (const journal of journals) journal.close();
    expect([read(directory, 0).sizes, read(directory, 1).sizes]).toEqual([[1, 2], [3]]);
  });

  test('takes a turn larger than its buffer, and a record larger than its buffer', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    const sizes = [400_000, 400_000, 400_000, 3, 3_000_000, 5, 1_048_576, 0];
    turn(journal, ...sizes);
    turn(journal, 12);
    journal.close();
    expect(read(directory)).toEqual({ sequences: [1, 2, 3, 4, 5, 6, 7, 8, 9], sizes: [...sizes, 12], tail: 'clean' });
  });

  test('is read back whole whatever the sizes of its turns', () => {
    fc.assert(
      fc.property(fc.array(fc.array(fc.nat(3000), { maxLength: 5 }), { maxLength: 6 }), (turns) => {
        const directory = temporaryDirectory();
        for (const sizes of turns) {
          const journal = open(directory);
          turn(journal, ...sizes);
          journal.close();
        }
        if (turns.length > 0) expect(read(directory)).toMatchObject({ sizes: turns.flat(), tail: 'clean' });
      }),
      { numRuns: 20 },
    );
  });
});

describe('a journal whose last write was cut short', () => {
  test('loses only the record that was cut, wherever it was cut, and gives its number again', () => {
    const directory = temporaryDirectory();
    const written = open(directory);
    turn(written, 21);
    const whole = written.offset;
    turn(written, 14);
    written.close();
    const bytes = readFileSync(journalPath(directory, 0));
    for (let length = whole; length < bytes.byteLength; length++) {
      writeFileSync(journalPath(directory, 0), bytes.subarray(0, length));
      const journal = open(directory);
      expect([journal.nextSequence, journal.offset, statSync(journalPath(directory, 0)).size], `${length} bytes`).toEqual([
        2,
        whole,
        whole,
      ]);
      turn(journal, 3);
      journal.close();
      expect(read(directory)).toEqual({ sequences: [1, 2], sizes: [21, 3], tail: 'clean' });
    }
    expect(setAside(directory)).toEqual([]);
  });
});

describe('a damaged journal', () => {
  /** A journal of five records of `size` bytes and the offset where record `number` starts. */
  function fiveRecords(directory: string, size = 50): (number: number) => number {
    const journal = open(directory);
    const before = journal.offset;
    turn(journal, ...Array<number>(5).fill(size));
    const stride = (journal.offset - before) / 5;
    journal.close();
    return (number) => before + (number - 1) * stride;
  }

  function damage(directory: string, at: number, length = 1): Buffer {
    const bytes = readFileSync(journalPath(directory, 0));
    for (let index = at; index < at + length; index++) bytes[index]! ^= 0x5a;
    writeFileSync(journalPath(directory, 0), bytes);
    return bytes;
  }

  test('is set aside with all its bytes, and counting goes on above everything in it', () => {
    const directory = temporaryDirectory();
    const startOf = fiveRecords(directory);
    const bytes = damage(directory, startOf(3) + 40);
    const journal = open(directory);
    expect(journal.nextSequence).toBeGreaterThan(5);
    const first = journal.nextSequence;
    turn(journal, 1, 2);
    journal.close();
    expect(setAside(directory)).toEqual(['stream-0.journal.damaged-100']);
    expect(readFileSync(join(directory, 'stream-0.journal.damaged-100'))).toEqual(bytes);
    expect(read(directory)).toEqual({ sequences: [first, first + 1], sizes: [1, 2], tail: 'clean' });
    const reopened = open(directory);
    expect(reopened.nextSequence).toBe(first + 2);
    reopened.close();
  });

  test('never gives a number twice, whichever byte of it is wrong', () => {
    const directory = temporaryDirectory();
    const startOf = fiveRecords(directory, 0);
    const bytes = readFileSync(journalPath(directory, 0));
    for (let at = 0; at < bytes.byteLength; at++) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 0x81;
      writeFileSync(journalPath(directory, 0), changed);
      const journal = open(directory);
      // The reply is 3 bytes, so each record ends with one byte of padding, whose change is no damage.
      const isPadding = at >= startOf(1) && (at - startOf(1)) % 36 === 35;
      expect(journal.nextSequence, `byte ${at}`)[isPadding ? 'toBe' : 'toBeGreaterThan'](isPadding ? 6 : 5);
      journal.close();
    }
  });

  test('never gives a number twice when a size says that the record goes on behind the end of the file', () => {
    const directory = temporaryDirectory();
    const startOf = fiveRecords(directory);
    const bytes = damage(directory, startOf(2) + 2);
    const journal = open(directory);
    expect(journal.nextSequence).toBeGreaterThan(5);
    journal.close();
    expect(readFileSync(join(directory, setAside(directory)[0]!))).toEqual(bytes);
  });

  test('hands its numbers on to a journal that is closed without a record', () => {
    const directory = temporaryDirectory();
    damage(directory, fiveRecords(directory)(2) + 33);
    const first = open(directory);
    const next = first.nextSequence;
    first.close();
    const second = open(directory);
    expect(next).toBeGreaterThan(5);
    expect(second.nextSequence).toBe(next);
    second.close();
  });

  test('hands its numbers on when its successor is damaged, too, from the first record on', () => {
    const directory = temporaryDirectory();
    damage(directory, fiveRecords(directory, 3000)(2) + 33);
    const first = open(directory);
    const next = first.nextSequence;
    turn(first, 10);
    first.close();
    damage(directory, FILE_HEADER_BYTES + 33);
    const second = open(directory);
    expect(second.nextSequence).toBeGreaterThan(next);
    second.close();
    expect(setAside(directory)).toHaveLength(2);
  });

  test.each([
    ['is no journal at all', (path: string) => writeFileSync(path, 'something else, 40 bytes long or more ...')],
    ['is empty', (path: string) => truncateSync(path, 0)],
    ['belongs to another stream', (path: string) => writeFileSync(path, encodeFileHeader({ stream: 1, epoch: 9n, firstSequence: 50 }))],
  ])('is set aside when it %s', (_name, spoil) => {
    const directory = temporaryDirectory();
    fiveRecords(directory);
    spoil(journalPath(directory, 0));
    const journal = open(directory);
    turn(journal, 4);
    journal.close();
    expect(setAside(directory)).toHaveLength(1);
    expect(read(directory)).toMatchObject({ sizes: [4], tail: 'clean' });
  });

  test('whose header alone is wrong goes on above its last record', () => {
    const directory = temporaryDirectory();
    fiveRecords(directory);
    damage(directory, 20);
    const journal = open(directory);
    expect(journal.nextSequence).toBe(6);
    journal.close();
  });
});

describe('a journal on a full disk', () => {
  const KIBI = 1024;

  /** Runs turns in a process whose files may not grow beyond `limitKibibytes`. */
  function runLimited(directory: string, limitKibibytes: number, sizes: readonly number[]): { turns: string[]; nextSequence: number } {
    const child = new URL('../../../test/agent/journal/full-disk-child.ts', import.meta.url).pathname;
    const script = `ulimit -S -f ${limitKibibytes} && exec "$0" "$@"`;
    const output = execFileSync('bash', ['-c', script, process.execPath, child, directory, ...sizes.map(String)], { encoding: 'utf8' });
    return JSON.parse(output) as { turns: string[]; nextSequence: number };
  }

  test('throws journal_failed from commit(), keeps whole records only, and writes again when there is room', () => {
    const directory = temporaryDirectory();
    const { turns, nextSequence } = runLimited(directory, 64, [40 * KIBI, 40 * KIBI, 60 * KIBI, 2 * KIBI]);
    const refused = expect.stringMatching(/^journal_failed: Cannot write the journal of stream 0: EFBIG/);
    expect([turns, nextSequence]).toEqual([['written', refused, refused, 'written'], 5]);
    const sequences: number[] = [];
    const scan = scanJournal(journalPath(directory, 0), 0, (record) => sequences.push(record.sequence));
    expect([sequences, scan?.tail]).toEqual([[1, 4], 'clean']);
    expect(statSync(journalPath(directory, 0)).size).toBe(scan?.endOffset);
  });

  test('leaves whole records behind when the agent ends before it can write again', () => {
    const directory = temporaryDirectory();
    expect(runLimited(directory, 64, [40 * KIBI, 40 * KIBI]).turns[1]).toContain('journal_failed');
    const scan = scanJournal(journalPath(directory, 0), 0, () => {});
    expect([scan?.lastSequence, scan?.tail, statSync(journalPath(directory, 0)).size]).toEqual([1, 'clean', scan?.endOffset]);
  });

  test('loses what is collected of the turn when the write in the middle of it fails, and says so once', () => {
    const directory = temporaryDirectory();
    // One record over the buffer's size, which append() writes at once, and it is over the limit.
    const { turns } = runLimited(directory, 1500, [700 * KIBI, 2000 * KIBI, 5]);
    expect(turns).toEqual(['written', expect.stringContaining('journal_failed'), 'written']);
    const sequences: number[] = [];
    expect(scanJournal(journalPath(directory, 0), 0, (record) => sequences.push(record.sequence))?.tail).toBe('clean');
    expect(sequences).toEqual([1, 3]);
  });
});

describe.skipIf(!existsSync('/proc/self/fd'))('a journal whose device fails', () => {
  /** Puts another file behind the descriptor of a journal's file; returns what puts the journal's back. */
  function replaceDescriptor(path: string, other: string): () => void {
    const descriptor = readdirSync('/proc/self/fd')
      .map(Number)
      .find((one) => linkOf(one) === path)!;
    const put = (file: string): void => {
      closeSync(descriptor);
      // The lowest free number is given: the one just closed, unless a lower one was free before.
      const taken: number[] = [];
      for (let given = openSync(file, 'r+'); given !== descriptor; given = openSync(file, 'r+')) taken.push(given);
      for (const one of taken) closeSync(one);
    };
    put(other);
    return () => put(path);
  }

  function linkOf(descriptor: number): string | null {
    try {
      return readlinkSync(`/proc/self/fd/${descriptor}`);
    } catch {
      // It was the one that listed the folder.
      return null;
    }
  }

  test('throws journal_failed even when the torn tail cannot be cut, and goes on when the device is back', () => {
    const directory = temporaryDirectory();
    const journal = open(directory);
    turn(journal, 10);
    const restore = replaceDescriptor(journalPath(directory, 0), '/dev/full');
    const codes = [codeOf(() => turn(journal, 20)), codeOf(() => turn(journal, 30))];
    const { offset } = journal;
    // What half a write leaves behind, longer than the next record.
    appendFileSync(journalPath(directory, 0), new Uint8Array(500).fill(0xee));
    restore();
    expect(codes).toEqual(['journal_failed', 'journal_failed']);
    expect(offset).toBe(FILE_HEADER_BYTES + 48);
    turn(journal, 40);
    journal.close();
    expect(read(directory)).toEqual({ sequences: [1, 4], sizes: [10, 40], tail: 'clean' });
  });

  test('fails every commit after a failed sync, because pages may be lost that were written', async () => {
    const directory = temporaryDirectory();
    const { journal, syncFailures } = openWithFailures(directory);
    turn(journal, 10);
    // This device takes bytes and cannot be synced.
    const restore = replaceDescriptor(journalPath(directory, 0), '/dev/null');
    await waitFor(
      () => syncFailures.length > 0,
      5000,
      () => 'no sync failed',
    );
    expect(syncFailures).toMatchObject([
      { code: 'journal_failed', message: expect.stringContaining('Cannot sync the journal of stream 0') },
    ]);
    restore();
    expect([codeOf(() => turn(journal, 1)), codeOf(() => turn(journal, 1))]).toEqual(['journal_failed', 'journal_failed']);
    expect(codeOf(() => journal.close())).toBe('journal_failed');
    expect(readdirSync('/proc/self/fd').some((one) => linkOf(Number(one)) === journalPath(directory, 0))).toBe(false);
  });
});
