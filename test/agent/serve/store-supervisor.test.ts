import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type StoreReport, StoreSupervisor, type StoreTimings } from '../../../agent/serve/store-supervisor.ts';
import { STORE_DEFAULTS, type StoreSettings } from '../../../agent/store/settings.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';

const FAKE = new URL('../../../test/agent/serve/store-fake-child.ts', import.meta.url).pathname;
const WITHIN = 20_000;

interface Supervised {
  readonly supervisor: StoreSupervisor;
  readonly directory: string;
  readonly exits: string[];
  readonly alerts: string[];
  readonly states: Readonly<Record<string, unknown>>[];
  readonly reports: StoreReport[];
  starts(): number;
  told(): Record<string, unknown>[];
}

interface Setup {
  /** What the stand-in does at each start. */
  readonly script: string;
  /** Exit code of the check; 'hang' never ends. */
  readonly check?: number | 'hang';
  readonly settings?: Partial<StoreSettings>;
  readonly timings?: Partial<StoreTimings>;
}

function supervise({ script, check = 0, settings, timings }: Setup): Supervised {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'store'));
  writeFileSync(join(directory, 'store', 'data.mdb'), 'what it held');
  writeFileSync(join(directory, 'script'), script);
  const checkFile = join(directory, 'check.mjs');
  const ending =
    check === 'hang' ? 'setInterval(() => {}, 1000);' : `console.log('the check says', process.argv[2]); process.exit(${check});`;
  writeFileSync(
    checkFile,
    `import { appendFileSync, writeFileSync } from 'node:fs'; writeFileSync(${JSON.stringify(join(directory, 'check-process'))}, String(process.pid)); appendFileSync(${JSON.stringify(join(directory, 'checks'))}, '.'); ${ending}`,
  );
  const exits: string[] = [];
  const alerts: string[] = [];
  const states: Readonly<Record<string, unknown>>[] = [];
  const reports: StoreReport[] = [];
  const supervisor = new StoreSupervisor({
    settings: { ...STORE_DEFAULTS, agentId: 'test', dataDirectory: directory, hangMillis: 1000, minFreeBytes: 0, ...settings },
    onReady: (kept) => states.push(kept),
    onStatus: (report) => reports.push(report),
    onAlert: (alert, message) => alerts.push(`${alert}: ${message}`),
    onExit: (description) => exits.push(description),
    timings: { firstRestartMillis: 10, maxRestartMillis: 50, stopMillis: 500, openMillis: 5000, ...timings },
    processFile: FAKE,
    checkFile,
  });
  onTestFinished(async () => await supervisor.stop());
  supervisor.start();
  const told = (): Record<string, unknown>[] =>
    existsSync(join(directory, 'told'))
      ? readFileSync(join(directory, 'told'), 'utf8')
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line) as Record<string, unknown>)
      : [];
  return { supervisor, directory, exits, alerts, states, reports, starts: () => count(directory, 'starts'), told };
}

function count(directory: string, file: string): number {
  return existsSync(join(directory, file)) ? readFileSync(join(directory, file), 'utf8').length : 0;
}

async function until(condition: () => boolean, supervised: Supervised): Promise<void> {
  await waitFor(condition, WITHIN, () => JSON.stringify({ ...supervised, supervisor: supervised.supervisor.status }, null, 1));
}

function setAside(directory: string): string[] {
  return readdirSync(directory).filter((name) => name.startsWith('store.damaged-'));
}

describe('a store process that ends', () => {
  test('is started again, and the agent is told how it ended and what the store kept', async () => {
    const supervised = supervise({ script: '1 1 run' });
    expect(supervised.supervisor.status).toMatchObject({ state: 'down', restarts: 0 });
    await until(() => supervised.reports.length > 0, supervised);
    expect(supervised.exits).toEqual(['code 1: I end with 1', 'code 1: I end with 1']);
    expect(supervised.states).toEqual([{ starts: 2 }]);
    expect(supervised.supervisor.status).toMatchObject({ state: 'draining', restarts: 2, headIndex: 7 });
    expect(supervised.supervisor.status.processId).toBeGreaterThan(0);
  });

  test('three times without taking a record: someone is told, once', async () => {
    const supervised = supervise({ script: '1 1 1 1 1 run' });
    await until(() => supervised.reports.length > 0, supervised);
    expect(supervised.alerts).toEqual([expect.stringContaining('store_down')]);
    expect(setAside(supervised.directory)).toEqual([]);
  });

  test('for want of space: says so until it runs', async () => {
    const supervised = supervise({ script: '75', timings: { firstRestartMillis: 10_000 } });
    await until(() => supervised.exits.length === 1, supervised);
    expect(supervised.supervisor.status.state).toBe('waiting_for_space');
  });

  test('is told the newest of everything again, in the order it was told', async () => {
    const supervised = supervise({ script: 'run' });
    const { supervisor } = supervised;
    supervisor.tell({ type: 'snapshot', positions: [{ stream: 0, sequence: 1 }] });
    supervisor.tell({ type: 'state', name: 'estimators', value: 'new' });
    supervisor.tell({ type: 'snapshot', positions: [{ stream: 0, sequence: 2 }] });
    const expected = [
      { type: 'state', name: 'estimators', value: 'new' },
      { type: 'snapshot', positions: [{ stream: 0, sequence: 2 }] },
    ];
    await until(() => supervised.told().length === 2, supervised);
    expect(supervised.told()).toEqual(expected);
    process.kill(supervisor.status.processId ?? 0, 'SIGKILL');
    await until(() => supervised.told().length === 4, supervised);
    expect(supervised.told().slice(2)).toEqual(expected);
  });
});

describe('a store process that hangs', () => {
  test('one that was stopped is killed and started again; that is not held against the store', async () => {
    const supervised = supervise({ script: 'run' });
    await until(() => supervised.reports.length > 0, supervised);
    process.kill(supervised.supervisor.status.processId ?? 0, 'SIGSTOP');
    await until(() => supervised.starts() === 2 && supervised.supervisor.status.state === 'draining', supervised);
    expect(supervised.exits).toEqual([expect.stringMatching(/^signal SIGKILL, killed because it said nothing/)]);
    expect(count(supervised.directory, 'checks')).toBe(0);
  });

  test('a commit that does not end is a hang, though the process speaks', async () => {
    const supervised = supervise({ script: 'stuck run', settings: { hangMillis: 300 } });
    await until(() => supervised.starts() === 2 && supervised.supervisor.status.state === 'draining', supervised);
    expect(supervised.exits).toEqual([expect.stringContaining('a commit takes too long')]);
  });

  test('one that is silent from the start is killed, too', async () => {
    const supervised = supervise({ script: 'silent run', settings: { hangMillis: 300 } });
    await until(() => supervised.starts() === 2, supervised);
    expect(supervised.exits).toHaveLength(1);
  });
});

describe('a suspicious end', () => {
  test('a store that the check finds sound is used again', async () => {
    const supervised = supervise({ script: 'SIGBUS run', check: 0 });
    await until(() => supervised.reports.length > 0, supervised);
    expect(count(supervised.directory, 'checks')).toBe(1);
    expect(setAside(supervised.directory)).toEqual([]);
    expect(supervised.alerts).toEqual([]);
  });

  test('a damaged store is kept under another name, with an alert, and the next start finds none', async () => {
    const supervised = supervise({ script: 'SIGSEGV run', check: 3 });
    await until(() => supervised.reports.length > 0, supervised);
    const [aside, ...more] = setAside(supervised.directory);
    expect(aside).toMatch(/^store\.damaged-\d{8}T\d{6}Z$/);
    expect(more).toEqual([]);
    expect(readFileSync(join(supervised.directory, aside ?? '', 'data.mdb'), 'utf8')).toBe('what it held');
    expect(existsSync(join(supervised.directory, 'store'))).toBe(false);
    expect(supervised.alerts).toEqual([expect.stringContaining(aside ?? '')]);
    expect(supervised.alerts[0]).toMatch(/^store_set_aside: .*the check says/);
  });

  test('a check that comes to no verdict is not held against the store', async () => {
    const supervised = supervise({ script: 'SIGBUS run', check: 'hang', timings: { checkMillis: 200 } });
    await until(() => supervised.supervisor.status.state === 'checking', supervised);
    await until(() => supervised.reports.length > 0, supervised);
    expect(setAside(supervised.directory)).toEqual([]);
  });

  test('the third in a row sets the store aside though the check finds nothing', async () => {
    const supervised = supervise({ script: 'SIGABRT SIGBUS SIGSEGV run', check: 0 });
    await until(() => supervised.reports.length > 0, supervised);
    expect(setAside(supervised.directory)).toHaveLength(1);
    expect(count(supervised.directory, 'checks')).toBe(2);
  });

  test('with progress between them, never', async () => {
    const supervised = supervise({ script: 'progress progress progress progress run', check: 0 });
    await until(() => supervised.starts() === 5, supervised);
    expect(setAside(supervised.directory)).toEqual([]);
  });

  test('killed again and again: never suspicious', async () => {
    const supervised = supervise({ script: 'SIGKILL SIGKILL SIGKILL SIGKILL run' });
    await until(() => supervised.reports.length > 0, supervised);
    expect(setAside(supervised.directory)).toEqual([]);
    expect(count(supervised.directory, 'checks')).toBe(0);
  });

  test('on a full disk the check waits for space: it would die of that', async () => {
    const supervised = supervise({ script: 'SIGBUS run', settings: { minFreeBytes: Number.MAX_SAFE_INTEGER } });
    await until(() => supervised.supervisor.status.state === 'waiting_for_space', supervised);
    expect(count(supervised.directory, 'checks')).toBe(0);
    expect(supervised.starts()).toBe(1);
  });
});

describe('stop()', () => {
  test('tells what is left, lets the process drain, and leaves nothing running', async () => {
    const supervised = supervise({ script: 'run' });
    await until(() => supervised.reports.length > 0, supervised);
    const { processId } = supervised.supervisor.status;
    supervised.supervisor.tell({ type: 'state', name: 'counters', value: 1 });
    supervised.supervisor.tell({ type: 'state', name: 'slots', value: 2 });
    await supervised.supervisor.stop();
    expect(supervised.told()).toEqual([
      { type: 'state', name: 'counters', value: 1 },
      { type: 'state', name: 'slots', value: 2 },
      { type: 'stop', withinMillis: 500 },
    ]);
    expect(() => process.kill(processId ?? 0, 0)).toThrow('ESRCH');
    expect(supervised.exits).toEqual([]);
    expect(supervised.starts()).toBe(1);
  });

  test('kills a process that does not end', async () => {
    const supervised = supervise({ script: 'deaf' });
    await until(() => supervised.reports.length > 0, supervised);
    const { processId } = supervised.supervisor.status;
    await supervised.supervisor.stop();
    expect(() => process.kill(processId ?? 0, 0)).toThrow('ESRCH');
  });

  test('between two starts and during a check, too', async () => {
    const waiting = supervise({ script: '1', timings: { firstRestartMillis: 50 } });
    await until(() => waiting.exits.length === 1, waiting);
    await waiting.supervisor.stop();
    const checking = supervise({ script: 'SIGBUS', check: 'hang' });
    await until(() => count(checking.directory, 'checks') === 1, checking);
    await checking.supervisor.stop();
    await new Promise((resolve) => {
      setTimeout(resolve, 200);
    });
    expect([waiting.starts(), checking.starts()]).toEqual([1, 1]);
    const checkProcess = Number(readFileSync(join(checking.directory, 'check-process'), 'utf8'));
    expect(() => process.kill(checkProcess, 0)).toThrow('ESRCH');
  });

  test('a process that cannot be started is an end like others', async () => {
    const directory = temporaryDirectory();
    const exits: string[] = [];
    const supervisor = new StoreSupervisor({
      settings: { ...STORE_DEFAULTS, agentId: 'test', dataDirectory: directory },
      onReady: () => {},
      onStatus: () => {},
      onAlert: () => {},
      onExit: (description) => exits.push(description),
      processFile: join(directory, 'none.ts'),
    });
    supervisor.start();
    await waitFor(
      () => exits.length > 0,
      WITHIN,
      () => 'no exit',
    );
    expect(exits[0]).toMatch(/^code 1: /);
    await supervisor.stop();
  });
});
