import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { controlThreadKey } from '../../../agent/guard/control-thread.ts';
import { DEFAULT_THREAD_FIELDS } from '../../../agent/guard/policy.ts';
import { CONTEXT_FIELDS, type Context } from '../../../protocol/frames.ts';

const EMPTY = Object.fromEntries(CONTEXT_FIELDS.map((field) => [field, null])) as unknown as Context;

/** Text that is likely to imitate the key's own syntax. */
const trickyText = fc.oneof(
  fc.string({ unit: fc.constantFrom('|', '=', ':', '-', '0', '1', 'moduleId', '') }),
  fc.string(),
  fc.constantFrom('-', '', '0:', '1:a|moduleId=1:b'),
);
const trickyContext = fc
  .tuple(fc.option(trickyText), fc.option(trickyText))
  .map(([equipmentId, moduleId]): Context => ({ ...EMPTY, equipmentId, moduleId }));

describe('controlThreadKey()', () => {
  test('names the slot and the fields with the length of each value', () => {
    const context = { ...EMPTY, equipmentId: 'ETCH1', moduleId: '', product: 'X', runNumber: 12 };
    expect(controlThreadKey('cd/etch1', context, ['equipmentId', 'moduleId', 'recipeId', 'runNumber'])).toBe(
      '8:cd/etch1|equipmentId=5:ETCH1|moduleId=0:|recipeId=-|runNumber=2:12',
    );
  });

  test('keeps null apart from the empty string and from a dash', () => {
    const keys = [null, '', '-', '0:', 'null'].map((moduleId) => controlThreadKey('s', { ...EMPTY, moduleId }, ['moduleId']));
    expect(new Set(keys).size).toBe(keys.length);
  });

  test('takes a request without context for one whose fields are all null', () => {
    expect(controlThreadKey('s', null, DEFAULT_THREAD_FIELDS)).toBe(controlThreadKey('s', EMPTY, DEFAULT_THREAD_FIELDS));
  });

  test('does not mistake one field for another', () => {
    const left = controlThreadKey('s', { ...EMPTY, equipmentId: 'A' }, ['equipmentId']);
    expect(left).not.toBe(controlThreadKey('s', { ...EMPTY, moduleId: 'A' }, ['moduleId']));
  });

  test('is equal exactly when slot and fields are', () => {
    const fields = ['equipmentId', 'moduleId'] as const;
    fc.assert(
      fc.property(trickyText, trickyText, trickyContext, trickyContext, (leftSlot, rightSlot, left, right) => {
        const isSame = leftSlot === rightSlot && left.equipmentId === right.equipmentId && left.moduleId === right.moduleId;
        expect(controlThreadKey(leftSlot, left, fields) === controlThreadKey(rightSlot, right, fields)).toBe(isSame);
      }),
      { numRuns: 3000 },
    );
  });
});
