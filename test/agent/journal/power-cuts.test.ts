import { describe, expect, test } from 'vitest';
import { firstViolation, noCounts, runLives } from './power-cuts.ts';
import type { DiskOptions } from './simulated-disk.ts';

/** Another one for each run of the tests; a failure names it, and SETPOINT_TEST_SEED repeats it. */
const SEED = Number(process.env['SETPOINT_TEST_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const STREAMS = 60;
const LIVES_EACH = 30;
const TIMEOUT_MILLIS = 180_000;

describe('a power cut after any operation', () => {
  test(
    'takes nothing that was synced, gives no number twice, and leaves no hole that is not stated',
    () => {
      const counts = noCounts();
      for (let stream = 0; stream < STREAMS; stream++) runLives(SEED + stream, LIVES_EACH, {}, counts);
      expect(counts.cuts).toBeGreaterThan(1000);
      expect(counts.kills).toBeGreaterThan(200);
      // The lives are worth something: failures happened, and ended.
      for (const count of Object.values(counts)) expect(count).toBeGreaterThan(30);
    },
    TIMEOUT_MILLIS,
  );

  test.each<[string, DiskOptions]>([
    ['a new file is not synced before its name', { ignoresSync: (path) => path.endsWith('.new') }],
    ['a folder is not synced', { ignoresFolderSync: true }],
    ['segments are not synced', { ignoresSync: (path) => path.endsWith('.journal') }],
    ['the mark is not synced', { ignoresSync: (path) => path.endsWith('.mark') }],
  ])('would be noticed to do harm if %s', (_name, options) => expect(firstViolation(1000, options)).not.toBeNull(), TIMEOUT_MILLIS);
});
