import { spawn } from 'node:child_process';
import { closeSync, cpSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { LAST, makeStore } from './damaged-store.ts';

const CHILD = new URL('../../../test/agent/store/damage-child.ts', import.meta.url).pathname;
const PAGE_BYTES = 4096;
const FILES = 40;
const HANG_MILLIS = 20_000;
/** How LMDB ends its process on damage; the last is what a watch does to one that hangs. */
const DEATHS = ['SIGBUS', 'SIGSEGV', 'SIGABRT', 'SIGKILL'];

let root = '';
let pages = 0;
beforeAll(async () => {
  root = mkdtempSync(join(tmpdir(), 'setpoint-damage-'));
  await makeStore(join(root, 'sound'));
  pages = Math.floor(statSync(join(root, 'sound', 'data.mdb')).size / PAGE_BYTES);
});
afterAll(() => rmSync(root, { recursive: true, force: true }));

interface Outcome {
  /** What ended the process in this store; null when it came to the end. */
  readonly signal: string | null;
  readonly code: number | null;
  readonly steps: ReadonlyMap<string, readonly number[]>;
  readonly wrong: number;
  /** Of reading. Writing may fail in a sound store, too: the list of its free pages is nothing that can be read. */
  readonly errors: number;
  readonly said: string;
}

interface End {
  readonly code: number | null;
  readonly signal: string | null;
  readonly said: string;
  readonly complaint: string;
}

async function run(directories: readonly string[]): Promise<End> {
  const child = spawn(process.execPath, [CHILD, ...directories], { stdio: ['ignore', 'pipe', 'pipe'] });
  let said = '';
  let complaint = '';
  let timer = setTimeout(() => {}, 0);
  const watch = (): void => {
    clearTimeout(timer);
    // Pages that point at each other keep LMDB busy for ever.
    timer = setTimeout(() => child.kill('SIGKILL'), HANG_MILLIS);
  };
  watch();
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString();
    watch();
  });
  child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
  const end = await new Promise<{ code: number | null; signal: string | null }>((resolve) =>
    child.on('close', (code, signal) => resolve({ code, signal })),
  );
  clearTimeout(timer);
  return { ...end, said, complaint };
}

/** Lives with one store after the other, in a new process behind one that ended it. */
async function live(directories: readonly string[]): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  while (outcomes.length < directories.length) {
    const { code, signal, said, complaint } = await run(directories.slice(outcomes.length));
    const stores = said.split('store\n').slice(1);
    expect(stores.length, complaint).toBeGreaterThan(0);
    const isCut = signal !== null || code !== 0;
    for (const [at, lines] of stores.entries()) {
      const ended = isCut && at === stores.length - 1 ? { code, signal } : { code: 0, signal: null };
      outcomes.push(outcomeOf(ended, lines, complaint));
    }
  }
  return outcomes;
}

function outcomeOf(ended: { code: number | null; signal: string | null }, lines: string, complaint: string): Outcome {
  const steps = new Map<string, number[]>();
  let wrong = 0;
  let errors = 0;
  for (const line of lines.trim().split('\n')) {
    const [step = '', ...counts] = line.split(' ');
    const numbers = counts.map(Number);
    steps.set(step, numbers);
    wrong += numbers[1] ?? 0;
    if (step !== 'written') errors += numbers[2] ?? 0;
  }
  return { ...ended, steps, wrong, errors, said: lines + complaint };
}

/** A generator of its own, so that a failure can be run again: Numerical Recipes' 32-bit LCG. */
function seeded(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Damages copies of the sound store and lives with each. */
async function outcomes(name: string, damage: (descriptor: number, random: (below: number) => number) => void): Promise<Outcome[]> {
  const directories = Array.from({ length: FILES }, (_, seed) => {
    const directory = join(root, `${name}-${seed}`);
    cpSync(join(root, 'sound'), directory, { recursive: true });
    const descriptor = openSync(join(directory, 'data.mdb'), 'r+');
    damage(descriptor, seeded(seed + 1));
    closeSync(descriptor);
    return directory;
  });
  const found = await live(directories);
  for (const directory of directories) rmSync(directory, { recursive: true });
  return found;
}

/** The end is one we know, nothing wrong was given out, and what the check calls sound is complete. */
function expectHonest(found: readonly Outcome[]): void {
  for (const { signal, code, steps, wrong, errors, said } of found) {
    if (signal === null) expect(code, said).toBe(0);
    else expect(DEATHS, said).toContain(signal);
    expect(wrong, said).toBe(0);
    if (steps.get('checked')?.[0] !== 0) continue;
    expect(errors, said).toBe(0);
    expect(steps.get('between')?.[0], said).toBe(LAST + 2);
  }
}

const isFound = ({ signal, steps }: Outcome): boolean => signal !== null || (steps.get('checked')?.[0] ?? 0) > 0;

describe('a damaged store never gives out a wrong record', { timeout: 240_000 }, () => {
  test('the sound one gives all of them', async () => {
    const directory = join(root, 'copy');
    cpSync(join(root, 'sound'), directory, { recursive: true });
    const [outcome] = await live([directory]);
    expectHonest([outcome!]);
    expect(outcome!.signal).toBeNull();
    expect(outcome!.steps.get('checked')).toEqual([0]);
    expect(outcome!.steps.get('written')).toEqual([50, 0, 0]);
  });

  test('after a flipped bit', async () => {
    const found = await outcomes('bit', (descriptor, random) => {
      const file = readFileSync(descriptor);
      // In pages that hold something: most flips in a small file would fall into free ones.
      let at = random(file.length);
      while (file[at] === 0) at = random(file.length);
      writeSync(descriptor, Uint8Array.of((file[at] as number) ^ (1 << random(8))), 0, 1, at);
    });
    expectHonest(found);
    expect(found.filter(isFound).length).toBeGreaterThan(5);
  });

  test('after a zeroed page', async () => {
    const found = await outcomes('zero', (descriptor, random) => {
      writeSync(descriptor, new Uint8Array(PAGE_BYTES), 0, PAGE_BYTES, (2 + random(pages - 2)) * PAGE_BYTES);
    });
    expectHonest(found);
    expect(found.filter(isFound).length).toBeGreaterThan(5);
  });

  test('after a page of noise', async () => {
    const found = await outcomes('noise', (descriptor, random) => {
      const noise = Uint8Array.from({ length: PAGE_BYTES }, () => random(256));
      writeSync(descriptor, noise, 0, PAGE_BYTES, (2 + random(pages - 2)) * PAGE_BYTES);
    });
    expectHonest(found);
    expect(found.filter(isFound).length).toBeGreaterThan(5);
  });

  test('after a page that is another one', async () => {
    const found = await outcomes('stray', (descriptor, random) => {
      const file = readFileSync(descriptor);
      const from = (2 + random(pages - 2)) * PAGE_BYTES;
      writeSync(descriptor, file.subarray(from, from + PAGE_BYTES), 0, PAGE_BYTES, (2 + random(pages - 2)) * PAGE_BYTES);
    });
    expectHonest(found);
    expect(found.filter(isFound).length).toBeGreaterThan(5);
  });

  test('after its end was cut off', async () => {
    const found = await outcomes('cut', (descriptor, random) => ftruncateSync(descriptor, 1 + random(pages * PAGE_BYTES)));
    expectHonest(found);
    expect(found.filter(isFound).length).toBeGreaterThan(30);
  });
});
