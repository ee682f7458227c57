import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { temporaryDirectory } from '../../support/agent.ts';
import { appendRecords, writeSegment } from './journal-files.ts';
import { decisionRecord, eventsOf, sequencesOf, startStore, storedRecords, until } from './store-setup.ts';

const MEBIBYTE = 1024 * 1024;
/** 4 KiB of features each. */
const FEATURES = 512;

function decisions(from: number, to: number, timeMicros?: number): ReturnType<typeof decisionRecord>[] {
  return Array.from({ length: to - from + 1 }, (_, at) => decisionRecord(from + at, FEATURES, timeMicros));
}

describe('a store with a byte cap', () => {
  test('drops the oldest telemetry and keeps every record', async () => {
    const maxBytes = 8 * MEBIBYTE;
    const store = startStore({ settings: { maxBytes } });
    const { directory } = store;
    const path = writeSegment(directory, 0, 1, decisions(1, 2000));
    for (let from = 2001; from <= 4000; from += 500) appendRecords(path, decisions(from, from + 499));
    await until(() => store.report().lagBytes === 0 && store.report().headIndex > 4000 && store.report().usedBytes <= maxBytes, store);
    await store.supervisor.stop();
    const records = await storedRecords(directory);
    expect(sequencesOf(records)).toEqual(Array.from({ length: 4000 }, (_, at) => at + 1));
    const kept = records.filter(({ kind, telemetry }) => kind === 1 && telemetry === 'kept');
    expect(kept.length).toBeGreaterThan(100);
    expect(kept.at(-1)?.sequence).toBe(4000);
    expect(eventsOf(records)).toContainEqual(expect.objectContaining({ event: 'dropped', what: 'telemetry', reason: 'size' }));
    expect(store.alerts).toEqual([expect.stringContaining('store_dropped')]);
  });

  test('with no telemetry left, and told to hold: takes no more and says so; nothing is dropped', async () => {
    const store = startStore({ settings: { maxBytes: MEBIBYTE } });
    const path = writeSegment(store.directory, 0, 1, decisions(1, 4096));
    await until(() => store.report().headIndex > 4000, store);
    appendRecords(path, decisions(4097, 8192));
    await until(() => store.report().state === 'full' && store.report().lagBytes > 0, store);
    expect(store.report().dropped.records).toBe(0);
    expect(store.alerts.filter((alert) => alert.startsWith('store_full'))).toHaveLength(1);
    const held = store.report().headIndex;
    await store.supervisor.stop();
    const records = await storedRecords(store.directory);
    expect(records.at(-1)?.index).toBe(held);
    expect(sequencesOf(records)[0]).toBe(1);
  });

  test('and told to drop the oldest: keeps taking, and says what went', async () => {
    const maxBytes = 2 * MEBIBYTE;
    const store = startStore({ settings: { maxBytes, onFull: 'drop_oldest' } });
    const path = writeSegment(store.directory, 0, 1, decisions(1, 4096));
    await until(() => store.report().headIndex > 4000, store);
    for (let from = 4097; from <= 12_000; from += 1000) appendRecords(path, decisions(from, from + 999));
    await until(() => store.report().lagBytes === 0 && store.report().usedBytes <= maxBytes, store);
    await store.supervisor.stop();
    const records = await storedRecords(store.directory);
    const sequences = sequencesOf(records);
    expect(sequences.at(-1)).toBe(12_096);
    expect(sequences[0]).toBeGreaterThan(1);
    // What is there is without holes.
    expect(sequences).toEqual(Array.from({ length: sequences.length }, (_, at) => 12_096 - sequences.length + 1 + at));
    const dropped = eventsOf(records).filter((event) => event.event === 'dropped' && event.what === 'records');
    expect(dropped.length).toBeGreaterThan(0);
    expect(store.alerts.some((alert) => alert.includes('the oldest records are'))).toBe(true);
  });

  test('drops telemetry by its age only', async () => {
    const store = startStore({ settings: { telemetryMaxAgeMillis: 86_400_000 } });
    const now = Date.now() * 1000;
    writeSegment(store.directory, 0, 1, [...decisions(1, 700, now - 2 * 86_400_000_000), ...decisions(701, 800, now)]);
    await until(() => store.report().dropped.telemetry === 700, store);
    await store.supervisor.stop();
    const records = (await storedRecords(store.directory)).filter(({ kind }) => kind === 1);
    expect(records.map(({ telemetry }) => telemetry)).toEqual([...Array(700).fill('dropped'), ...Array(100).fill('kept')]);
  });
});

describe('a store on a full disk', () => {
  test('waits, gives up its reserve, does not open, and goes on when there is room', (context) => {
    const directory = join(temporaryDirectory(), 'small');
    mkdirSync(directory);
    const script = new URL('../../../test/agent/store/store-full-disk-child.ts', import.meta.url).pathname;
    const life = 'mount -t tmpfs -o size=64m tmpfs "$1" || exit 99; "$2" "$3" "$1"; code=$?; umount "$1"; exit $code';
    const run = (...prefix: string[]): ReturnType<typeof spawnSync> => {
      const [file, ...args] = [...prefix, 'sh', '-c', life, 'sh', directory, process.execPath, script];
      return spawnSync(file, args, { encoding: 'utf8', timeout: 120_000 });
    };
    const isRefused = ({ status, error, stderr }: ReturnType<typeof spawnSync>): boolean =>
      status === 99 || error !== undefined || String(stderr).startsWith('unshare:');
    let result = run();
    if (isRefused(result)) result = run('unshare', '-rm');
    if (isRefused(result)) context.skip(`no small file system can be mounted here: ${String(result.stderr)}`);
    expect(result.status, String(result.stderr)).toBe(0);
    expect(JSON.parse(String(result.stdout))).toEqual({
      wasGivenUp: true,
      stored: 5001,
      exitsBefore: 0,
      stateWhenFull: 'waiting_for_space',
      alerts: expect.arrayContaining(['store_waiting_for_space']),
      sequences: 20_000,
    });
  }, 120_000);
});
