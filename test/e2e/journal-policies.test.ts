import { symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type DecisionFrame, type ErrorFrame, FRAME_KINDS, reasonNames, type ServerFrame } from '../../protocol/frames.ts';
import { type RunningAgent, startAgent, waitFor } from '../support/agent.ts';
import { alertCount, fillUntilFailing, healthOf, metricOf, waitForAnswers, waitForHealth } from '../support/health.ts';
import { Load } from '../support/load.ts';
import { goldenFeatures, shippedBundle } from '../support/models.ts';
import { inferBinary, type OipReply } from '../support/oip-client.ts';
import { contextOf, openController, predictFrame, startWitness } from '../support/raw-socket.ts';
import { SmallDisk } from '../support/small-disk.ts';
import { agentDirectory, WholeRecord } from '../support/stored.ts';

/** What controllers see while answers cannot be written, as the site has chosen, and what `durability: power` adds. */

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const SLOTS = { [SLOT]: BUNDLE };

async function loadOf(agent: RunningAgent): Promise<Load> {
  return await Load.start(agent.port, {
    connections: 2,
    requestsEach: 8,
    everyMillis: 4,
    frame: (requestId) => predictFrame(requestId, SLOT, FEATURES),
  });
}

describe('on a full disk', { timeout: 60_000 }, () => {
  const CONFIG = {
    journal: { segmentMebibytes: 1, maxMebibytes: 64, ringMebibytes: 16 },
    store: { minFreeMebibytes: 1, ballastMebibytes: 0 },
  };

  async function startOn(disk: SmallDisk, onJournalFailure: string): Promise<RunningAgent> {
    const directory = agentDirectory();
    symlinkSync(disk.directory, join(directory, 'data'));
    return await startAgent({ slots: SLOTS, directory, config: { ...CONFIG, onJournalFailure } });
  }

  async function askHttp(agent: RunningAgent): Promise<OipReply> {
    const bytes = new Uint8Array(FEATURES.buffer, FEATURES.byteOffset, FEATURES.byteLength);
    const inputs = [{ name: 'features', datatype: 'FP32' as const, shape: [1, FEATURES.length], bytes }];
    return await inferBinary({ http: agent.http, model: SLOT, inputs });
  }

  function isJournalFailed(frame: DecisionFrame): boolean {
    return reasonNames(frame.reasons).includes('journal_failed');
  }

  /**
   * The journal takes records again; every decision that left is kept as it left, and none that did not leave.
   * @param answeredHttp decisions that were answered over HTTP before
   */
  async function checkAfterwards(agent: RunningAgent, load: Load, answeredHttp: number): Promise<void> {
    await waitForHealth(agent, ({ journal }) => !journal.isFailing && journal.ringRecords === 0);
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    await waitForAnswers(load, 300);
    await load.stop();
    const { answers, failures } = await witness.stop();
    expect(failures).toEqual([]);
    expect(answers).toBeGreaterThan(1);
    expect(await askHttp(agent)).toMatchObject({ status: 200, parameters: { setpoint_action: 'model' } });
    expect(load.decisions.at(-1)).toMatchObject({ action: 'model', reasons: 0 });
    const record = await WholeRecord.read(agent.dataDir);
    expect(record.account(load.decisions)).toEqual({
      answered: load.decisions.length,
      kept: load.decisions.length,
      lost: 0,
      problems: [],
    });
    expect(record.decisions).toHaveLength(load.decisions.length + answers + answeredHttp + 1);
    expect(record.holes(0)).toEqual([]);
    expect((await healthOf(agent)).journal.lostRecords).toBe(0);
    expect(alertCount(agent, 'journal_failed')).toBe(1);
  }

  test('the fallback answers with the reason, and the model again when there is room', async ({ skip }) => {
    const disk = await SmallDisk.create(16, skip);
    const agent = await startOn(disk, 'fallback');
    const load = await loadOf(agent);
    await waitForAnswers(load, 100);
    await fillUntilFailing(agent, disk);
    await waitForAnswers(load, 500);
    const last = load.decisions.at(-1)!;
    expect(last).toMatchObject({ action: 'fallback', value: 45 });
    expect(reasonNames(last.reasons)).toEqual(['journal_failed', 'fallback_missing']);
    const http = await askHttp(agent);
    expect(http).toMatchObject({
      status: 200,
      parameters: { setpoint_action: 'fallback', setpoint_reasons: 'journal_failed+fallback_missing', setpoint_value: 45 },
    });
    expect(await metricOf(agent, `setpoint_reasons_total{slot="${SLOT}",reason="journal_failed"}`)).toBeGreaterThan(400);
    disk.free();
    await checkAfterwards(agent, load, 1);
    // First the model, then the fallback, then the model: nothing but the model where it could be written.
    const changes = load.decisions
      .toSorted((one, other) => one.sequence - other.sequence)
      .filter((decision, at, all) => at === 0 || isJournalFailed(decision) !== isJournalFailed(all[at - 1]!));
    expect(changes.map(({ action }) => action)).toEqual(['model', 'fallback', 'model']);
    expect(load.others).toEqual([]);
  });

  test('the error says so and that it may be tried again, and the model answers when there is room', async ({ skip }) => {
    const disk = await SmallDisk.create(16, skip);
    const agent = await startOn(disk, 'refuse');
    const load = await loadOf(agent);
    await waitForAnswers(load, 100);
    await fillUntilFailing(agent, disk);
    await waitFor(
      () => load.others.length > 500,
      20_000,
      () => `${load.others.length} refusals`,
    );
    const http = await askHttp(agent);
    expect(http.status).toBe(503);
    expect(http.error).toContain('journal');
    disk.free();
    await checkAfterwards(agent, load, 0);
    const refusals = load.others.filter((frame: ServerFrame): frame is ErrorFrame => frame.kind === FRAME_KINDS.error);
    expect(refusals).toHaveLength(load.others.length);
    for (const refusal of refusals) expect(refusal).toMatchObject({ code: 'journal_failed', retryable: true });
    // What was refused has no number, and no fallback was answered in its place.
    expect(load.decisions.filter(({ action }) => action !== 'model')).toEqual([]);
    expect(load.decisions.length + load.others.length).toBe(load.sent);
  });

  test('an observation that cannot be written is refused, too, and taken when it is sent again', async ({ skip }) => {
    const disk = await SmallDisk.create(16, skip);
    const agent = await startOn(disk, 'refuse');
    const controller = await openController(agent.port);
    const observe = async (): Promise<ServerFrame> =>
      await controller.ask({
        kind: FRAME_KINDS.observe,
        requestId: controller.nextId(),
        slot: SLOT,
        context: contextOf({ equipmentId: 'SCANNER-A', moduleId: 'STAGE-1', product: 'PRODUCT-X', recipeId: 'GATE;3', runNumber: 1 }),
        measurementId: 'measurement 1',
        parameter: 'CD',
        value: 46,
        unit: 'nm',
        appliedInput: 28,
        measuredAtMillis: 1_795_000_000_000,
      });
    const load = await loadOf(agent);
    await fillUntilFailing(agent, disk);
    expect(await observe()).toMatchObject({ kind: FRAME_KINDS.error, code: 'journal_failed', retryable: true });
    disk.free();
    await waitForHealth(agent, ({ journal }) => !journal.isFailing);
    expect(await observe()).toMatchObject({ kind: FRAME_KINDS.observed });
    await load.stop();
  });
});

describe('with durability: power', { timeout: 60_000 }, () => {
  test('answers come by the model, are in the files, and survive kill -9', async () => {
    const directory = agentDirectory();
    const config = { durability: 'power', journal: { segmentMebibytes: 1, maxMebibytes: 64 } };
    const agent = await startAgent({ slots: SLOTS, directory, config });
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    const load = await loadOf(agent);
    // Two files and more: a record that waits for the disk must not be left behind in the one that was finished.
    await waitForAnswers(load, 4000);
    expect((await witness.stop()).failures).toEqual([]);
    await agent.stop('SIGKILL');
    await load.ended();
    expect(load.others).toEqual([]);
    const record = await WholeRecord.read(agent.dataDir);
    expect(record.account(load.decisions)).toMatchObject({ kept: load.decisions.length, lost: 0, problems: [] });

    const next = await startAgent({ slots: SLOTS, directory, config });
    const more = await loadOf(next);
    await waitForAnswers(more, 300);
    await more.stop();
    const both = await WholeRecord.read(next.dataDir);
    const all = [...load.decisions, ...more.decisions];
    expect(both.account(all)).toMatchObject({ kept: all.length, lost: 0, problems: [] });
  });
});
