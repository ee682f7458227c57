import { existsSync, readFileSync, truncateSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { CheckpointKeeper, checkpointFile, lastCheckpointLines } from '../../../agent/store/checkpoint-keeper.ts';
import { Ballast, SpaceWatch } from '../../../agent/store/disk-space.ts';
import { syncFile } from '../../../agent/store/drain-files.ts';
import { Drain } from '../../../agent/store/drain.ts';
import { STORE_DEFAULTS, type StoreSettings } from '../../../agent/store/settings.ts';
import { StoreLoop } from '../../../agent/store/store-loop.ts';
import type { StoreWriter } from '../../../agent/store/writer.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';
import { appendRecords, numbers, writeSegment } from './journal-files.ts';
import { MemoryWriter } from './memory-writer.ts';

interface Setup {
  readonly directory: string;
  readonly writer: MemoryWriter;
  readonly loop: StoreLoop;
  readonly alerts: string[];
}

function setUp(given: Partial<StoreSettings> = {}): Setup {
  const directory = temporaryDirectory();
  const settings = { ...STORE_DEFAULTS, agentId: 'test', dataDirectory: directory, minFreeBytes: 1, ballastBytes: 0, ...given };
  const writer = new MemoryWriter();
  const alerts: string[] = [];
  const onAlert = (alert: string, message: string): void => void alerts.push(`${alert}: ${message}`);
  const limits = { maxBytes: 1 << 20, maxRecords: 100, fewBytes: 1 << 20, waitMillis: 100_000 };
  const drain = new Drain({
    dataDirectory: directory,
    writer,
    limits,
    sync: syncFile,
    nowMillis: () => 0,
    hasRoomFor: () => true,
    onAlert,
    storesSetAside: () => [],
  });
  const sign = ({ index }: { index: number }): Uint8Array => Buffer.from(`{"index":${index}}\n`);
  const checkpoints = new CheckpointKeeper(
    { dataDirectory: directory, intervalMillis: 60_000, writer, sign, onFailure: (message) => alerts.push(message) },
    { index: 0, timeMillis: 0 },
  );
  const loop = new StoreLoop({
    settings,
    writer: writer as unknown as StoreWriter,
    drain,
    space: new SpaceWatch(settings, false),
    ballast: new Ballast(directory, settings.ballastBytes),
    checkpoints,
    onAlert,
    nowMillis: () => 1000,
  });
  return { directory, writer, loop, alerts };
}

const WITHIN = 10_000;

describe('the store loop', () => {
  test('told to stop, drains what is there, signs, and ends', async () => {
    const { directory, writer, loop } = setUp();
    writeSegment(directory, 0, 1, numbers(1, 950));
    loop.receive({ type: 'stop', withinMillis: WITHIN });
    await loop.run();
    expect(writer.stored.get(0)).toHaveLength(950);
    expect(writer.checkpoints.at(-1)).toBe(950);
    expect(loop.status).toMatchObject({ state: 'draining', lagBytes: 0, headIndex: 950, lastCommitMillis: 1000, commitPendingMillis: 0 });
  });

  test('told to stop within a time, leaves the rest in the journal', async () => {
    const { directory, writer, loop } = setUp();
    writeSegment(directory, 0, 1, numbers(1, 950));
    loop.stop(0);
    await loop.run();
    expect(writer.stored.get(0)).toHaveLength(100);
    expect(loop.status.lagBytes).toBeGreaterThan(0);
  });

  test('wakes to stop', async () => {
    const { directory, writer, loop } = setUp();
    const running = loop.run();
    const path = writeSegment(directory, 0, 1, numbers(1, 5));
    await waitFor(
      () => writer.stored.has(0),
      WITHIN,
      () => 'nothing was stored',
    );
    appendRecords(path, numbers(6, 7));
    loop.stop(WITHIN);
    await running;
    expect(writer.stored.get(0)).toHaveLength(7);
  });

  test('keeps the estimators before it deletes what they were learnt from', async () => {
    const { directory, writer, loop } = setUp();
    const path = writeSegment(directory, 0, 1, numbers(1, 2, RECORD_KINDS.observation));
    writeSegment(directory, 0, 3, numbers(3, 3));
    let wasThere: boolean | null = null;
    writer.putState = (name) => {
      wasThere = existsSync(path);
      writer.states.set(name, true);
      return Promise.resolve();
    };
    loop.receive({ type: 'state', name: 'estimators', value: {} });
    loop.receive({ type: 'snapshot', positions: [{ stream: 0, sequence: 2 }] });
    loop.stop(WITHIN);
    await loop.run();
    expect(wasThere).toBe(true);
    expect(existsSync(path)).toBe(false);
    expect(loop.states()).toEqual({ estimators: true });
  });

  test('full and told to hold: stores nothing more, says so once, and goes on when there is room', async () => {
    const { directory, writer, loop, alerts } = setUp({ maxBytes: 1000 });
    writer.held = { ...writer.held, usedBytes: 1001 };
    writeSegment(directory, 0, 1, numbers(1, 5));
    const running = loop.run();
    await waitFor(
      () => loop.status.state === 'full',
      WITHIN,
      () => 'it is not full',
    );
    expect(writer.stored.size).toBe(0);
    expect(writer.drops).toEqual([]);
    writer.held = { ...writer.held, usedBytes: 1000 };
    await waitFor(
      () => writer.stored.has(0),
      WITHIN,
      () => 'it does not go on',
    );
    expect(alerts).toEqual([expect.stringContaining('store_full')]);
    loop.stop(0);
    await running;
  });

  test('full and told to drop: telemetry, then the oldest records, in small steps, with an alert of each', async () => {
    const { directory, writer, loop, alerts } = setUp({ maxBytes: 1000, onFull: 'drop_oldest' });
    writer.held = { ...writer.held, usedBytes: 1150, oldestTelemetryMicros: 1, oldestMicros: 1 };
    writeSegment(directory, 0, 1, numbers(1, 5));
    loop.stop(WITHIN);
    await loop.run();
    expect(writer.drops).toEqual(['telemetry size 500', 'records size 500', 'records size 500']);
    expect(writer.stored.get(0)).toHaveLength(5);
    expect(loop.status.dropped).toEqual({ telemetry: 1, records: 200, lost: 0 });
    expect(alerts).toEqual([expect.stringContaining('features and outputs'), expect.stringContaining('the oldest records')]);
  });

  test('without space: stores nothing, gives the ballast up, says so, and stops when told', async () => {
    const { directory, writer, loop, alerts } = setUp({ minFreeBytes: Number.MAX_SAFE_INTEGER });
    await new Ballast(directory, 10).make();
    writeSegment(directory, 0, 1, numbers(1, 5));
    loop.receive({ type: 'state', name: 'slots', value: 1 });
    // A head that is not signed yet: it stays so.
    await writer.appendEvent({ event: 'begun', previous: null });
    const running = loop.run();
    await waitFor(
      () => loop.status.state === 'waiting_for_space',
      WITHIN,
      () => 'it does not wait',
    );
    expect(new Ballast(directory, 10).exists).toBe(false);
    expect(alerts.map((alert) => alert.split(':')[0])).toEqual(['store_waiting_for_space', 'store_waiting_for_space']);
    loop.stop(WITHIN);
    await running;
    expect([writer.stored.size, writer.states.size, writer.checkpoints.length]).toEqual([0, 0, 0]);
  });

  test('a commit that fails ends it', async () => {
    const { directory, writer, loop } = setUp();
    writer.refuse = new Error('no commit');
    writeSegment(directory, 0, 1, numbers(1, 5));
    await expect(loop.run()).rejects.toThrow('no commit');
  });
});

describe('checkpoints', () => {
  const head = (index: number): { log: bigint; index: number; link: Uint8Array } => ({ log: 1n, index, link: new Uint8Array(32) });

  function keeper(
    directory: string,
    sign: (index: number) => string,
  ): { keeper: CheckpointKeeper; writer: MemoryWriter; failures: string[] } {
    const writer = new MemoryWriter();
    const failures: string[] = [];
    const options = {
      dataDirectory: directory,
      intervalMillis: 1000,
      writer,
      sign: ({ index }: { index: number }) => Buffer.from(sign(index)),
      onFailure: (message: string) => failures.push(message),
    };
    return { keeper: new CheckpointKeeper(options, { index: 10, timeMillis: 0 }), writer, failures };
  }

  test('are due after a time with new entries, after many entries, and at a stop; never without new entries', async () => {
    const made = keeper(temporaryDirectory(), (index) => `{"index":${index}}`);
    await made.keeper.keep(head(10), 5000, true);
    await made.keeper.keep(head(11), 999, false);
    expect(made.writer.checkpoints).toEqual([]);
    await made.keeper.keep(head(12), 1000, false);
    await made.keeper.keep(head(10_011), 1500, false);
    await made.keeper.keep(head(10_012), 1500, false);
    await made.keeper.keep(head(10_013), 1501, true);
    // A clock that was set back.
    await made.keeper.keep(head(10_014), 400, false);
    expect(made.writer.checkpoints).toEqual([12, 10_012, 10_013, 10_014]);
  });

  test('stand in a file line by line, also behind a line that was cut short', async () => {
    const directory = temporaryDirectory();
    const first = keeper(directory, () => '{"cut');
    await first.keeper.keep(head(11), 0, true);
    const path = checkpointFile(directory);
    expect(readFileSync(path, 'utf8')).toBe('{"cut\n');
    truncateSync(path, 4);
    const second = keeper(directory, (index) => `{"index":${index}}\n`);
    await second.keeper.keep(head(12), 0, true);
    await second.keeper.keep(head(13), 0, true);
    expect(readFileSync(path, 'utf8')).toBe('{"cu\n{"index":12}\n{"index":13}\n');
    expect(lastCheckpointLines(directory).map((line) => Buffer.from(line).toString())).toEqual(['{"index":13}', '{"index":12}', '{"cu']);
  });

  test('a key that cannot be used is told of once, and the store goes on', async () => {
    const made = keeper(temporaryDirectory(), () => {
      throw new Error('others can read the key');
    });
    await made.keeper.keep(head(11), 0, true);
    await made.keeper.keep(head(12), 0, true);
    expect(made.failures).toEqual(['Cannot make a checkpoint at entry 11: others can read the key']);
    expect(made.writer.checkpoints).toEqual([]);
  });
});
