import { existsSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type RunningAgent, startAgent } from '../support/agent.ts';
import { alertCount, fillUntilFailing, healthOf, metricOf, waitForAnswers, waitForHealth } from '../support/health.ts';
import { Load } from '../support/load.ts';
import { goldenFeatures, shippedBundle } from '../support/models.ts';
import { predictFrame, startWitness } from '../support/raw-socket.ts';
import { MEBIBYTE, SmallDisk } from '../support/small-disk.ts';
import { agentDirectory, isStored, waitUntilStored, WholeRecord } from '../support/stored.ts';

/** A disk that is full stops no controller, and what was answered meanwhile is written when there is room, or named as lost. */

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const SLOTS = { [SLOT]: BUNDLE };

const DISK_MEBIBYTES = 24;
const MIN_FREE_MEBIBYTES = 4;
const CONFIG = {
  journal: { segmentMebibytes: 1, maxMebibytes: 64, ringMebibytes: 16 },
  store: { minFreeMebibytes: MIN_FREE_MEBIBYTES, ballastMebibytes: 2 },
};
const SMALL_RING = { ...CONFIG, journal: { ...CONFIG.journal, ringMebibytes: 1 } };

/** A folder for an agent whose data is on the disk, and whose configuration is not. */
function directoryOn(disk: SmallDisk): string {
  const directory = agentDirectory();
  symlinkSync(disk.directory, join(directory, 'data'));
  return directory;
}

async function loadOf(agent: RunningAgent): Promise<Load> {
  return await Load.start(agent.port, {
    connections: 3,
    requestsEach: 8,
    everyMillis: 4,
    frame: (requestId) => predictFrame(requestId, SLOT, FEATURES),
  });
}

describe('while the disk is full', { timeout: 60_000 }, () => {
  test('every request is answered by the model, and all of it is stored once there is room again', async ({ skip }) => {
    const disk = await SmallDisk.create(DISK_MEBIBYTES, skip);
    const agent = await startAgent({ slots: SLOTS, directory: directoryOn(disk), config: CONFIG });
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    const load = await loadOf(agent);
    await fillUntilFailing(agent, disk);
    await waitForAnswers(load, 3000);
    const full = await healthOf(agent);
    expect(full).toMatchObject({ journal: { isFailing: true, lostRecords: 0 }, store: { state: 'waiting_for_space' } });
    expect(full.journal.ringRecords).toBeGreaterThan(2000);
    expect(await metricOf(agent, 'setpoint_journal_failing')).toBe(1);
    expect(await metricOf(agent, 'setpoint_journal_ring_records')).toBeGreaterThan(2000);
    expect(await metricOf(agent, 'setpoint_journal_failures_total')).toBeGreaterThan(0);
    expect(alertCount(agent, 'journal_failed')).toBe(1);

    disk.free();
    const well = await waitForHealth(agent, ({ journal }) => !journal.isFailing);
    expect(well.journal).toMatchObject({ ringRecords: 0, lostRecords: 0 });
    expect(well.journal.recoveredRecords).toBeGreaterThan(2000);
    await waitForAnswers(load, 500);
    await load.stop();
    await waitUntilStored(agent, load.decisions);

    expect((await witness.stop()).failures).toEqual([]);
    expect(load.others).toEqual([]);
    const record = await WholeRecord.read(agent.dataDir);
    expect(record.account(load.decisions)).toEqual({
      answered: load.decisions.length,
      kept: load.decisions.length,
      lost: 0,
      problems: [],
    });
    expect(record.holes(0)).toEqual([]);
    // Once, or twice where the store's reserve ended the outage for a moment.
    expect([1, 2]).toContain(alertCount(agent, 'journal_recovered'));
    expect((await agent.stop()).code).toBe(0);
  });

  test('what memory cannot hold is named, number by number', async ({ skip }) => {
    const disk = await SmallDisk.create(DISK_MEBIBYTES, skip);
    const agent = await startAgent({ slots: SLOTS, directory: directoryOn(disk), config: SMALL_RING });
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    const load = await loadOf(agent);
    await fillUntilFailing(agent, disk);
    await waitForHealth(agent, ({ journal }) => journal.lostRecords > 1000);
    disk.free();
    await waitForHealth(agent, ({ journal }) => !journal.isFailing);
    await waitForAnswers(load, 500);
    await load.stop();
    expect((await witness.stop()).failures).toEqual([]);
    await waitUntilStored(agent, load.decisions);
    const record = await WholeRecord.read(agent.dataDir);
    const account = record.account(load.decisions);
    expect(account.problems).toEqual([]);
    expect(account.kept + account.lost).toBe(load.decisions.length);
    expect(account.lost).toBeGreaterThan(900);
    expect(record.holes(0)).toEqual([]);
    for (const gap of record.lost) expect(gap).toMatchObject({ isExact: true, count: gap.to - gap.from + 1 });
    const lost = record.lost.reduce((sum, { count }) => sum + count, 0);
    expect(await metricOf(agent, 'setpoint_journal_lost_records_total')).toBe(lost);
    expect((await healthOf(agent)).journal.lostRecords).toBe(lost);
  });
});

describe('after kill -9 on a full disk', { timeout: 60_000 }, () => {
  /** Runs an agent until its memory holds answers that no file has, and kills it. */
  async function killWhileFull(disk: SmallDisk, directory: string): Promise<Load> {
    const agent = await startAgent({ slots: SLOTS, directory, config: CONFIG });
    const load = await loadOf(agent);
    await fillUntilFailing(agent, disk);
    await waitForAnswers(load, 1000);
    await agent.stop('SIGKILL');
    await load.ended();
    return load;
  }

  async function checkBoth(agent: RunningAgent, before: Load, after: Load): Promise<void> {
    const record = await WholeRecord.read(agent.dataDir);
    const account = record.account([...before.decisions, ...after.decisions]);
    expect(account.problems).toEqual([]);
    expect(account.kept + account.lost).toBe(before.decisions.length + after.decisions.length);
    expect(account.lost).toBeGreaterThan(900);
    expect(record.account(after.decisions)).toMatchObject({ kept: after.decisions.length, lost: 0 });
    expect(record.holes(0)).toEqual([]);
    const highest = before.decisions.reduce((most, { sequence }) => Math.max(most, sequence), 0);
    for (const { sequence } of after.decisions) expect(sequence).toBeGreaterThan(highest);
  }

  test('no number is given again, and a record names what memory held', async ({ skip }) => {
    const disk = await SmallDisk.create(DISK_MEBIBYTES, skip);
    const directory = directoryOn(disk);
    const before = await killWhileFull(disk, directory);
    disk.free();
    const agent = await startAgent({ slots: SLOTS, directory, config: CONFIG });
    const after = await loadOf(agent);
    await waitForAnswers(after, 500);
    await after.stop();
    await waitUntilStored(agent, after.decisions);
    await checkBoth(agent, before, after);
  });

  test('the agent starts and answers on the disk that is still full, and nothing of that is lost', async ({ skip }) => {
    const disk = await SmallDisk.create(DISK_MEBIBYTES, skip);
    const directory = directoryOn(disk);
    const before = await killWhileFull(disk, directory);
    disk.fillTo(0);
    const agent = await startAgent({ slots: SLOTS, directory, config: CONFIG });
    const after = await loadOf(agent);
    await waitForAnswers(after, 500);
    expect(disk.freeBytes).toBeLessThan(MEBIBYTE);
    disk.free();
    await waitForHealth(agent, ({ journal }) => !journal.isFailing);
    await after.stop();
    await waitUntilStored(agent, after.decisions);
    await checkBoth(agent, before, after);
  });
});

test(
  'a store that has too little room waits, while the journal goes on, and drains when there is room',
  { timeout: 60_000 },
  async ({ skip }) => {
    const disk = await SmallDisk.create(DISK_MEBIBYTES, skip);
    const agent = await startAgent({ slots: SLOTS, directory: directoryOn(disk), config: CONFIG });
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    await waitForHealth(agent, ({ store }) => store.entries > 0);
    disk.fillTo((MIN_FREE_MEBIBYTES - 1) * MEBIBYTE);
    const load = await loadOf(agent);
    await waitForAnswers(load, 500);
    // It gives its ballast up first, and that is not enough: the filler takes that, too.
    const waiting = await waitForHealth(agent, ({ store }) => {
      disk.fillTo((MIN_FREE_MEBIBYTES - 2) * MEBIBYTE);
      return store.state === 'waiting_for_space' && store.lagBytes > 0;
    });
    expect(existsSync(join(agent.dataDir, 'store'))).toBe(true);
    expect(waiting.journal).toMatchObject({ isFailing: false, failures: 0, ringRecords: 0 });
    expect(await metricOf(agent, 'setpoint_store_waiting')).toBe(1);
    // The ballast that was given up, and that it was not enough.
    expect(alertCount(agent, 'store_waiting_for_space')).toBe(2);
    await load.stop();
    expect(await isStored(agent.dataDir, load.decisions)).toBe(false);

    disk.free();
    await waitUntilStored(agent, load.decisions);
    await waitForHealth(agent, ({ store }) => store.state === 'draining');
    expect((await witness.stop()).failures).toEqual([]);
    const record = await WholeRecord.read(agent.dataDir);
    expect(record.account(load.decisions)).toMatchObject({ kept: load.decisions.length, lost: 0, problems: [] });
    expect(record.holes(0)).toEqual([]);
    expect((await healthOf(agent)).journal).toMatchObject({ failures: 0, lostRecords: 0 });
  },
);
