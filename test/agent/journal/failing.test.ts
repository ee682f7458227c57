import { describe, expect, test } from 'vitest';
import { listSegments } from '../../../agent/journal/segments.ts';
import { DIRECTORY, Setup } from './journal-setup.ts';

describe('on a full disk', () => {
  test('records wait in memory, in order, and are written when there is room', () => {
    const setup = new Setup();
    setup.turn(100);
    setup.disk.freeBytes = 40;
    const errors = [setup.turn(200, 300), setup.turn(10)];
    expect(errors).toMatchObject([{ code: 'journal_failed', message: expect.stringContaining('ENOSPC') }, { code: 'journal_failed' }]);
    // Told again and again, made once.
    expect(errors[0]).toBe(errors[1]);
    expect([setup.journal.isFailing, setup.journal.ringRecords, setup.journal.lostRecords]).toEqual([true, 3, 0]);
    expect(setup.contents).toMatchObject({ sequences: [1], tails: ['clean'] });
    setup.timers.run();
    expect(setup.journal.isFailing).toBe(true);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect([setup.journal.isFailing, setup.journal.ringRecords]).toEqual([false, 0]);
    expect(setup.episodes).toEqual([{ lost: 0, recovered: 3 }]);
    expect(setup.turn(7)).toBeNull();
    expect(setup.contents).toMatchObject({ segments: [1], sequences: [1, 2, 3, 4, 5], sizes: [100, 200, 300, 10, 7], gaps: [] });
  });

  test('whole records of a write that was cut short stay, and only the others wait', () => {
    const setup = new Setup();
    setup.disk.freeBytes = 250;
    setup.turn(68, 68, 68);
    expect(setup.contents).toMatchObject({ sequences: [1, 2], tails: ['clean'] });
    expect([setup.journal.ringRecords, setup.journal.writtenBytes]).toEqual([1, 200]);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.contents).toMatchObject({ sequences: [1, 2, 3], gaps: [] });
  });

  test('memory is bounded: the oldest are dropped, and a gap record names exactly those', () => {
    const setup = new Setup({ ringBytes: 1000 });
    setup.turn(10);
    setup.disk.freeBytes = 0;
    for (let turn = 0; turn < 5; turn++) setup.turn(168, 168);
    // Five of the ten records of 200 bytes fit.
    expect([setup.journal.ringRecords, setup.journal.lostRecords]).toEqual([5, 5]);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.episodes).toEqual([{ lost: 5, recovered: 5 }]);
    expect(setup.journal.lostRecords).toBe(5);
    const detail = expect.stringContaining('ENOSPC') as unknown;
    expect(setup.contents).toMatchObject({
      sequences: [1, 7, 8, 9, 10, 11],
      gaps: [{ from: 2, to: 6, count: 5, isExact: true, reason: 'disk_full', detail }],
    });
  });

  test('a record larger than the memory is lost, and so are those before it', () => {
    const setup = new Setup({ ringBytes: 100 });
    setup.disk.freeBytes = 0;
    setup.turn(10, 200);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.contents).toMatchObject({ sequences: [], gaps: [{ from: 1, to: 2, count: 2, isExact: true }] });
    expect(setup.turn(5)).toBeNull();
    expect(setup.contents.sequences).toEqual([3]);
  });

  test('the mark knows every number that is given, and a kill loses none of them silently', () => {
    const setup = new Setup();
    setup.turn(10);
    setup.disk.freeBytes = 0;
    setup.turn(20, 30);
    expect(setup.mark).toMatchObject({ state: 'failing', given: 3, from: 2, reason: 'disk_full', sinceMicros: 5000 });
    setup.turn(40);
    const next = new Setup({}, setup.disk.content());
    expect([next.journal.nextSequence, next.journal.lostRecords]).toEqual([5, 3]);
    expect(next.contents.gaps).toMatchObject([{ from: 2, to: 4, count: 3, isExact: true, reason: 'disk_full' }]);
  });

  test('a journal opens all the same, and states what is lost when there is room', () => {
    const setup = new Setup();
    setup.disk.freeBytes = 0;
    setup.turn(20, 30);
    const next = new Setup({}, setup.disk.content(), (disk) => (disk.freeBytes = 0));
    expect([next.journal.isFailing, next.journal.nextSequence]).toEqual([true, 3]);
    next.turn(40);
    const last = new Setup({}, next.disk.content(), (disk) => (disk.freeBytes = 0));
    expect(last.journal.nextSequence).toBe(4);
    last.turn(50);
    last.disk.freeBytes = Infinity;
    last.timers.run();
    expect(last.contents).toMatchObject({ sequences: [4], gaps: [{ from: 1, to: 3, count: 3, isExact: true, reason: 'disk_full' }] });
  });

  test('what is recovered in many steps lets turns come in between', () => {
    const setup = new Setup();
    setup.disk.freeBytes = 0;
    for (let turn = 0; turn < 5; turn++) setup.turn(700_000);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect([setup.journal.isFailing, setup.journal.ringRecords]).toEqual([true, 4]);
    expect(setup.turn(3)?.code).toBe('journal_failed');
    for (let step = 0; step < 10; step++) setup.timers.run(0);
    expect(setup.contents).toMatchObject({ sequences: [1, 2, 3, 4, 5, 6], gaps: [] });
    expect(setup.journal.isFailing).toBe(false);
  });

  test('close() writes what waits when there is room, and throws when there is not', () => {
    const setup = new Setup();
    setup.disk.freeBytes = 0;
    setup.turn(20);
    setup.disk.freeBytes = Infinity;
    setup.journal.close();
    expect(setup.contents.sequences).toEqual([1]);
    expect(setup.mark).toMatchObject({ state: 'clean', given: 1 });
    const other = new Setup({}, setup.disk.content());
    other.disk.freeBytes = 0;
    other.turn(20);
    expect(() => other.journal.close()).toThrow(/ENOSPC/);
    expect(other.mark).toMatchObject({ state: 'failing', given: 2, from: 2 });
    expect(other.disk.openPaths).toEqual([]);
  });
});

describe('withdrawFrom()', () => {
  test('takes back what is not answered, and gives the numbers anew', () => {
    const setup = new Setup();
    setup.turn(10);
    setup.disk.freeBytes = 0;
    setup.turn(20, 30);
    setup.turn(40, 50);
    expect(setup.journal.withdrawFrom(4)).toBe(4);
    expect([setup.journal.nextSequence, setup.journal.ringRecords]).toEqual([4, 2]);
    expect(setup.mark).toMatchObject({ given: 3 });
    expect(setup.turn()).toBeNull();
    setup.turn(60);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.contents).toMatchObject({ sequences: [1, 2, 3, 4], sizes: [10, 20, 30, 60], gaps: [] });
  });

  test('leaves those that are in the file', () => {
    const setup = new Setup();
    setup.disk.freeBytes = 100;
    setup.turn(68, 68, 68);
    expect(setup.journal.withdrawFrom(1)).toBe(2);
    expect([setup.contents.sequences, setup.journal.nextSequence]).toEqual([[1], 2]);
  });

  test('takes back those that memory had to drop, which are lost to nobody then', () => {
    const setup = new Setup({ ringBytes: 150 });
    setup.disk.freeBytes = 0;
    setup.turn(68, 68, 68);
    expect(setup.journal.lostRecords).toBe(2);
    expect(setup.journal.withdrawFrom(1)).toBe(1);
    expect(setup.journal.lostRecords).toBe(0);
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.contents).toMatchObject({ sequences: [], gaps: [] });
  });
});

describe('segments', () => {
  test('are finished between two turns when they are large enough, and hold the numbers from their name on', () => {
    const setup = new Setup({ segmentBytes: 300 });
    setup.turn(200);
    setup.turn(200);
    expect(setup.contents.segments).toEqual([1]);
    setup.timers.run(10);
    expect(setup.contents.segments).toEqual([1, 3]);
    setup.turn(5);
    expect(setup.contents).toMatchObject({ sequences: [1, 2, 3], gaps: [], epochs: [7n, 7n], tails: ['clean', 'clean'] });
    setup.journal.close();
    expect(setup.disk.openPaths).toEqual([]);
  });

  test.each(['open', 'write', 'rename'])('go on in the old file while a new one cannot be made (%s)', (action) => {
    const setup = new Setup({ segmentBytes: 300 });
    setup.turn(400);
    setup.failNext(action, 'EMFILE');
    setup.timers.run(10);
    expect([setup.journal.isFailing, setup.contents.segments]).toEqual([false, [1]]);
    setup.turn(30);
    setup.timers.run(10);
    expect(setup.contents).toMatchObject({ segments: [1, 3], sequences: [1, 2] });
    expect(setup.disk.list(DIRECTORY)).toHaveLength(3);
  });

  test('are made again when their name could not be synced', () => {
    const setup = new Setup({ segmentBytes: 300 });
    setup.turn(400);
    setup.failNext('syncFolder');
    setup.timers.run(10);
    expect(setup.turn(30)).toBeNull();
    expect(setup.contents).toMatchObject({ segments: [1, 2], sequences: [1, 2], gaps: [] });
    expect(setup.episodes).toEqual([{ lost: 0, recovered: 0 }]);
  });

  test('together have a bound: the journal is full until the store has deleted some', () => {
    const setup = new Setup({ segmentBytes: 300, maxBytes: 900 });
    for (let turn = 0; turn < 3; turn++) {
      expect(setup.turn(300)).toBeNull();
      setup.timers.run(10);
    }
    expect(setup.turn(300)).toMatchObject({ code: 'journal_failed', message: expect.stringContaining('reached 900 bytes') });
    expect(setup.mark).toMatchObject({ state: 'failing', reason: 'journal_full' });
    setup.timers.run();
    expect(setup.journal.isFailing).toBe(true);
    setup.disk.remove(listSegments(DIRECTORY, setup.disk)[0]!.path);
    setup.timers.run();
    expect([setup.journal.isFailing, setup.contents.sequences]).toEqual([false, [2, 3, 4]]);
  });

  test('never keep the journal full: the current one is finished for the store to take', () => {
    const setup = new Setup({ segmentBytes: 300, maxBytes: 300 });
    expect(setup.turn(5000)).toBeNull();
    expect(setup.turn(10)?.code).toBe('journal_failed');
    setup.timers.run();
    expect(setup.contents.segments).toEqual([1, 2]);
    setup.disk.remove(listSegments(DIRECTORY, setup.disk)[0]!.path);
    setup.timers.run();
    expect([setup.journal.isFailing, setup.contents.sequences]).toEqual([false, [2]]);
  });
});
