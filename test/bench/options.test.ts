import { describe, expect, test } from 'vitest';
import { HELP, parseOptions } from '../../bench/options.ts';

function optionsOf(...args: string[]) {
  const parsed = parseOptions(args);
  if (parsed.kind !== 'run') throw new Error(`expected options, got ${JSON.stringify(parsed)}`);
  return parsed.options;
}

describe('parseOptions()', () => {
  test('fills in the settings that the budgets were written for', () => {
    expect(optionsOf('check')).toEqual({
      command: 'check',
      quick: false,
      rounds: 7,
      durationMillis: 2000,
      warmupMillis: 500,
      ratesPerSecond: [5000],
      connections: [1, 64, 256],
      inFlight: [1, 64, 256],
      isPinned: false,
      store: { ratePerSecond: 21_000, durationMillis: 30_000, holdMillis: 10_000, soakMillis: 60_000 },
      jsonFile: null,
    });
  });

  test('takes every option', () => {
    const args = ['--rounds', '2', '--duration', '100', '--warmup', '50', '--rate', '10,20', '--in-flight', '3,4', '--connections', '1,5'];
    expect(optionsOf('throughput', ...args, '--pinned', '--json', 'out.json')).toEqual({
      command: 'throughput',
      quick: false,
      rounds: 2,
      durationMillis: 100,
      warmupMillis: 50,
      ratesPerSecond: [10, 20],
      connections: [1, 5],
      inFlight: [3, 4],
      isPinned: true,
      store: { ratePerSecond: 21_000, durationMillis: 30_000, holdMillis: 10_000, soakMillis: 60_000 },
      jsonFile: 'out.json',
    });
  });

  test('quick shortens what is not given', () => {
    const { quick, rounds, durationMillis } = optionsOf('latency', '--quick', '--rounds', '5');
    expect({ quick, rounds, durationMillis }).toEqual({ quick: true, rounds: 5, durationMillis: 400 });
  });

  test('rate, duration and soak of the store bench are its own', () => {
    expect(optionsOf('store', '--rate', '1000', '--duration', '2000', '--soak', '3600').store).toEqual({
      ratePerSecond: 1000,
      durationMillis: 2000,
      holdMillis: 10_000,
      soakMillis: 3_600_000,
    });
    expect(optionsOf('store', '--quick').store).toEqual({
      ratePerSecond: 21_000,
      durationMillis: 5000,
      holdMillis: 3000,
      soakMillis: 15_000,
    });
  });

  test('in check, a rate and a duration are those of the rounds and leave the store bench as its budgets need it', () => {
    const { store, durationMillis, ratesPerSecond } = optionsOf('check', '--rate', '100', '--duration', '50', '--soak', '5');
    expect({ durationMillis, ratesPerSecond }).toEqual({ durationMillis: 50, ratesPerSecond: [100] });
    expect(store).toMatchObject({ ratePerSecond: 21_000, durationMillis: 30_000, soakMillis: 5000 });
  });

  test.each([
    [['latency', '--fast'], '--fast'],
    [['latency', '--rounds', '0'], 'Cannot use --rounds 0: a whole number from 1 to 1000 is allowed'],
    [['latency', '--rounds', 'many'], 'Cannot use --rounds many'],
    [['latency', '--rate', '5000,'], 'Cannot use --rate'],
    [['latency', '--duration', '1e3'], 'Cannot use --duration 1e3'],
    [['throughput', '--in-flight', '2000'], 'from 1 to 1024'],
    [['store', '--rate', '1000,2000'], 'store runs at one rate'],
    [['store', '--soak', '0'], 'Cannot use --soak 0: a whole number from 1 to 604800 is allowed'],
    [['latency', '--json'], '--json'],
    [['speed'], "Unknown command 'speed'"],
    [['latency', 'peers'], "Unexpected argument 'peers'"],
    [[], 'A command is missing'],
  ])('refuses %j', (args, message) => {
    const parsed = parseOptions(args);
    expect(parsed.kind).toBe('wrong');
    expect(parsed).toMatchObject({ message: expect.stringContaining(message) });
  });

  test('asks for help before anything else', () => {
    expect(parseOptions(['--help']).kind).toBe('help');
    expect(parseOptions(['latency', '-h']).kind).toBe('help');
  });

  const optionNames = ['quick', 'rounds', 'duration', 'warmup', 'rate', 'soak', 'in-flight', 'connections', 'pinned', 'json', 'help'];
  const commands = ['latency', 'throughput', 'peers', 'durability', 'store', 'check'];

  test.each(optionNames.map((name) => `--${name}`).concat(commands))('help explains %s', (word) => {
    expect(HELP).toContain(word);
  });
});
