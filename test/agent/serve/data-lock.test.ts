import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { lockDataDirectory } from '../../../agent/serve/data-lock.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { temporaryDirectory } from '../../support/agent.ts';

const LOCK = 'agent.lock';
const LOCK_FILE = join(import.meta.dirname, '../../../agent/serve/data-lock.ts');

interface Holder {
  readonly processId: number;
  readonly started: string | null;
  readonly bootId: string | null;
}

function holderOf(directory: string): Holder {
  return JSON.parse(readFileSync(join(directory, LOCK), 'utf8')) as Holder;
}

/** What the lock of this very process looks like. */
function ownHolder(): Holder {
  const directory = temporaryDirectory();
  const lock = lockDataDirectory(directory);
  const holder = holderOf(directory);
  lock.release();
  return holder;
}

/** The id of a process that has ended. */
function deadProcessId(): number {
  return spawnSync(process.execPath, ['-e', '']).pid;
}

function lockedBy(holder: unknown): string {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, LOCK), typeof holder === 'string' ? holder : JSON.stringify(holder));
  return directory;
}

function errorOf(directory: string): SetpointError {
  try {
    lockDataDirectory(directory);
  } catch (error) {
    if (error instanceof SetpointError) return error;
    throw error;
  }
  throw new Error('the lock was given');
}

describe('lockDataDirectory()', () => {
  test('makes the directory and leaves one file that names this process', () => {
    const directory = join(temporaryDirectory(), 'not', 'there');
    lockDataDirectory(directory);
    expect(readdirSync(directory)).toEqual([LOCK]);
    expect(holderOf(directory).processId).toBe(process.pid);
  });

  test('refuses a second lock while the first is held, and says who holds it', () => {
    const directory = temporaryDirectory();
    lockDataDirectory(directory);
    const error = errorOf(directory);
    expect([error.code, error.message, error.remedy]).toEqual([
      'not_ready',
      `Cannot use data directory ${directory}: process ${process.pid} is using it`,
      'stop that agent, or give this one a dataDir of its own',
    ]);
    expect(readdirSync(directory)).toEqual([LOCK]);
  });

  test('refuses another process, too', () => {
    const directory = temporaryDirectory();
    lockDataDirectory(directory);
    const script = `
      import { lockDataDirectory } from ${JSON.stringify(LOCK_FILE)};
      try { lockDataDirectory(${JSON.stringify(directory)}); console.log('locked'); } catch (error) { console.log(error.message); }
    `;
    const output = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' });
    expect(output.trim()).toBe(`Cannot use data directory ${directory}: process ${process.pid} is using it`);
  });

  test('gives the lock again after its release', () => {
    const directory = temporaryDirectory();
    lockDataDirectory(directory).release();
    expect(existsSync(join(directory, LOCK))).toBe(false);
    lockDataDirectory(directory).release();
  });

  test.each<[string, () => unknown]>([
    ['a dead process', () => ({ ...ownHolder(), processId: deadProcessId() })],
    ['a process whose id another one has now', () => ({ ...ownHolder(), started: '1' })],
    ['a process of the system before it was started again', () => ({ ...ownHolder(), bootId: 'another-boot' })],
    ['nobody, because it is empty', () => ''],
    ['nobody, because it is no JSON', () => '{"processId":'],
    ['nobody, because it is something else', () => '5'],
    ['nobody, because it is null', () => 'null'],
    ['nobody, because it names none', () => ({})],
  ])('takes over the lock of %s', (_name, holder) => {
    const directory = lockedBy(holder());
    const lock = lockDataDirectory(directory);
    expect(holderOf(directory).processId).toBe(process.pid);
    expect(readdirSync(directory)).toEqual([LOCK]);
    expect(errorOf(directory).code).toBe('not_ready');
    lock.release();
    expect(readdirSync(directory)).toEqual([]);
  });

  test('takes over the lock of an agent that was killed', () => {
    const directory = temporaryDirectory();
    const script = `
      import { lockDataDirectory } from ${JSON.stringify(LOCK_FILE)};
      lockDataDirectory(${JSON.stringify(directory)});
      process.kill(process.pid, 'SIGKILL');
    `;
    spawnSync(process.execPath, ['--input-type=module', '-e', script]);
    expect(holderOf(directory).processId).not.toBe(process.pid);
    lockDataDirectory(directory);
    expect(holderOf(directory).processId).toBe(process.pid);
  });
});

describe('release()', () => {
  test('leaves the lock of an agent that took over alone', () => {
    const directory = temporaryDirectory();
    const lock = lockDataDirectory(directory);
    const other = { ...ownHolder(), started: '17' };
    writeFileSync(join(directory, LOCK), JSON.stringify(other));
    lock.release();
    expect(holderOf(directory)).toEqual(other);
  });

  test('may be called when the directory is gone, and twice', () => {
    const directory = join(temporaryDirectory(), 'data');
    mkdirSync(directory);
    const lock = lockDataDirectory(directory);
    lock.release();
    expect(() => lock.release()).not.toThrow();
  });
});
