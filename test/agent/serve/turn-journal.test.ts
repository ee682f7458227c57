import { describe, expect, test } from 'vitest';
import { SetpointError } from '../../../protocol/errors.ts';
import { reasonNames } from '../../../protocol/frames.ts';
import { BASELINE, servedBundle, slotWith, TENSORS } from './served.ts';
import { inlineSlot, nextTurn, observed, predict, setUp } from './turn-setup.ts';

/** What a turn answers while its journal cannot be written, and when its answers must be on the disk itself. */

describe('onJournalFailure: fallback', () => {
  test('takes back what the model decided in the turn that failed, and answers and keeps the fallback', async () => {
    const setup = setUp({ onJournalFailure: 'fallback' });
    const slot = inlineSlot(setup.log);
    setup.journal.cannotWrite = true;
    predict(setup, slot, 1);
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    expect(setup.log).toEqual([
      'run 1',
      'append 1',
      'append 2',
      'commit',
      'withdraw 1',
      'append 1',
      'append 2',
      'commit',
      'decided 1',
      'flush',
      'journaled 2',
    ]);
    const [decision] = setup.target.decisions;
    expect(decision).toMatchObject({ action: 'fallback', value: BASELINE, rawValue: 1, sequence: 1 });
    expect(reasonNames(decision!.reasons)).toEqual(['journal_failed', 'fallback_missing']);
    expect(setup.failures).toEqual(['journal_failed 2']);
  });

  test('answers the fallback at once while the journal fails, and the model again when it is back', async () => {
    const setup = setUp({ onJournalFailure: 'fallback' });
    const slot = inlineSlot(setup.log);
    setup.journal.cannotWrite = true;
    predict(setup, slot, 1);
    await nextTurn();
    setup.log.length = 0;
    predict(setup, slot, 2);
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'append 2', 'commit', 'decided 2', 'flush']);
    setup.journal.cannotWrite = false;
    setup.journal.isFailing = false;
    predict(setup, slot, 3);
    await nextTurn();
    expect(setup.target.decisions.map(({ action }) => action)).toEqual(['fallback', 'fallback', 'model']);
  });

  test('refuses a request to a slot that has no fallback', async () => {
    const setup = setUp({ onJournalFailure: 'fallback' });
    const guarded = inlineSlot(setup.log);
    const bare = slotWith(servedBundle('inline', TENSORS), 'bare', 1);
    setup.journal.cannotWrite = true;
    predict(setup, guarded, 1);
    predict(setup, bare, 2, { outputs: [] });
    await nextTurn();
    expect(setup.target.decisions.map(({ requestId }) => requestId)).toEqual([1]);
    expect(setup.target.errors).toMatchObject([{ code: 'journal_failed' }]);
    bare.active!.model!.release();
  });
});

test.each(['fallback', 'refuse'] as const)(
  'with policy %s, a record that is in the file all the same is answered as it was decided, once',
  async (onJournalFailure) => {
    const setup = setUp({ onJournalFailure });
    const slot = inlineSlot(setup.log);
    setup.journal.cannotWrite = true;
    setup.journal.writtenOfTurn = 1;
    predict(setup, slot, 1);
    predict(setup, slot, 2);
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    expect(setup.target.decisions[0]).toMatchObject({ requestId: 1, sequence: 1, action: 'model' });
    if (onJournalFailure === 'fallback') {
      expect(setup.target.decisions[1]).toMatchObject({ requestId: 2, sequence: 2, action: 'fallback' });
      expect(setup.log.at(-1)).toBe('journaled 3');
    } else {
      expect(setup.target.errors).toMatchObject([{ code: 'journal_failed' }]);
      expect(setup.log.at(-1)).toBe('refused journal_failed');
    }
  },
);

describe('onJournalFailure: refuse', () => {
  test('answers requests and observations of the turn that failed with an error, and gives their numbers back', async () => {
    const setup = setUp({ onJournalFailure: 'refuse' });
    const slot = inlineSlot(setup.log);
    setup.journal.cannotWrite = true;
    predict(setup, slot, 1);
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'append 1', 'append 2', 'commit', 'withdraw 1', 'failed 1', 'flush', 'refused journal_failed']);
    expect(setup.target.errors).toMatchObject([{ code: 'journal_failed', retryable: true }]);
    expect(setup.metrics.slotField(slot.index, 'errors')).toBe(1);
    expect(setup.metrics.slotField(slot.index, 'requests')).toBe(0);
  });

  test('appends nothing while the journal fails, and decides again when it is back', async () => {
    const setup = setUp({ onJournalFailure: 'refuse' });
    const slot = inlineSlot(setup.log);
    setup.journal.isFailing = true;
    predict(setup, slot, 1);
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'failed 1', 'flush']);
    setup.journal.isFailing = false;
    predict(setup, slot, 2);
    await nextTurn();
    expect(setup.target.decisions.map(({ requestId, sequence }) => [requestId, sequence])).toEqual([[2, 1]]);
  });
});

describe("durability 'power'", () => {
  test('holds every reply of a turn back until its records are on the disk', async () => {
    const setup = setUp({ durability: 'power' });
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    expect(setup.log).toEqual(['run 1', 'append 1', 'append 2', 'commit']);
    expect(setup.turn.isWaiting).toBe(true);
    setup.journal.synced();
    expect(setup.log.slice(4)).toEqual(['synced', 'decided 1', 'flush', 'journaled 2']);
    expect(setup.turn.isWaiting).toBe(false);
  });

  test('lets turns that come meanwhile share one sync, each with its own answers', async () => {
    const setup = setUp({ durability: 'power' });
    const slot = inlineSlot(setup.log);
    for (const requestId of [1, 2, 3]) {
      predict(setup, slot, requestId);
      await nextTurn();
    }
    expect(setup.target.decisions).toEqual([]);
    setup.journal.synced();
    expect(setup.target.decisions.map(({ requestId, value, sequence }) => [requestId, value, sequence])).toEqual([
      [1, 1, 1],
      [2, 2, 2],
      [3, 3, 3],
    ]);
    expect(setup.metrics.slotField(slot.index, 'requests')).toBe(3);
  });

  test('does not wait for a disk that cannot be written', async () => {
    const setup = setUp({ durability: 'power' });
    const slot = inlineSlot(setup.log);
    setup.journal.cannotWrite = true;
    predict(setup, slot, 1);
    await nextTurn();
    expect(setup.log.slice(-3)).toEqual(['commit', 'decided 1', 'flush']);
    expect(setup.turn.isWaiting).toBe(false);
  });

  const failure = new SetpointError('journal_failed', 'Cannot sync the journal of stream 3: EIO');
  test.each([
    ['serve', ['decided 1', 'flush', 'journaled 2']],
    ['fallback', ['failed 1', 'flush', 'journaled 2']],
    ['refuse', ['failed 1', 'flush', 'refused journal_failed']],
  ] as const)('with policy %s answers a failed sync', async (onJournalFailure, expected) => {
    const setup = setUp({ durability: 'power', onJournalFailure });
    const slot = inlineSlot(setup.log);
    predict(setup, slot, 1);
    setup.turn.observe(observed(setup.log));
    await nextTurn();
    setup.journal.synced(failure);
    expect(setup.log.slice(5)).toEqual(expected);
    expect(setup.failures).toEqual(['journal_failed 2']);
  });
});
