import { closeSync, ftruncateSync, openSync, readdirSync, readSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { FRAME_KINDS, reasonNames } from '../../protocol/frames.ts';
import { type RunningAgent, startAgent, waitFor } from '../support/agent.ts';
import { alertCount, healthOf, freeze, metricOf, storeProcess, waitForAnswers, waitForHealth } from '../support/health.ts';
import { Load } from '../support/load.ts';
import { goldenFeatures, shippedBundle } from '../support/models.ts';
import { asDecision, contextOf, delay, openController, predictFrame, type RawSocket, startWitness } from '../support/raw-socket.ts';
import { agentDirectory, waitUntilStored, WholeRecord } from '../support/stored.ts';

/** Whatever becomes of the store process and its files, controllers notice nothing, and nothing that was answered is forgotten. */

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const SLOTS = { [SLOT]: BUNDLE };

/** What stands for the weeks in which a store may be gone: every second of it is a few segments more. */
const OUTAGE_MILLIS = 6000;

const SEGMENTS = { segmentMebibytes: 1, maxMebibytes: 256 };
const CONFIG = { journal: SEGMENTS };

/** Some heartbeats of the store process, and as many that a busy machine may hold up. */
const HANG_MILLIS = 4000;

async function loadOf(agent: RunningAgent, requestsEach = 2): Promise<Load> {
  return await Load.start(agent.port, {
    connections: 4,
    requestsEach,
    everyMillis: 4,
    frame: (requestId) => predictFrame(requestId, SLOT, FEATURES),
  });
}

/** Controllers at work beside `act`; every answer is the model's, is in the store afterwards, and did not wait for it. */
async function undisturbed(agent: RunningAgent, act: (load: Load) => Promise<void>): Promise<void> {
  await storeProcess(agent);
  const witness = await startWitness(agent.port, SLOT, FEATURES);
  const load = await loadOf(agent);
  await waitForAnswers(load, 500);
  await act(load);
  await waitForAnswers(load, 500);
  await load.stop();
  const { failures, longestMillis } = await witness.stop();
  expect(failures).toEqual([]);
  // An answer that waited for the store would have waited for as long as the store was away.
  expect(longestMillis).toBeLessThan(HANG_MILLIS);
  expect(load.others).toEqual([]);
  await waitUntilStored(agent, load.decisions);
  const record = await WholeRecord.read(agent.dataDir);
  expect(record.account(load.decisions)).toEqual({ answered: load.answered, kept: load.answered, lost: 0, problems: [] });
  expect(record.holes(0)).toEqual([]);
  expect((await healthOf(agent)).journal).toMatchObject({ failures: 0, lostRecords: 0 });
}

function segmentsOf(agent: RunningAgent): string[] {
  return readdirSync(join(agent.dataDir, 'journal')).filter((name) => name.endsWith('.journal'));
}

describe('a store process', { timeout: 60_000 }, () => {
  test('that hangs is ended and started again', async () => {
    const config = { ...CONFIG, store: { hangMillis: HANG_MILLIS } };
    const agent = await startAgent({ slots: SLOTS, directory: agentDirectory(), config });
    await undisturbed(agent, async () => {
      const hung = await storeProcess(agent);
      freeze(hung);
      await storeProcess(agent, hung);
    });
    expect(agent.log()).toContain('store process ended');
    expect(agent.log()).toContain('said nothing');
  });

  test('that is killed again and again, as soon as it is there, loses nothing and stores nothing twice', async () => {
    const agent = await startAgent({ slots: SLOTS, directory: agentDirectory(), config: CONFIG });
    await undisturbed(agent, async () => {
      let killed = await storeProcess(agent);
      for (let kill = 0; kill < 4; kill++) {
        process.kill(killed, 'SIGKILL');
        const last = killed;
        // Before it has opened the store, every other time.
        const { store } = await waitForHealth(agent, ({ store: { processId } }) => processId !== null && processId !== last);
        killed = kill % 2 === 0 ? store.processId! : await storeProcess(agent, last);
      }
    });
    expect((await healthOf(agent)).store.restarts).toBeGreaterThanOrEqual(4);
  });

  test('that stands still for long costs disk space only, and gives it back', async () => {
    const agent = await startAgent({ slots: SLOTS, directory: agentDirectory(), config: CONFIG });
    await undisturbed(agent, async () => {
      const stopped = await storeProcess(agent);
      freeze(stopped);
      const before = segmentsOf(agent).length;
      // With the load that runs already, about 5,000 decisions a second.
      const more = await loadOf(agent, 5);
      await delay(OUTAGE_MILLIS);
      await more.stop();
      const grown = segmentsOf(agent).length;
      expect(grown).toBeGreaterThan(before + OUTAGE_MILLIS / 1000);
      process.kill(stopped, 'SIGCONT');
      await waitUntilStored(agent, more.decisions);
      expect((await WholeRecord.read(agent.dataDir)).account(more.decisions)).toMatchObject({ kept: more.answered, lost: 0, problems: [] });
      await waitFor(
        () => segmentsOf(agent).length <= 3,
        10_000,
        () => `${segmentsOf(agent).length} of ${grown} segments are left`,
      );
    });
  });
});

describe('a store whose file is damaged', { timeout: 60_000 }, () => {
  const PAGE_BYTES = 4096;
  /** The first pages say where everything else is; LMDB has two of them, and the store's own check begins behind. */
  const FIRST_DATA_PAGE = 2;

  const damages: Readonly<Record<string, (descriptor: number, pages: number) => void>> = {
    'cut in half': (descriptor, pages) => ftruncateSync(descriptor, Math.floor(pages / 2) * PAGE_BYTES),
    'with pages of zeros': (descriptor, pages) => {
      for (let page = FIRST_DATA_PAGE; page < pages; page += 3)
        writeSync(descriptor, new Uint8Array(PAGE_BYTES), 0, PAGE_BYTES, page * PAGE_BYTES);
    },
    'with nothing but zeros behind its first pages': (descriptor, pages) => {
      writeSync(descriptor, new Uint8Array((pages - FIRST_DATA_PAGE) * PAGE_BYTES), 0, null, FIRST_DATA_PAGE * PAGE_BYTES);
    },
    'with a bit flipped in every page': (descriptor, pages) => {
      for (let page = FIRST_DATA_PAGE; page < pages; page++) {
        // Anywhere in the head of the page or its content, but the same in every run.
        const at = page * PAGE_BYTES + ((page * 997) % PAGE_BYTES);
        const byte = new Uint8Array(1);
        readSync(descriptor, byte, 0, 1, at);
        byte[0] = byte[0]! ^ (1 << (page % 8));
        writeSync(descriptor, byte, 0, 1, at);
      }
    },
  };

  function damage(agent: RunningAgent, how: (descriptor: number, pages: number) => void): void {
    const file = join(agent.dataDir, 'store', 'data.mdb');
    const descriptor = openSync(file, 'r+');
    how(descriptor, Math.floor(statSync(file).size / PAGE_BYTES));
    closeSync(descriptor);
  }

  function asideIn(agent: RunningAgent): string[] {
    return readdirSync(agent.dataDir).filter((name) => name.startsWith('store.damaged-'));
  }

  test.each(Object.entries(damages))('%s is set aside, and what cannot be told any more is named', async (_, how) => {
    const config = { ...CONFIG, store: { checkpointSeconds: 1 } };
    const agent = await startAgent({ slots: SLOTS, directory: agentDirectory(), config });
    await storeProcess(agent);
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    const [first] = segmentsOf(agent);
    const load = await loadOf(agent, 4);
    await waitFor(
      () => !segmentsOf(agent).includes(first!),
      20_000,
      () => 'the store alone has nothing',
    );
    const victim = await storeProcess(agent);
    freeze(victim);
    damage(agent, how);
    process.kill(victim, 'SIGKILL');
    await waitFor(
      () => asideIn(agent).length > 0,
      20_000,
      () => `it is not set aside:\n${agent.log()}`,
    );
    await storeProcess(agent, victim);
    await waitForAnswers(load, 1000);
    await load.stop();
    expect((await witness.stop()).failures).toEqual([]);
    expect(load.others).toEqual([]);
    await waitUntilStored(agent, load.decisions);
    expect(asideIn(agent)).toHaveLength(1);
    expect(alertCount(agent, 'store_set_aside')).toBe(1);
    const record = await WholeRecord.read(agent.dataDir);
    const account = record.account(load.decisions);
    expect(account.problems).toEqual([]);
    expect(account.kept + account.lost).toBe(load.answered);
    expect(account.lost).toBeGreaterThan(500);
    expect(account.kept).toBeGreaterThanOrEqual(1000);
    expect(record.holes(0)).toEqual([]);
    // The new log names the end of the old one, from the checkpoint that stands beside the store.
    expect(record.events[0]).toMatchObject({ event: 'begun', previous: { index: expect.any(Number) as number } });
  });
});

describe('what the agent knows', { timeout: 60_000 }, () => {
  const context = contextOf({ equipmentId: 'SCANNER-A', moduleId: 'STAGE-1', product: 'PRODUCT-X', recipeId: 'GATE;3' });
  const UNUSABLE = new Float32Array(FEATURES.length).fill(Number.NaN);

  async function observe(controller: RawSocket, value: number, runNumber: number): Promise<void> {
    const measuredAtMillis = Date.now();
    const frame = await controller.ask({
      kind: FRAME_KINDS.observe,
      requestId: controller.nextId(),
      slot: SLOT,
      context: { ...context, processEndMillis: measuredAtMillis, runNumber },
      measurementId: `measurement ${runNumber}`,
      parameter: 'CD',
      value,
      unit: 'nm',
      appliedInput: 28,
      measuredAtMillis,
    });
    expect(frame).toMatchObject({ kind: FRAME_KINDS.observed, outcome: 'applied' });
    // The next one must be a later run.
    await delay(2);
  }

  async function fallbackValue(agent: RunningAgent): Promise<number | null> {
    const controller = await openController(agent.port);
    const more = { context: { ...context, runNumber: 100 }, lastApplied: 28 };
    const { reasons, value } = asDecision(await controller.ask(predictFrame(controller.nextId(), SLOT, UNUSABLE, more)));
    expect(reasonNames(reasons)).toEqual(['input_not_finite']);
    controller.destroy();
    return value;
  }

  async function lifetime(agent: RunningAgent, action: string): Promise<number> {
    return await metricOf(agent, `setpoint_lifetime_decisions_total{slot="${SLOT}",action="${action}"}`);
  }

  test('outlives the journals it was learnt from, its own file, and restarts', async () => {
    const directory = agentDirectory();
    const restart = async (): Promise<RunningAgent> => await startAgent({ slots: SLOTS, directory, config: CONFIG });
    const first = await restart();
    const controller = await openController(first.port);
    for (const [run, value] of [46, 47, 45.5, 46.5].entries()) await observe(controller, value, run + 1);
    const learnt = await fallbackValue(first);
    const [learntFrom] = segmentsOf(first);
    const load = await loadOf(first);
    await waitFor(
      () => segmentsOf(first).at(-1) !== learntFrom,
      20_000,
      () => 'the first segment is not finished',
    );
    await load.stop();
    await waitUntilStored(first, load.decisions);
    expect((await first.stop()).code).toBe(0);
    expect(segmentsOf(first)).not.toContain(learntFrom);

    const second = await restart();
    expect(await fallbackValue(second)).toBe(learnt);
    await storeProcess(second);
    expect(await lifetime(second, 'model')).toBe(load.answered);
    expect(await lifetime(second, 'fallback')).toBe(2);
    await second.stop('SIGKILL');

    // The store has a copy of the file that is gone.
    rmSync(join(first.dataDir, 'estimators.json'));
    const third = await restart();
    expect(await fallbackValue(third)).toBe(learnt);
    expect(third.log()).toContain('estimators restored');
    await storeProcess(third);
    // Stopped at work: the last counts and the last records reach the store together.
    const more = await loadOf(third);
    await waitForAnswers(more, 500);
    expect((await third.stop()).code).toBe(0);
    await more.ended();
    const record = await WholeRecord.read(third.dataDir);
    expect(record.account([...load.decisions, ...more.decisions])).toMatchObject({ lost: 0, problems: [] });

    const fourth = await restart();
    await storeProcess(fourth);
    expect(await lifetime(fourth, 'model')).toBe(record.decisions.filter(({ action }) => action === 'model').length);
  });
});
