import { describe, expect, test } from 'vitest';
import { type Found, isSound, Judge } from './judge.ts';
import type { Answer } from './ledger.ts';

function found(sequence: number, more: Partial<Found> = {}): Found {
  return {
    place: 'store',
    stream: 0,
    sequence,
    kind: 'decision',
    requestId: 100 + sequence,
    digest: 7000 + sequence,
    isAltered: false,
    gapFrom: null,
    ...more,
  };
}

function answered(sequence: number, more: Partial<Answer> = {}): Answer {
  return { stream: 0, sequence, requestId: 100 + sequence, digest: 7000 + sequence, round: 1, ...more };
}

function judged(records: readonly Found[], answers: readonly Answer[]) {
  const judge = new Judge();
  for (const record of records) judge.record(record);
  for (const answer of answers) judge.answer(answer);
  return judge.verdict();
}

const NOTHING = { missing: 0, duplicated: 0, wrong: 0, holes: 0, statedLost: 0 };

describe('what was answered and what the log has', () => {
  test('are the same: also with a record in store and journal, one that was not answered, and two streams', () => {
    const records = [found(1), found(2), found(2, { place: 'journal' }), found(3), found(1, { stream: 1, requestId: 9 })];
    const verdict = judged(records, [answered(1), answered(2)]);
    expect(verdict).toEqual({ ...NOTHING, records: 4, examples: [] });
    expect(isSound(verdict)).toBe(true);
  });

  test.each([
    ['no record', [found(1)], [answered(1), answered(2)], { missing: 1 }],
    ['no record in its stream', [found(1), found(2)], [answered(1, { stream: 1 })], { missing: 1 }],
    ['a number that was given again', [found(1), found(2, { requestId: 9 })], [answered(2)], { missing: 1 }],
    ['other reply bytes', [found(1)], [answered(1, { digest: 1 })], { wrong: 1 }],
    ['other request bytes', [found(1, { isAltered: true })], [answered(1)], { wrong: 1 }],
    ['two records of one place', [found(1), found(1)], [answered(1)], { duplicated: 1 }],
    ['two records of one request', [found(1), found(2, { requestId: 101 })], [answered(1)], { duplicated: 1 }],
    ['store and journal that differ', [found(1), found(1, { place: 'journal', digest: 1 })], [answered(1)], { wrong: 1 }],
    ['a hole', [found(1), found(4)], [answered(1)], { holes: 2 }],
    ['a hole at the start', [found(3)], [answered(3)], { holes: 2 }],
    [
      'a gap record, which explains a hole',
      [found(1), found(4, { kind: 'gap', requestId: null, digest: null, gapFrom: 2 }), found(5)],
      [answered(5)],
      { statedLost: 3 },
    ],
  ] as const)('differ by %s', (_, records, answers, faults) => {
    const verdict = judged(records, answers);
    expect(verdict).toMatchObject({ ...NOTHING, ...faults });
    expect(verdict.examples).toHaveLength(1);
    expect(isSound(verdict)).toBe(false);
  });
});
