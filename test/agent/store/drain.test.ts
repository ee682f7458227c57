import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { FILE_HEADER_BYTES, RECORD_KINDS } from '../../../agent/journal/record.ts';
import { syncFile } from '../../../agent/store/drain-files.ts';
import { Drain } from '../../../agent/store/drain.ts';
import { StoreConflictError } from '../../../agent/store/errors.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { appendRecords, gapOf, numbers, recordBytes, segmentPath, writeSegment } from './journal-files.ts';
import { MemoryWriter } from './memory-writer.ts';

interface Setup {
  readonly directory: string;
  readonly writer: MemoryWriter;
  readonly alerts: string[];
  /** Files synced so far. */
  readonly synced: string[];
  readonly drain: Drain;
  readonly clock: { millis: number; step: number };
  /** A new process: only the store is remembered. */
  readonly restart: () => Drain;
}

function setUp(maxRecords = 4096, hasRoomFor: (bytes: number) => boolean = () => true): Setup {
  const directory = temporaryDirectory();
  const writer = new MemoryWriter();
  const alerts: string[] = [];
  const synced: string[] = [];
  const clock = { millis: 0, step: 1000 };
  const restart = (): Drain =>
    new Drain({
      dataDirectory: directory,
      writer,
      limits: { maxBytes: 1 << 20, maxRecords, fewBytes: 300, waitMillis: 1000 },
      // Later at every look, except where a test stops it.
      nowMillis: () => (clock.millis += clock.step),
      sync: async (path) => {
        await syncFile(path);
        synced.push(path);
      },
      hasRoomFor,
      onAlert: (alert, message) => alerts.push(`${alert}: ${message}`),
      storesSetAside: () => ['store.damaged-1'],
    });
  return { directory, writer, alerts, synced, clock, drain: restart(), restart };
}

async function drainAll(drain: Drain): Promise<void> {
  for (let round = 0; round < 1000; round++) if ((await drain.round(false)) === 'idle') return;
  throw new Error('the drain does not come to an end');
}

function range(from: number, to: number): number[] {
  return numbers(from, to).map(({ sequence }) => sequence);
}

function flip(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = bytes[at]! ^ 0x40;
  writeFileSync(path, bytes);
}

function journalNames(directory: string): string[] {
  return readdirSync(join(directory, 'journal')).sort();
}

describe('the drain', () => {
  test('stores the records of every stream in order, across segments, in batches', async () => {
    const { directory, writer, drain } = setUp(7);
    writeSegment(directory, 0, 1, numbers(1, 20));
    writeSegment(directory, 0, 21, numbers(21, 50));
    writeSegment(directory, 3, 1, numbers(1, 5));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual(range(1, 50));
    expect(writer.stored.get(3)).toEqual(range(1, 5));
    expect(writer.events).toEqual([]);
    expect(drain.lagBytes()).toBe(0);
  });

  test('goes on where the store says, in a new process and in a file that grows', async () => {
    const { directory, writer, drain, restart } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 10));
    await drainAll(drain);
    appendRecords(path, numbers(11, 15));
    await drainAll(restart());
    expect(writer.stored.get(0)).toEqual(range(1, 15));
  });

  test('waits for the rest of a record that is being written', async () => {
    const { directory, writer, drain } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 2));
    const third = recordBytes({ sequence: 3 });
    writeFileSync(path, Buffer.concat([readFileSync(path), third.subarray(0, 40)]));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2]);
    writeFileSync(path, Buffer.concat([readFileSync(path), third.subarray(40)]));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2, 3]);
  });

  test('takes gap records as they are: they explain the numbers that are missing', async () => {
    const { directory, writer, drain } = setUp();
    writeSegment(directory, 0, 1, [...numbers(1, 3), gapOf(4, 9), ...numbers(10, 11)]);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2, 3, 9, 10, 11]);
    expect(writer.events).toEqual([]);
  });

  test('states numbers that no record holds and no gap explains, once', async () => {
    const { directory, writer, drain, restart, alerts } = setUp();
    writeSegment(directory, 0, 1, [...numbers(1, 3), ...numbers(7, 8), gapOf(10, 12)]);
    await drainAll(drain);
    await drainAll(restart());
    expect(writer.stored.get(0)).toEqual([1, 2, 3, 7, 8, 12]);
    expect(writer.events).toMatchObject([
      { event: 'lost', stream: 0, from: 4, to: 6, reason: 'journal_damaged' },
      { event: 'lost', stream: 0, from: 9, to: 9 },
    ]);
    expect(alerts).toHaveLength(2);
    expect(drain.lost).toBe(4);
  });

  test('states what a new store does not hold, and where it may be', async () => {
    const { directory, writer, drain } = setUp();
    writeSegment(directory, 0, 101, numbers(101, 103));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([101, 102, 103]);
    expect(writer.events).toMatchObject([{ event: 'lost', stream: 0, from: 1, to: 100, reason: 'store_damaged' }]);
    expect(writer.events[0]).toHaveProperty('detail', expect.stringContaining('store.damaged-1'));
  });

  test('syncs nothing and stores nothing while there is no room', async () => {
    const { directory, writer, drain } = setUp(4096, () => false);
    writeSegment(directory, 0, 1, numbers(1, 3));
    await drainAll(drain);
    expect(writer.stored.size).toBe(0);
    expect(drain.lagBytes()).toBeGreaterThan(0);
  });

  test('has the segment on the medium before the store knows its records', async () => {
    const { directory, writer, drain, synced } = setUp(3);
    const path = writeSegment(directory, 0, 1, numbers(1, 7));
    let commits = 0;
    writer.beforeCommit = () => {
      commits += 1;
      expect(synced).toEqual(Array.from({ length: commits }, () => path));
    };
    await drainAll(drain);
    expect(commits).toBe(3);
  });

  test('lets a few records wait for more, for a time; not many, not those of a finished segment, not at the end', async () => {
    const { directory, writer, drain, clock } = setUp();
    clock.step = 0;
    const path = writeSegment(directory, 0, 1, numbers(1, 2));
    const stored = async (isLast = false): Promise<number> => {
      await drain.round(isLast);
      return writer.stored.get(0)?.length ?? 0;
    };
    expect(await stored()).toBe(2);
    appendRecords(path, numbers(3, 4));
    clock.millis = 999;
    expect(await stored()).toBe(2);
    clock.millis = 1000;
    expect(await stored()).toBe(4);
    appendRecords(path, numbers(5, 6));
    expect(await stored()).toBe(4);
    expect(await stored(true)).toBe(6);
    appendRecords(path, numbers(7, 11));
    expect(await stored()).toBe(11);
    appendRecords(path, numbers(12, 12));
    expect(await stored()).toBe(11);
    writeSegment(directory, 0, 13, []);
    expect(await stored()).toBe(12);
  });

  test('passes on that a commit failed', async () => {
    const { directory, writer, drain } = setUp();
    writer.refuse = new Error('no commit');
    writeSegment(directory, 0, 1, numbers(1, 3));
    await expect(drain.round(false)).rejects.toThrow('no commit');
  });
});

describe('deleting segments', () => {
  test('deletes a finished segment once its records are stored, never the current one', async () => {
    const { directory, drain, writer } = setUp(4);
    const first = writeSegment(directory, 0, 1, numbers(1, 10));
    const second = writeSegment(directory, 0, 11, numbers(11, 12));
    writer.beforeCommit = () => expect(existsSync(first)).toBe((writer.positions.get(0)?.lastSequence ?? 0) < 10);
    await drain.round(false);
    expect(existsSync(first)).toBe(true);
    writer.beforeCommit = () => {};
    await drainAll(drain);
    expect([existsSync(first), existsSync(second)]).toEqual([false, true]);
  });

  test('keeps a segment with an observation until the snapshot has it, and those behind it', async () => {
    const { directory, drain, restart } = setUp();
    const paths = [
      writeSegment(directory, 0, 1, numbers(1, 3)),
      writeSegment(directory, 0, 4, [...numbers(4, 5), { sequence: 6, kind: RECORD_KINDS.observation }, ...numbers(7, 9)]),
      writeSegment(directory, 0, 10, numbers(10, 12)),
      writeSegment(directory, 0, 13, numbers(13, 14)),
    ];
    const present = (): boolean[] => paths.map((path) => existsSync(path));
    await drainAll(drain);
    expect(present()).toEqual([false, true, true, true]);
    for (const anew of [drain, restart()]) {
      anew.cover([{ stream: 0, sequence: 5 }]);
      await drainAll(anew);
      expect(present()).toEqual([false, true, true, true]);
    }
    const last = restart();
    last.cover([{ stream: 0, sequence: 6 }]);
    await drainAll(last);
    expect(present()).toEqual([false, false, false, true]);
  });

  test('what damage hides in a stored segment may be an observation', async () => {
    const { directory, drain, restart } = setUp();
    const path = writeSegment(directory, 0, 1, [...numbers(1, 3), { sequence: 4, kind: RECORD_KINDS.observation }]);
    writeSegment(directory, 0, 5, numbers(5, 6));
    await drainAll(drain);
    flip(path, FILE_HEADER_BYTES + 40);
    await drainAll(restart());
    expect(existsSync(path)).toBe(true);
    const last = restart();
    last.cover([{ stream: 0, sequence: 4 }]);
    await drainAll(last);
    expect(existsSync(path)).toBe(false);
  });

  test('a segment that was deleted after the last commit is not missed', async () => {
    const { directory, writer, drain, restart } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 10));
    await drainAll(drain);
    rmSync(path);
    writeSegment(directory, 0, 11, numbers(11, 12));
    await drainAll(restart());
    expect(writer.stored.get(0)).toEqual(range(1, 12));
    expect(writer.events).toEqual([]);
  });
});

describe('damage', () => {
  test('sets a finished segment aside, states what is lost, and goes on behind it', async () => {
    const { directory, writer, drain, restart, alerts } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 10));
    flip(path, readFileSync(path).byteLength - 20);
    writeSegment(directory, 0, 11, numbers(11, 12));
    await drainAll(drain);
    await drainAll(restart());
    expect(writer.stored.get(0)).toEqual([...range(1, 9), 11, 12]);
    expect(writer.events).toMatchObject([{ event: 'lost', stream: 0, from: 10, to: 10, reason: 'journal_damaged' }]);
    expect(journalNames(directory)).toEqual(['stream-0-0000000000000001.journal.damaged-abcd', 'stream-0-0000000000000011.journal']);
    expect(alerts.join('\n')).toContain('store_segment_damaged');
  });

  test('the current segment: tells once, waits, and goes on when the agent has begun another', async () => {
    const { directory, writer, drain, alerts } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 4));
    const goodBytes = readFileSync(path).byteLength;
    appendRecords(path, numbers(5, 6));
    flip(path, goodBytes + 20);
    await drainAll(drain);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2, 3, 4]);
    expect(alerts).toHaveLength(1);
    expect(journalNames(directory)).toHaveLength(1);
    writeSegment(directory, 0, 100, [gapOf(5, 99, 'journal_damaged'), { sequence: 100 }]);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2, 3, 4, 99, 100]);
    expect(journalNames(directory)[0]).toContain('.damaged-');
  });

  test('a current segment that the agent set aside itself: what it held is stated', async () => {
    const { directory, writer, drain } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 4));
    await drainAll(drain);
    rmSync(path);
    writeSegment(directory, 0, 50, numbers(50, 51), 0x99n);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2, 3, 4, 50, 51]);
    expect(writer.events).toMatchObject([{ event: 'lost', from: 5, to: 49 }]);
    expect(writer.positions.get(0)?.epoch).toBe(0x99n);
  });

  test('a header that cannot be read is damage of the whole segment', async () => {
    const { directory, writer, drain } = setUp();
    flip(writeSegment(directory, 0, 1, numbers(1, 4)), 9);
    writeSegment(directory, 0, 5, numbers(5, 6));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([5, 6]);
    expect(writer.events).toMatchObject([{ event: 'lost', from: 1, to: 4 }]);
  });

  test('a finished segment that is cut short is kept, and what is missing is stated', async () => {
    const { directory, writer, drain } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 4));
    truncateSync(path, readFileSync(path).byteLength - 8);
    writeSegment(directory, 0, 5, numbers(5, 6));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([1, 2, 3, 5, 6]);
    expect(writer.events).toMatchObject([{ event: 'lost', from: 4, to: 4 }]);
    expect(journalNames(directory)[0]).toContain('.damaged-');
  });

  test('records that contradict the store are set aside with their segment', async () => {
    const { directory, writer, drain } = setUp();
    writeSegment(directory, 0, 1, numbers(1, 4));
    writer.refuse = new StoreConflictError('number 3 is another record', 0, 3);
    await drainAll(drain);
    expect(writer.events).toEqual([]);
    writeSegment(directory, 0, 5, []);
    await drainAll(drain);
    expect(writer.events).toMatchObject([{ event: 'lost', from: 1, to: 4 }]);
    expect(journalNames(directory)[0]).toContain('.damaged-');
  });

  test('a stream that was begun anew from an empty folder starts again at its oldest segment', async () => {
    const { directory, writer, drain, restart } = setUp();
    rmSync(writeSegment(directory, 0, 1, numbers(1, 4)), { force: true });
    writeSegment(directory, 0, 1, numbers(1, 40));
    await drainAll(drain);
    rmSync(segmentPath(directory, 0, 1));
    writeSegment(directory, 0, 1, numbers(1, 3), 0x77n);
    for (const anew of [drain, restart()]) await drainAll(anew);
    expect(writer.stored.get(0)).toEqual([...range(1, 40), 1, 2, 3]);
    expect(writer.events).toEqual([]);
  });

  test('a file that the agent cut back and wrote on is read where its records are now', async () => {
    const { directory, writer, drain } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 4));
    const keptBytes = readFileSync(path).byteLength;
    appendRecords(path, numbers(5, 6));
    await drainAll(drain);
    truncateSync(path, keptBytes);
    appendRecords(path, [gapOf(5, 7), ...numbers(8, 12)]);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([...range(1, 6), 7, ...range(8, 12)]);
    expect(writer.events).toEqual([]);
  });

  test('also while it is shorter than it was', async () => {
    const { directory, writer, drain } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 4));
    const keptBytes = readFileSync(path).byteLength;
    appendRecords(path, numbers(5, 9));
    await drainAll(drain);
    truncateSync(path, keptBytes);
    appendRecords(path, [gapOf(5, 10), { sequence: 11 }]);
    await drainAll(drain);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([...range(1, 9), 10, 11]);
    expect(drain.lagBytes()).toBe(0);
  });

  test('a stream begun anew whose first segment is damaged: its own numbers are stated', async () => {
    const { directory, writer, drain } = setUp();
    writeSegment(directory, 0, 1, numbers(1, 40));
    await drainAll(drain);
    flip(writeSegment(directory, 0, 1, numbers(1, 4), 0x77n), FILE_HEADER_BYTES + 40);
    writeSegment(directory, 0, 5, numbers(5, 6), 0x77n);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([...range(1, 40), 5, 6]);
    expect(writer.events).toMatchObject([{ event: 'lost', from: 1, to: 4 }]);
  });

  test('older segments that are kept for their observations are not taken for a new stream', async () => {
    const { directory, writer, drain } = setUp();
    writeSegment(directory, 0, 1, numbers(1, 4, RECORD_KINDS.observation), 0x11n);
    const second = writeSegment(directory, 0, 5, numbers(5, 8), 0x22n);
    await drainAll(drain);
    rmSync(second);
    writeSegment(directory, 0, 9, numbers(9, 10), 0x33n);
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual(range(1, 10));
    expect(writer.events).toEqual([]);
  });

  test("another stream's file is not read as this one's", async () => {
    const { directory, writer, drain } = setUp();
    const other = writeSegment(directory, 7, 1, numbers(1, 4));
    writeFileSync(segmentPath(directory, 0, 1), readFileSync(other));
    writeSegment(directory, 0, 5, numbers(5, 6));
    await drainAll(drain);
    expect(writer.stored.get(0)).toEqual([5, 6]);
    expect(journalNames(directory)[0]).toContain('.damaged-');
  });

  test('whatever bits are flipped: every number is stored once or stated as lost, in order', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(2), fc.integer({ min: FILE_HEADER_BYTES, max: 900 })), { maxLength: 4 }),
        fc.integer({ min: 1, max: 9 }),
        async (flips, maxRecords) => {
          const { directory, writer, drain } = setUp(maxRecords);
          const paths = [1, 11, 21].map((first) => writeSegment(directory, 0, first, numbers(first, first + 9)));
          for (const [segment, at] of flips) if (at < readFileSync(paths[segment]!).byteLength) flip(paths[segment]!, at);
          // The current segment stays whole.
          writeSegment(directory, 0, 31, numbers(31, 33));
          await drainAll(drain);
          const lost = writer.events.flatMap((event) => (event.event === 'lost' ? range(event.from, event.to) : []));
          const all = [...writer.stored.get(0)!, ...lost];
          expect(all.sort((a, b) => a - b)).toEqual(range(1, 33));
        },
      ),
      { numRuns: 60 },
    );
  });
});
