import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { allMet, type Budget, type Budgets, machineFactor, parseBudgets, verdictOf, verdictTable } from '../../bench/budgets.ts';
import { renderTable } from '../../bench/table.ts';

const atMost: Budget = { id: 'slow', bench: 'latency', what: 'slowness', atMost: 2, unit: 'x' };
const atLeast: Budget = { id: 'fast', bench: 'throughput', what: 'speed', atLeast: 5, unit: 'x' };
const absolute: Budget = { id: 'service', bench: 'latency', what: 'service time', atMost: 25, unit: 'us' };
const budgets: Budgets = { reference: { ortRunMicros: 10, machine: 'a quiet one' }, budgets: [atMost, atLeast, absolute] };

describe('parseBudgets()', () => {
  test('accepts the budgets of this repository and finds the numbers that were promised', () => {
    const { budgets: shipped } = parseBudgets(readFileSync(resolve(import.meta.dirname, '../../bench/budgets.json'), 'utf8'));
    expect(Object.fromEntries(shipped.map(({ id, atMost, atLeast }) => [id, atMost ?? atLeast]))).toEqual({
      closedLoopRatio: 2,
      serviceMicrosP50: 25,
      serviceMicrosP99: 100,
      openLoopRatioP99: 1.5,
      saturatedOverFloor: 0.65,
      saturatedOverWebSocketPeer: 2,
      saturatedOverHttpPeer: 5,
      saturatedOverGrpcPeer: 5,
      durabilityClosedLoopRatio: 1.25,
      durabilitySaturatedRatio: 0.75,
      storeDecisionsPerSecond: 20_000,
      storeMemoryGrowth: 1.1,
      soakFileGrowth: 1.05,
      soakMemoryGrowth: 1.1,
      soakErrors: 0,
    });
  });

  test.each([
    ['text that is not JSON', '{', 'it is not JSON'],
    ['an unknown key', JSON.stringify({ ...budgets, extra: 1 }), 'extra'],
    ['a budget with both limits', JSON.stringify({ ...budgets, budgets: [{ ...atMost, atLeast: 1 }] }), 'budgets.0: give exactly one'],
    ['a budget with no limit', JSON.stringify({ ...budgets, budgets: [{ ...atMost, atMost: undefined }] }), 'budgets.0: give exactly one'],
    ['a limit below 0', JSON.stringify({ ...budgets, budgets: [{ ...atMost, atMost: -1 }] }), 'budgets.0.atMost'],
    ['two budgets with one id', JSON.stringify({ ...budgets, budgets: [atMost, atMost] }), 'every budget needs its own id'],
  ])('refuses %s and says where', (_, text, message) => {
    expect(() => parseBudgets(text)).toThrow(message);
  });
});

describe('verdictOf()', () => {
  test('meets an upper limit up to and including it', () => {
    expect(verdictOf(atMost, 2)).toBe('met');
    expect(verdictOf(atMost, 2.001)).toBe('missed');
  });

  test('meets a lower limit from it upwards', () => {
    expect(verdictOf(atLeast, 5)).toBe('met');
    expect(verdictOf(atLeast, 4.999)).toBe('missed');
  });

  test('an upper limit of 0 is met by 0 alone', () => {
    const none: Budget = { id: 'errors', bench: 'store', what: 'errors', atMost: 0, unit: 'errors' };
    expect(verdictOf(none, 0)).toBe('met');
    expect(verdictOf(none, 1)).toBe('missed');
  });

  test.each([null, undefined, Number.NaN, Infinity])('does not take %s for a measurement', (measured) => {
    expect(verdictOf(atMost, measured)).toBe('not measured');
  });
});

describe('the whole verdict', () => {
  test('allMet() needs every budget measured and met', () => {
    expect(allMet(budgets, { slow: 1, fast: 6, service: 20 })).toBe(true);
    expect(allMet(budgets, { slow: 1, fast: 6 })).toBe(false);
    expect(allMet(budgets, { slow: 1, fast: 4, service: 20 })).toBe(false);
  });

  test('machineFactor() is this run of the model over the reference', () => {
    expect(machineFactor(budgets, 20)).toBe(2);
    expect(machineFactor(budgets, null)).toBeNull();
  });

  test('an absolute miss on a slow machine stays a miss, with what it would be at reference speed beside it', () => {
    const { rows } = verdictTable(budgets, { slow: 1, fast: 6, service: 40 }, 2);
    expect(rows[2]).toMatchObject({ measured: '40.00 us', atReference: '20.00 us', verdict: 'missed' });
  });

  test('a ratio is not scaled by the machine', () => {
    const { rows } = verdictTable(budgets, { slow: 1 }, 2);
    expect(rows[0]).toMatchObject({ limit: '<= 2.00 x', atReference: null, verdict: 'met' });
  });

  test('says what was not measured', () => {
    expect(renderTable(verdictTable(budgets, {}, null))).toContain('not measured');
  });
});
