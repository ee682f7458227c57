import { describe, expect, test } from 'vitest';
import { checkVerdict, type StoreEnding, StoreRestarts } from '../../../agent/serve/store-restarts.ts';

const DAMAGED = 3;
const LIMITS = { firstMillis: 200, maxMillis: 1000, healthyMillis: 60_000 };

function ending(given: Partial<StoreEnding>): StoreEnding {
  return { code: null, signal: null, hasProgressed: false, readyMillis: 0, ...given };
}

describe('StoreRestarts', () => {
  test('waits twice as long each time, up to a limit, and starts over after a minute of health', () => {
    const restarts = new StoreRestarts(LIMITS, DAMAGED);
    const delays = [0, 0, 0, 0, 60_000, 0].map((readyMillis) => restarts.ended(ending({ code: 1, readyMillis })).delayMillis);
    expect(delays).toEqual([200, 400, 800, 1000, 200, 400]);
  });

  test.each(['SIGBUS', 'SIGSEGV', 'SIGABRT'])('%s is suspicious: checked twice, set aside the third time in a row', (signal) => {
    const restarts = new StoreRestarts(LIMITS, DAMAGED);
    const actions = [1, 2, 3].map(() => restarts.ended(ending({ signal })).action);
    expect(actions).toEqual(['check', 'check', 'set_aside']);
  });

  test('the exit code of damage is suspicious, other codes and SIGKILL never are', () => {
    const restarts = new StoreRestarts(LIMITS, DAMAGED);
    expect(restarts.ended(ending({ code: DAMAGED })).action).toBe('check');
    for (let time = 0; time < 10; time++) {
      expect(restarts.ended(ending({ signal: 'SIGKILL' })).action).toBe('start');
      expect(restarts.ended(ending({ code: 1 })).action).toBe('start');
    }
  });

  test('progress between the deaths, and another store, start the count anew', () => {
    const restarts = new StoreRestarts(LIMITS, DAMAGED);
    const die = (hasProgressed: boolean): string => restarts.ended(ending({ signal: 'SIGBUS', hasProgressed })).action;
    expect([die(false), die(false), die(true), die(false), die(false)]).toEqual(['check', 'check', 'check', 'check', 'set_aside']);
    restarts.setAside();
    expect(die(false)).toBe('check');
  });

  test('counts ends in a row without progress', () => {
    const restarts = new StoreRestarts(LIMITS, DAMAGED);
    restarts.ended(ending({ code: 1 }));
    restarts.ended(ending({ signal: 'SIGKILL' }));
    expect(restarts.failures).toBe(2);
    restarts.ended(ending({ code: 1, hasProgressed: true }));
    expect(restarts.failures).toBe(1);
  });
});

describe('checkVerdict()', () => {
  test.each([
    [0, null, 'sound'],
    [DAMAGED, null, 'damaged'],
    [null, 'SIGBUS', 'damaged'],
    [null, 'SIGABRT', 'damaged'],
    // Killed for its memory or its time, or not started at all: nothing is known.
    [null, 'SIGKILL', 'undecided'],
    [1, null, 'undecided'],
    [null, null, 'undecided'],
  ] as const)('code %s, signal %s: %s', (code, signal, verdict) => {
    expect(checkVerdict(code, signal, DAMAGED)).toBe(verdict);
  });
});
