import { expect, test } from 'vitest';
import { AlertGate } from '../../../agent/serve/alert-gate.ts';

test('the first alert of a kind is told at once, the next after the interval', () => {
  const gate = new AlertGate(1000, 10);
  expect([0, 1, 999, 1000, 1001, 1999, 2000].map((now) => gate.allows('a', now))).toEqual([true, false, false, true, false, false, true]);
});

test('an alert that is held back does not push the next one further away', () => {
  const gate = new AlertGate(1000, 10);
  gate.allows('a', 0);
  for (let now = 100; now < 1000; now += 100) gate.allows('a', now);
  expect(gate.allows('a', 1000)).toBe(true);
});

test('kinds do not hold each other back', () => {
  const gate = new AlertGate(1000, 10);
  expect([gate.allows('a', 0), gate.allows('b', 1), gate.allows('a', 2), gate.allows('b', 3)]).toEqual([true, true, false, false]);
});

test('beyond its limit of kinds an alert may be told twice, but is never lost', () => {
  const gate = new AlertGate(1000, 3);
  const kinds = ['a', 'b', 'c', 'd', 'e'];
  expect(kinds.map((kind) => gate.allows(kind, 0))).toEqual([true, true, true, true, true]);
  expect(gate.allows('a', 1)).toBe(true);
  expect(gate.allows('a', 2)).toBe(false);
});
