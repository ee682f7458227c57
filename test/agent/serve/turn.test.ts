import { describe, expect, test, vi } from 'vitest';
import { Journal } from '../../../agent/journal/journal.ts';
import { scanJournal } from '../../../agent/journal/reader.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { segmentPath } from '../../../agent/journal/segments.ts';
import { decodeClientFrame, decodeServerFrame, encodeFrame } from '../../../protocol/codec.ts';
import { FRAME_KINDS } from '../../../protocol/frames.ts';
import { MAX_FRAME_BYTES } from '../../../protocol/limits.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { observeFrame, RecordingTarget, servedBundle, slotWith, vector } from './served.ts';
import { inlineSlot, nextTurn, observed, predict, setUp, WALL_MILLIS } from './turn-setup.ts';

describe('a turn', () => {
  test('runs, then decides and appends, then commits, then replies', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    for (const requestId of [1, 2, 3]) predict(setup, slot, requestId);
    expect(setup.log).toEqual([]);
    await nextTurn();
    expect(setup.log).toEqual(['run 3', 'append 1', 'append 2', 'append 3', 'commit', 'decided 1', 'decided 2', 'decided 3', 'flush']);
  });

  test('answers a request at once when the turn before had only one, in the same order', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    await nextTurn();
    setup.log.length = 0;
    predict(setup, slot, 2);
    expect(setup.log).toEqual(['run 1', 'append 2', 'commit', 'decided 2', 'flush']);
    await nextTurn();
    predict(setup, slot, 3);
    expect(setup.target.decisions.map(({ value }) => value)).toEqual([1, 2, 3]);
  });

  test('batches what else comes in a turn whose first request was answered at once, and the whole of the next turn', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    await nextTurn();
    setup.log.length = 0;
    for (const requestId of [2, 3, 4]) predict(setup, slot, requestId);
    await nextTurn();
    for (const requestId of [5, 6]) predict(setup, slot, requestId);
    await nextTurn();
    expect(setup.log.filter((entry) => entry.startsWith('run'))).toEqual(['run 1', 'run 2', 'run 2']);
    expect(setup.target.decisions.map(({ value }) => value)).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test('gives each request the answer of its own row, with its number in the journal', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    for (const requestId of [10, 20, 30]) predict(setup, slot, requestId);
    await nextTurn();
    expect(setup.target.decisions).toMatchObject(
      [10, 20, 30].map((requestId, at) => ({
        kind: FRAME_KINDS.decision,
        requestId,
        sequence: at + 1,
        stream: 3,
        action: 'model',
        reasons: 0,
        value: requestId,
        rawValue: requestId,
        serverTimeMicros: WALL_MILLIS * 1000,
        version: '1',
        outputs: null,
      })),
    );
    expect(setup.target.frames.map((bytes) => decodeServerFrame(bytes))).toEqual(
      setup.target.decisions.map((decision) => ({ ...decision })),
    );
  });

  test('runs a full batch before its end, and the rest at its end', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    for (let requestId = 1; requestId <= 130; requestId++) predict(setup, slot, requestId);
    expect(setup.log).toEqual(['run 64', 'run 64']);
    await nextTurn();
    expect(setup.log.filter((entry) => entry.startsWith('run'))).toEqual(['run 64', 'run 64', 'run 2']);
    expect(setup.log.filter((entry) => entry === 'commit')).toHaveLength(1);
    expect(setup.target.decisions.map(({ value }) => value)).toEqual(Array.from({ length: 130 }, (_, at) => at + 1));
    expect([setup.metrics.get('modelRuns'), setup.metrics.slotField(0, 'runs'), setup.metrics.get('turns')]).toEqual([3, 3, 1]);
  });

  test('runs each bundle once, and flushes each target once', async () => {
    const setup = setUp();
    const slots = [inlineSlot(setup.log), inlineSlot(setup.log)];
    const other = new RecordingTarget(setup.log);
    for (const requestId of [1, 2, 3, 4]) {
      predict({ turn: setup.turn, target: requestId % 2 === 0 ? other : setup.target }, slots[requestId > 2 ? 1 : 0]!, requestId);
    }
    await nextTurn();
    expect(setup.log.filter((entry) => /run|commit|flush/.test(entry))).toEqual(['run 2', 'run 2', 'commit', 'flush', 'flush']);
    expect([setup.target.decisions.map(({ value }) => value), other.decisions.map(({ value }) => value)]).toEqual([
      [1, 3],
      [2, 4],
    ]);
  });

  test('leaves nothing behind for the next one', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    await nextTurn();
    setup.log.length = 0;
    predict(setup, slot, 2);
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'append 2', 'commit', 'decided 2', 'flush']);
    setup.turn.end();
    expect(setup.log).toHaveLength(5);
  });

  test('may be ended at once, as before a bundle is swapped: what came is answered by the bundle it came for', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    const before = slot.active!;
    predict(setup, slot, 1);
    setup.turn.end();
    slot.active = inlineSlot(setup.log).active;
    predict(setup, slot, 2);
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'append 1', 'commit', 'decided 1', 'flush', 'run 1', 'append 2', 'commit', 'decided 2', 'flush']);
    expect(setup.target.decisions.map(({ bundleId }) => bundleId)).toEqual([before.bundleIdBytes, slot.active!.bundleIdBytes]);
  });

  test('uses the default deadline for a request that names none', () => {
    const setup = setUp();
    const slot = slotWith(servedBundle('heavy'));
    predict(setup, slot, 1, { deadlineMicros: 0 });
    predict(setup, slot, 2, { deadlineMicros: 5 });
    expect(setup.heavy.map(({ deadlineMicros }) => deadlineMicros)).toEqual([777_000, 5]);
  });

  test('counts what it answered', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    predict(setup, slot, 2, { features: vector(1) });
    await nextTurn();
    const { metrics } = setup;
    expect(['requests', 'model', 'fallback', 'errors'].map((field) => metrics.slotField(0, field as 'requests'))).toEqual([2, 1, 1, 0]);
    expect([metrics.get('journalRecords'), metrics.get('journalBytes')]).toEqual([2, 100]);
    expect(slot.lastRequestMillis).toBe(WALL_MILLIS);
  });
});

describe('observations', () => {
  test('are written with the decisions of the turn, after them, and told their numbers after the replies', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    setup.turn.observe(observed(setup.log, encodeFrame(observeFrame())));
    predict(setup, slot, 1);
    setup.turn.observe(observed(setup.log, encodeFrame(observeFrame())));
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'append 1', 'append 2', 'append 3', 'commit', 'decided 1', 'flush', 'journaled 2', 'journaled 3']);
    expect(setup.journal.kinds).toEqual([RECORD_KINDS.decision, RECORD_KINDS.observation, RECORD_KINDS.observation]);
  });

  test('alone make a turn, too', async () => {
    const setup = setUp();
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    expect(setup.log).toEqual(['append 1', 'commit', 'journaled 1']);
  });
});

describe('a journal that fails', () => {
  test('does not hold back an answer, and is told with the number of records', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    setup.journal.cannotWrite = true;
    predict(setup, slot, 1);
    predict(setup, slot, 2);
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    expect(setup.log.slice(-5)).toEqual(['commit', 'decided 1', 'decided 2', 'flush', 'journaled 3']);
    expect(setup.failures).toEqual(['journal_failed 3']);
    setup.journal.cannotWrite = false;
    predict(setup, slot, 3);
    await nextTurn();
    expect([setup.failures.length, setup.target.decisions.at(-1)?.sequence]).toEqual([1, 4]);
  });

  test('with anything but an operating error is a defect, and is not hidden', () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    vi.spyOn(setup.journal, 'commit').mockImplementation(() => {
      throw new TypeError('a defect');
    });
    predict(setup, slot, 1);
    expect(() => setup.turn.end()).toThrow('a defect');
    setup.turn.end = () => {};
  });
});

describe('a real journal', () => {
  test('holds the request as it came and the reply as it left', async () => {
    const directory = temporaryDirectory();
    const journal = new Journal({ directory, stream: 0, newEpoch: () => 1n, onSyncFailure: () => {} });
    const setup = setUp({ journal });
    const slot = inlineSlot(setup.log);
    for (const requestId of [1, 2]) predict(setup, slot, requestId);
    setup.turn.observe(observed(setup.log, setup.turn.keep(encodeFrame(observeFrame({ requestId: 3 })))));
    await nextTurn();
    const seen: unknown[] = [];
    scanJournal(segmentPath(directory, 0, 1), 0, ({ sequence, kind, timeMicros, request, reply }) => {
      seen.push({ sequence, kind, timeMicros, requestId: decodeClientFrame(Uint8Array.from(request)).kind, reply: Uint8Array.from(reply) });
    });
    const common = { timeMicros: WALL_MILLIS * 1000 };
    expect(seen).toEqual([
      { ...common, sequence: 1, kind: RECORD_KINDS.decision, requestId: FRAME_KINDS.predict, reply: setup.target.frames[0] },
      { ...common, sequence: 2, kind: RECORD_KINDS.decision, requestId: FRAME_KINDS.predict, reply: setup.target.frames[1] },
      { ...common, sequence: 3, kind: RECORD_KINDS.observation, requestId: FRAME_KINDS.observe, reply: new Uint8Array(0) },
    ]);
    journal.close();
  });
});

describe('keep()', () => {
  test('copies a frame to where it stays until the turn ends', () => {
    const { turn } = setUp();
    const borrowed = Uint8Array.of(1, 2, 3);
    const kept = turn.keep(borrowed);
    borrowed.fill(9);
    const other = turn.keep(Uint8Array.of(4));
    expect([[...kept], [...other]]).toEqual([[1, 2, 3], [4]]);
  });

  test('ends the turn first when there is no room left', async () => {
    const setup = setUp();
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    for (let index = 0; index < 3; index++) setup.turn.keep(new Uint8Array(MAX_FRAME_BYTES));
    expect(setup.log).toEqual([]);
    setup.turn.keep(new Uint8Array(MAX_FRAME_BYTES));
    expect(setup.log).toEqual(['run 1', 'append 1', 'commit', 'decided 1', 'flush']);
    await nextTurn();
    expect(setup.log).toHaveLength(5);
  });
});
