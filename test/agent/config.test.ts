import { mkdirSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type Config, loadConfig, OVERRIDE_NAMES, parseConfig } from '../../agent/config.ts';
import { SetpointError } from '../../protocol/errors.ts';
import { MAX_SLOTS } from '../../protocol/limits.ts';
import { temporaryDirectory } from '../support/agent.ts';

const TOKEN = 'a-token-of-24-characters';

function parse(text: string, environment: Readonly<Record<string, string>> = {}): Config {
  return parseConfig(text, environment, '/etc/setpoint', 'agent.yaml');
}

function errorOf(run: () => unknown): SetpointError {
  try {
    run();
  } catch (error) {
    if (error instanceof SetpointError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

describe('parseConfig()', () => {
  test('needs a dataDir and nothing else', () => {
    expect(parse('dataDir: data')).toEqual({
      agentId: hostname(),
      dataDir: '/etc/setpoint/data',
      listen: { host: '127.0.0.1', port: 7433 },
      threads: 0,
      controllerToken: null,
      defaultDeadlineMicros: 50_000,
      inlineBudgetMicros: 300,
      bundlePollMillis: 1000,
      maxConnections: 4096,
      drainMillis: 5000,
      durability: 'process',
      onJournalFailure: 'serve',
      journal: { segmentMebibytes: 16, maxMebibytes: 1024, ringMebibytes: 16 },
      store: {
        enabled: true,
        maxMebibytes: 10_240,
        telemetryMaxDays: 90,
        auditMaxDays: null,
        onFull: 'hold',
        minFreeMebibytes: 64,
        ballastMebibytes: 64,
        hangMillis: 30_000,
        checkpointSeconds: 60,
      },
      heavy: { threads: 1, queueLength: 64, hangMillis: 10_000, memoryLimitMebibytes: 2048 },
      vetting: { deadlineMillis: 30_000, memoryLimitMebibytes: 1024 },
      slots: {},
    });
  });

  test('takes every key', () => {
    const text = `
agentId: etch-7
dataDir: /var/lib/setpoint
listen: { host: 0.0.0.0, port: 0 }
threads: 3
controllerToken: ${TOKEN}
defaultDeadlineMicros: 1
inlineBudgetMicros: 100000
bundlePollMillis: 50
maxConnections: 1
drainMillis: 0
durability: power
onJournalFailure: fallback
journal: { segmentMebibytes: 1, maxMebibytes: 2, ringMebibytes: 1 }
store: { enabled: false, maxMebibytes: 8, telemetryMaxDays: 0.5, auditMaxDays: 3650, onFull: drop_oldest, minFreeMebibytes: 1, ballastMebibytes: 0, hangMillis: 1000, checkpointSeconds: 1 }
heavy: { threads: 2, queueLength: 1, hangMillis: 10, memoryLimitMebibytes: 64 }
vetting: { deadlineMillis: 100, memoryLimitMebibytes: 64 }
slots:
  cd/scanner-a/product-x: { bundle: /bundles/a }
`;
    expect(parse(text)).toEqual({
      agentId: 'etch-7',
      dataDir: '/var/lib/setpoint',
      listen: { host: '0.0.0.0', port: 0 },
      threads: 3,
      controllerToken: TOKEN,
      defaultDeadlineMicros: 1,
      inlineBudgetMicros: 100_000,
      bundlePollMillis: 50,
      maxConnections: 1,
      drainMillis: 0,
      durability: 'power',
      onJournalFailure: 'fallback',
      journal: { segmentMebibytes: 1, maxMebibytes: 2, ringMebibytes: 1 },
      store: {
        enabled: false,
        maxMebibytes: 8,
        telemetryMaxDays: 0.5,
        auditMaxDays: 3650,
        onFull: 'drop_oldest',
        minFreeMebibytes: 1,
        ballastMebibytes: 0,
        hangMillis: 1000,
        checkpointSeconds: 1,
      },
      heavy: { threads: 2, queueLength: 1, hangMillis: 10, memoryLimitMebibytes: 64 },
      vetting: { deadlineMillis: 100, memoryLimitMebibytes: 64 },
      slots: { 'cd/scanner-a/product-x': { bundle: '/bundles/a' } },
    });
  });

  test('keeps the defaults of a section that is given in part', () => {
    expect(parse('dataDir: d\nheavy: { threads: 2 }').heavy).toEqual({
      threads: 2,
      queueLength: 64,
      hangMillis: 10_000,
      memoryLimitMebibytes: 2048,
    });
  });

  test('takes relative paths from the folder of the file, also those from the environment', () => {
    const text = 'dataDir: ../data\nslots: { a: { bundle: bundles/a }, b: { bundle: /abs/b } }';
    const { dataDir, slots } = parse(text, { SETPOINT_DATA_DIR: 'other' });
    expect(dataDir).toBe('/etc/setpoint/other');
    expect(parse(text).dataDir).toBe('/etc/data');
    expect(slots).toEqual({ a: { bundle: '/etc/setpoint/bundles/a' }, b: { bundle: '/abs/b' } });
  });

  test.each<[string, string, string | null, string]>([
    ['no dataDir', 'threads: 1', 'dataDir', 'dataDir: Invalid input: expected string, received undefined: value found is nothing'],
    ['an empty file', '', 'dataDir', 'dataDir: Invalid input: expected string, received undefined: value found is nothing'],
    ['a number instead of keys', '5', '(top level)', '(top level): Invalid input: expected object, received number: value found is 5'],
    ['a list instead of keys', '- a', '(top level)', '(top level): Invalid input: expected object, received array: value found is a list'],
    ['an unknown key', 'dataDir: d\nport: 1', 'port', 'port: there is no such key: value found is 1'],
    [
      'an unknown key in a section',
      'dataDir: d\nlisten: { prot: 1 }',
      'listen.prot',
      'listen.prot: there is no such key: value found is 1',
    ],
    ['an unknown key of a slot', 'dataDir: d\nslots: { a: { bundle: x, lane: y } }', 'slots.a.lane', 'slots.a.lane: there is no such key'],
    [
      'a number too large',
      'dataDir: d\nlisten: { port: 65536 }',
      'listen.port',
      'listen.port: Too big: expected number to be <=65535: value found is 65536',
    ],
    [
      'a number too small',
      'dataDir: d\nheavy: { hangMillis: 9 }',
      'heavy.hangMillis',
      'Too small: expected number to be >=10: value found is 9',
    ],
    ['a fraction', 'dataDir: d\nthreads: 1.5', 'threads', 'threads: Invalid input: expected int, received number: value found is 1.5'],
    ['a text where a number belongs', 'dataDir: d\nthreads: two', 'threads', 'expected number, received string: value found is "two"'],
    ['no number', 'dataDir: d\nthreads: .nan', 'threads', 'expected number, received NaN: value found is NaN'],
    ['an infinite number', 'dataDir: d\nthreads: .inf', 'threads', 'received Infinity: value found is Infinity'],
    [
      'nothing where a section belongs',
      'dataDir: d\nlisten:',
      'listen',
      'listen: Invalid input: expected object, received null: value found is null',
    ],
    [
      'a section where a text belongs',
      'dataDir: { a: 1 }',
      'dataDir',
      'dataDir: Invalid input: expected string, received object: value found is a section',
    ],
    [
      'an agentId too long',
      `dataDir: d\nagentId: ${'x'.repeat(65)}`,
      'agentId',
      'agentId: Too big: expected string to have <=64 characters',
    ],
    [
      'a slot name with a space',
      'dataDir: d\nslots: { "a b": { bundle: x } }',
      'slots.a b',
      "must be names of letters, digits, '.', '_' and '-', joined by '/'",
    ],
    ['a slot name that climbs', 'dataDir: d\nslots: { "../x": { bundle: x } }', 'slots.../x', 'must be names of letters'],
    [
      'a slot without a bundle',
      'dataDir: d\nslots: { a: {} }',
      'slots.a.bundle',
      'slots.a.bundle: Invalid input: expected string, received undefined',
    ],
    ['a slot with an empty bundle', 'dataDir: d\nslots: { a: { bundle: "" } }', 'slots.a.bundle', 'value found is ""'],
    ['text that is not YAML', 'dataDir: [', null, 'it is not YAML: Flow sequence in block collection must be sufficiently indented'],
    ['a key given twice', 'dataDir: a\ndataDir: b', null, 'it is not YAML: Map keys must be unique at line 2, column 1'],
  ])('refuses %s, naming key, value and what is allowed', (_name, text, field, message) => {
    const error = errorOf(() => parse(text));
    expect([error.code, error.field]).toEqual(['invalid_config', field]);
    expect(error.message).toMatch(/^Cannot (accept|read) agent\.yaml: /);
    expect(error.message).toContain(message);
    expect(error.message).not.toMatch(/\n|\.$/);
  });

  test(`takes ${MAX_SLOTS} slots and not one more`, () => {
    const text = (count: number): string =>
      `dataDir: d\nslots:\n${Array.from({ length: count }, (_, at) => `  s${at}: { bundle: b }`).join('\n')}`;
    expect(Object.keys(parse(text(MAX_SLOTS)).slots)).toHaveLength(MAX_SLOTS);
    expect(errorOf(() => parse(text(MAX_SLOTS + 1))).message).toContain(`slots: holds more than ${MAX_SLOTS} slots`);
  });

  test.each([
    [
      'a token that is too short',
      'dataDir: d\ncontrollerToken: pssst-secret',
      'controllerToken: Too small: expected string to have >=16 characters',
    ],
    ['a token under a misspelt key', 'dataDir: d\ncontrolerToken: pssst-secret-and-long', 'controlerToken: there is no such key'],
    ['an unknown key beside a token', 'dataDir: d\ncontrollerToken: pssst-secret-and-long\nx: 1', 'x: there is no such key'],
    ['a list around a token', '- controllerToken: pssst-secret-and-long', 'expected object, received array'],
    ['text that is not YAML around a token', 'dataDir: d\ncontrollerToken: "pssst-secret-and-long', 'it is not YAML'],
  ])('never shows a secret: %s', (_name, text, message) => {
    const error = errorOf(() => parse(text));
    expect(error.message).toContain(message);
    expect(error.message).not.toContain('pssst');
  });
});

describe('environment variables', () => {
  test('override single values, whether the file has them or not', () => {
    const environment = {
      SETPOINT_AGENT_ID: 'etch-8',
      SETPOINT_DATA_DIR: '/data',
      SETPOINT_LISTEN_HOST: '::1',
      SETPOINT_LISTEN_PORT: '7500',
      SETPOINT_THREADS: '2',
      SETPOINT_CONTROLLER_TOKEN: TOKEN,
      SETPOINT_DEFAULT_DEADLINE_MICROS: '1000',
      SETPOINT_INLINE_BUDGET_MICROS: '400',
      SETPOINT_BUNDLE_POLL_MILLIS: '60',
      SETPOINT_MAX_CONNECTIONS: '10',
      SETPOINT_DRAIN_MILLIS: '1',
      SETPOINT_DURABILITY: 'power',
      SETPOINT_ON_JOURNAL_FAILURE: 'refuse',
    };
    expect(Object.keys(environment).sort()).toEqual([...OVERRIDE_NAMES].sort());
    const expected = {
      agentId: 'etch-8',
      dataDir: '/data',
      listen: { host: '::1', port: 7500 },
      threads: 2,
      controllerToken: TOKEN,
      defaultDeadlineMicros: 1000,
      inlineBudgetMicros: 400,
      bundlePollMillis: 60,
      maxConnections: 10,
      drainMillis: 1,
      durability: 'power',
      onJournalFailure: 'refuse',
    };
    expect(parse('', environment)).toMatchObject(expected);
    expect(parse('dataDir: d\nagentId: x\nthreads: 1\nlisten: { host: h, port: 1 }', environment)).toMatchObject(expected);
  });

  test('keep the rest of a section', () => {
    expect(parse('dataDir: d\nlisten: { host: 0.0.0.0 }', { SETPOINT_LISTEN_PORT: '1' }).listen).toEqual({ host: '0.0.0.0', port: 1 });
  });

  test('count as not given when empty', () => {
    expect(parse('dataDir: d\nthreads: 4', { SETPOINT_THREADS: '' }).threads).toBe(4);
  });

  test('stay text where text belongs, though they are digits', () => {
    const { agentId, controllerToken } = parse('dataDir: d', {
      SETPOINT_AGENT_ID: '0042',
      SETPOINT_CONTROLLER_TOKEN: '12345678901234567890',
    });
    expect([agentId, controllerToken]).toEqual(['0042', '12345678901234567890']);
  });

  test.each([
    ['SETPOINT_LISTEN_PORT', '99999', 'listen.port: Too big: expected number to be <=65535: value found is 99999'],
    ['SETPOINT_LISTEN_PORT', '-1', 'listen.port: Too small: expected number to be >=0: value found is -1'],
    ['SETPOINT_THREADS', 'many', 'threads: Invalid input: expected number, received string: value found is "many"'],
    ['SETPOINT_THREADS', '1.5', 'value found is "1.5"'],
    [
      'SETPOINT_CONTROLLER_TOKEN',
      'pssst',
      'controllerToken: Too small: expected string to have >=16 characters: value found is a text of 5 characters',
    ],
  ])('are checked like the file: %s=%s', (name, value, message) => {
    expect(errorOf(() => parse('dataDir: d', { [name]: value })).message).toContain(message);
  });

  test('do not hide that a section is no section', () => {
    expect(errorOf(() => parse('dataDir: d\nlisten: 5', { SETPOINT_LISTEN_PORT: '1' })).field).toBe('listen');
  });
});

describe('loadConfig()', () => {
  test('takes relative paths from the folder of the file, not from the working directory', () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, 'etc'));
    writeFileSync(join(directory, 'etc', 'agent.yaml'), 'dataDir: ../data\nslots: { a: { bundle: b } }\n');
    const config = loadConfig(join(directory, 'etc', 'agent.yaml'), {});
    expect([config.dataDir, config.slots['a']?.bundle]).toEqual([join(directory, 'data'), join(directory, 'etc', 'b')]);
  });

  test('says which file cannot be read, and what to do', () => {
    const file = join(temporaryDirectory(), 'none.yaml');
    const error = errorOf(() => loadConfig(file, {}));
    expect([error.code, error.remedy]).toEqual(['invalid_config', 'give the path of a readable YAML file with --config']);
    expect(error.message).toBe(`Cannot read the configuration: ENOENT: no such file or directory, open '${file}'`);
  });

  test('names the file in what it refuses', () => {
    const file = join(temporaryDirectory(), 'agent.yaml');
    writeFileSync(file, 'threads: 1');
    expect(errorOf(() => loadConfig(file, {})).message).toContain(`Cannot accept ${file}: dataDir`);
  });
});
