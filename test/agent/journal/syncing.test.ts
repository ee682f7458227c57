import { describe, expect, test } from 'vitest';
import { Setup } from './journal-setup.ts';
import { systemError } from './simulated-disk.ts';

describe('a failed sync', () => {
  test('begins a new segment, states what may be lost, and is told; the next turn is written', () => {
    const setup = new Setup();
    setup.turn(10);
    setup.timers.run(10);
    setup.disk.completeSync();
    setup.turn(20);
    setup.turn(30);
    setup.failNext('syncLater');
    setup.timers.run(10);
    setup.disk.completeSync();
    expect(setup.syncFailures).toMatchObject([
      { code: 'journal_failed', message: expect.stringContaining('Cannot sync the journal of stream 0') },
    ]);
    expect([setup.journal.isFailing, setup.turn(40)]).toEqual([false, null]);
    expect(setup.contents).toMatchObject({
      segments: [1, 4],
      sequences: [1, 2, 3, 5],
      gaps: [{ from: 2, to: 4, count: 2, isExact: false, reason: 'sync_failed' }],
    });
    expect(setup.episodes).toEqual([{ lost: 0, recovered: 0 }]);
  });

  test('while records wait in memory is stated behind them', () => {
    const setup = new Setup();
    setup.turn(20);
    setup.timers.run(10);
    setup.disk.freeBytes = 0;
    setup.turn(30);
    setup.failNext('syncLater');
    setup.disk.completeSync();
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.contents).toMatchObject({
      segments: [1, 2],
      sequences: [1, 2],
      gaps: [{ from: 1, to: 3, count: 2, isExact: false, reason: 'sync_failed' }],
    });
  });

  test('while memory drops records is stated with them', () => {
    const setup = new Setup({ ringBytes: 100 });
    setup.turn(20);
    setup.timers.run(10);
    setup.disk.freeBytes = 0;
    setup.turn(60, 60);
    setup.failNext('syncLater');
    setup.disk.completeSync();
    setup.disk.freeBytes = Infinity;
    setup.timers.run();
    expect(setup.contents).toMatchObject({
      sequences: [1, 3],
      gaps: [{ from: 1, to: 2, count: 2, isExact: false, reason: 'sync_failed' }],
    });
    expect(setup.episodes).toEqual([{ lost: 1, recovered: 1 }]);
  });

  test('may append an alert from where it is told', () => {
    const alerted: Setup = new Setup({
      onSyncFailure: () => {
        alerted.append(9);
        expect(() => alerted.journal.commit()).toThrow('Cannot sync');
      },
    });
    alerted.turn(20);
    alerted.failNext('sync');
    alerted.journal.close();
    expect(alerted.contents).toMatchObject({ sequences: [1, 2], gaps: [{ from: 1, to: 3, reason: 'sync_failed' }] });
    expect(alerted.mark).toMatchObject({ state: 'clean', given: 3 });
  });

  test('of the mark leaves the records where they are', () => {
    const setup = new Setup();
    setup.disk.fault = (action, path) => (action === 'write' ? systemError(path.includes('.mark') ? 'EROFS' : 'ENOSPC') : null);
    expect(setup.turn(10)?.message).toMatch(/^Cannot write the mark of the journal of stream 0: EROFS/);
    setup.disk.fault = () => null;
    setup.timers.run();
    expect(setup.contents.sequences).toEqual([1]);
    expect(setup.mark).toMatchObject({ state: 'open' });
  });
});

describe('whenSynced()', () => {
  function watch(setup: Setup, told: string[], name: string): void {
    setup.journal.whenSynced((error) => told.push(error === null ? name : `${name} ${error.code}`));
  }

  test('calls back after a sync that began after the commit; one serves all who wait', () => {
    const setup = new Setup();
    const told: string[] = [];
    setup.turn(10);
    watch(setup, told, 'first');
    expect([setup.disk.syncsInFlight, told]).toEqual([1, []]);
    setup.turn(20);
    watch(setup, told, 'second');
    watch(setup, told, 'third');
    expect(setup.disk.syncsInFlight).toBe(1);
    setup.disk.completeSync();
    expect([setup.disk.syncsInFlight, told]).toEqual([1, ['first']]);
    setup.disk.completeSync();
    expect(told).toEqual(['first', 'second', 'third']);
    watch(setup, told, 'nothing to wait for');
    expect(told.at(-1)).toBe('nothing to wait for');
  });

  test('tells everybody of a sync that fails, also those who wait for the next one', () => {
    const setup = new Setup({ durability: 'power' });
    const told: string[] = [];
    setup.turn(10);
    watch(setup, told, 'first');
    setup.turn(20);
    watch(setup, told, 'second');
    setup.failNext('syncLater');
    setup.disk.completeSync();
    expect(told).toEqual(['first journal_failed', 'second journal_failed']);
    setup.turn(30);
    watch(setup, told, 'third');
    // The mark is synced with it: it says that the failure is over.
    while (setup.disk.syncsInFlight > 0) setup.disk.completeSync();
    expect(told.at(-1)).toBe('third');
  });

  test('fails at once while records wait in memory, and close() leaves nobody waiting', () => {
    const setup = new Setup();
    const told: string[] = [];
    setup.turn(10);
    watch(setup, told, 'first');
    setup.disk.freeBytes = 0;
    setup.turn(20);
    watch(setup, told, 'second');
    expect(told).toEqual(['second journal_failed']);
    setup.disk.freeBytes = Infinity;
    setup.journal.close();
    expect(told).toEqual(['second journal_failed', 'first']);
    setup.disk.completeSync();
    expect(told).toHaveLength(2);
    expect(setup.disk.openPaths).toEqual([]);
  });
});

describe('the bound of what a power cut can take', () => {
  test('is kept by waiting for the disk', () => {
    const setup = new Setup();
    for (let turn = 0; turn < 65_536 / 1024; turn++) expect(setup.turn(...Array<number>(1024).fill(0))).toBeNull();
    const before = setup.disk.operations;
    setup.turn(0);
    expect(setup.disk.operations - before).toBe(2);
    setup.turn(0);
    expect(setup.disk.operations - before).toBe(3);
  });

  test('is skipped by the next boot, and not by a restart of the process', () => {
    const setup = new Setup();
    setup.turn(10);
    const content = setup.disk.content();
    expect(new Setup({}, content).journal.nextSequence).toBe(2);
    const next = new Setup({ bootId: 'another' }, content);
    expect(next.journal.nextSequence).toBe(2 + 65_536);
    expect(next.contents.gaps).toMatchObject([{ from: 2, to: 65_537, count: 65_536, isExact: false, reason: 'power_cut' }]);
    expect(new Setup({ bootId: null }, content).journal.nextSequence).toBe(2 + 65_536);
  });

  test('loses no answer with durability power, and is not there after a stop', () => {
    const setup = new Setup({ durability: 'power' });
    setup.turn(10);
    const next = new Setup({ bootId: 'another' }, setup.disk.content());
    expect(next.contents.gaps).toMatchObject([{ from: 2, to: 65_537, count: 0, isExact: true, reason: 'power_cut' }]);
    setup.journal.close();
    const stopped = new Setup({ bootId: 'another' }, setup.disk.content());
    expect([stopped.journal.nextSequence, stopped.contents.gaps]).toEqual([2, []]);
  });
});

test('nothing is written to the mark while everything works, but once in a million numbers', () => {
  const setup = new Setup({ segmentBytes: 10_000 });
  let written = 0;
  setup.disk.onWrite = (path) => (written += path.includes('.mark') ? 1 : 0);
  for (let turn = 0; turn < 50; turn++) {
    setup.turn(700);
    setup.timers.run(10);
    setup.disk.completeSync();
  }
  expect([written, setup.contents.segments.length]).toEqual([0, 4]);
});
