import { describe, expect, test } from 'vitest';
import { parseOptions, USAGE } from '../../../bench/fab/options.ts';

describe('parseOptions()', () => {
  test('runs until Ctrl-C on port 7433 without arguments', () => {
    expect(parseOptions([])).toEqual({ kind: 'run', options: { seconds: null, port: 7433, rate: 300, seed: 1 } });
  });

  test('takes every option, in both forms', () => {
    const options = { seconds: 2.5, port: 8000, rate: 1000, seed: 0 };
    expect(parseOptions(['--seconds', '2.5', '--port', '8000', '--rate=1000', '--seed=0'])).toEqual({ kind: 'run', options });
  });

  test.each([[['--help']], [['-h']], [['--port', '80', '--help']]])('shows help for %j', (given) => {
    expect(parseOptions(given)).toEqual({ kind: 'help' });
  });

  test.each([
    [['--speed', '3'], '"--speed" is not an option'],
    [['toString'], '"toString" is not an option'],
    [['--seconds'], '--seconds: value found is nothing'],
    [['--seconds', '0'], '--seconds: value found is "0"'],
    [['--seconds', ''], '--seconds: value found is ""'],
    [['--port', '0'], '--port: value found is "0", a whole number from 1 to 65535 is allowed'],
    [['--port', '65536'], '--port: value found is "65536"'],
    [['--port', '1.5'], '--port: value found is "1.5"'],
    [['--rate', 'fast'], '--rate: value found is "fast"'],
    [['--seed', '-1'], '--seed: value found is "-1"'],
  ])('refuses %j', (given, message) => {
    const parsed = parseOptions(given);
    expect(parsed.kind).toBe('wrong');
    expect(parsed.kind === 'wrong' && parsed.message).toContain(message);
  });

  test('has a usage text that names every option', () => {
    for (const name of ['--seconds', '--port', '--rate', '--seed', '--help']) expect(USAGE).toContain(name);
  });
});
