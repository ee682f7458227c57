import { statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { Ballast, freeBytesOf, SpaceWatch } from '../../../agent/store/disk-space.ts';
import { temporaryDirectory } from '../../support/agent.ts';

const LIMITS = { minFreeBytes: 100, ballastBytes: 50 };

describe('SpaceWatch', () => {
  test('makes the ballast only where it does not bring the shortage on', () => {
    expect(new SpaceWatch(LIMITS, false).look(249, false)).toBe('keep');
    expect(new SpaceWatch(LIMITS, false).look(250, false)).toBe('make');
    expect(new SpaceWatch(LIMITS, false).look(250, true)).toBe('keep');
    expect(new SpaceWatch({ ...LIMITS, ballastBytes: 0 }, false).look(1e9, false)).toBe('keep');
  });

  test('gives the ballast up below the watermark, and leaves its room to the journals', () => {
    const watch = new SpaceWatch(LIMITS, false);
    expect(watch.look(100, true)).toBe('keep');
    expect(watch.isLow).toBe(false);
    expect(watch.look(99, true)).toBe('remove');
    expect(watch.isLow).toBe(true);
    // The room of the ballast itself is not the store's.
    expect(watch.look(149, false)).toBe('keep');
    expect(watch.isLow).toBe(true);
    watch.look(150, false);
    expect(watch.isLow).toBe(false);
  });

  test('a process that began below the watermark waits as well', () => {
    const watch = new SpaceWatch(LIMITS, true);
    watch.look(149, false);
    expect(watch.isLow).toBe(true);
  });

  test('a batch needs twice its bytes; a large one waits until they are there', () => {
    const watch = new SpaceWatch(LIMITS, false);
    expect(watch.hasRoomFor(100, 50)).toBe(true);
    expect(watch.hasRoomFor(99, 1)).toBe(false);
    expect(watch.hasRoomFor(399, 200)).toBe(false);
    watch.look(399, true);
    expect(watch.isLow).toBe(true);
    watch.look(400, false);
    expect(watch.isLow).toBe(false);
    expect(watch.hasRoomFor(400, 200)).toBe(true);
  });
});

describe('Ballast', () => {
  test('takes real room until it is removed', async () => {
    const directory = temporaryDirectory();
    const ballast = new Ballast(directory, 3_500_000);
    expect(ballast.exists).toBe(false);
    await ballast.make();
    const { size, blocks } = statSync(join(directory, 'ballast'));
    expect(size).toBe(3_500_000);
    expect(blocks * 512).toBeGreaterThanOrEqual(size);
    ballast.remove();
    expect(ballast.exists).toBe(false);
    ballast.remove();
  });

  test('free bytes are those of the file system', () => {
    expect(freeBytesOf(temporaryDirectory())).toBeGreaterThan(0);
  });
});
