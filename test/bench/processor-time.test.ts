import { expect, test } from 'vitest';
import { identityOf, isAlive, memoryOf, parseMemory } from '../../bench/processor-time.ts';

const STATUS = ['Name:\tnode', 'VmRSS:\t   90000 kB', 'RssAnon:\t   50000 kB', 'RssFile:\t   39000 kB', 'RssShmem:\t    1000 kB', ''].join(
  '\n',
);

test("parseMemory() tells a process's own memory from pages of mapped files", () => {
  expect(parseMemory(STATUS)).toEqual({ ownBytes: 50_000 * 1024, mappedBytes: 40_000 * 1024 });
});

test('parseMemory() knows nothing of a process that has no memory, such as one that ended', () => {
  expect(parseMemory('Name:\tnode\nState:\tZ (zombie)\n')).toBeNull();
});

test.runIf(process.platform === 'linux')('finds this process, its memory, and that it is alive', () => {
  const identity = identityOf(process.pid)!;
  expect(isAlive(identity)).toBe(true);
  expect(memoryOf(process.pid)!.ownBytes).toBeGreaterThan(1e6);
});

test.runIf(process.platform === 'linux')('takes another process with the same number for another', () => {
  const identity = identityOf(process.pid)!;
  expect(isAlive({ ...identity, startTicks: `${Number(identity.startTicks) + 1}` })).toBe(false);
});

test('a process that is not there has neither identity nor memory', () => {
  // The largest number Linux gives is 4,194,304.
  expect(identityOf(9_999_999)).toBeNull();
  expect(memoryOf(9_999_999)).toBeNull();
});
