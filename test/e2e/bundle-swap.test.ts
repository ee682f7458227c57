import {
  copyFileSync,
  cpSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import type { DecisionFrame } from '../../protocol/frames.ts';
import { type RunningAgent, startAgent, temporaryDirectory, waitFor } from '../support/agent.ts';
import { Load } from '../support/load.ts';
import { writeSumBundle, writeWrongBundle } from '../support/models.ts';
import { asDecision, delay, openController, predictFrame } from '../support/raw-socket.ts';

/** A bundle is replaced while requests come in: every answer is whole and of one version. */

const SLOT = 'sum';
const POLL_MILLIS = 50;
/** Looks at the path that a change certainly got. */
const SEVERAL_POLLS_MILLIS = 6 * POLL_MILLIS;

function features(requestId: number): Float32Array {
  return Float32Array.of(requestId % 1000, 0.5);
}

async function statusOf(agent: RunningAgent): Promise<{ state: string; version: string; reason: string | null }> {
  const { detail } = (await (await fetch(`${agent.http}/v2/health/ready`)).json()) as { detail: { slots: never[] } };
  return detail.slots[0]!;
}

async function waitForVersion(agent: RunningAgent, version: string): Promise<void> {
  await waitFor(
    async () => (await statusOf(agent)).version === version,
    20_000,
    () => `version ${version} is not active:\n${agent.log()}`,
  );
}

/** A decision tells its version; version `n.0.0` adds n. */
function expectOfItsVersion({ action, value, version, requestId }: DecisionFrame): void {
  expect(action).toBe('model');
  expect(value, `request ${requestId} of version ${version}`).toBe((requestId % 1000) + 0.5 + Number.parseInt(version, 10));
}

function countOf(text: string, part: string): number {
  return text.split(part).length - 1;
}

test('a swap under a thousand requests a second fails, drops and mixes nothing', async () => {
  const directory = temporaryDirectory();
  const path = join(directory, 'current');
  const bundles = [1, 2, 3, 4].map((bias) => writeSumBundle(join(directory, `sum-${bias}`), bias));
  const switchTo = (bundle: string): void => {
    symlinkSync(bundle, `${path}.new`);
    renameSync(`${path}.new`, path);
  };
  switchTo(bundles[0]!);
  const agent = await startAgent({ slots: { [SLOT]: path }, config: { bundlePollMillis: POLL_MILLIS } });
  const load = await Load.start(agent.port, {
    connections: 3,
    requestsEach: 2,
    everyMillis: 5,
    frame: (requestId) => predictFrame(requestId, SLOT, features(requestId)),
  });
  const started = Date.now();
  for (const [at, bundle] of bundles.entries()) {
    if (at > 0) switchTo(bundle);
    await waitForVersion(agent, `${at + 1}.0.0`);
    await delay(100);
  }
  // A folder in the place of a link, and back to a version that was there before.
  cpSync(bundles[1]!, `${path}.new`, { recursive: true });
  renameSync(path, `${path}.old`);
  renameSync(`${path}.new`, path);
  await waitForVersion(agent, '2.0.0');
  await delay(100);
  await load.stop();
  const seconds = (Date.now() - started) / 1000;

  expect(load.others).toEqual([]);
  expect(load.decisions.length).toBe(load.sent);
  expect(load.sent / seconds).toBeGreaterThan(300);
  for (const decision of load.decisions) expectOfItsVersion(decision);
  const bySequence = load.decisions.toSorted((one, other) => one.sequence - other.sequence);
  expect(bySequence.map(({ sequence }) => sequence)).toEqual(bySequence.map((_, at) => at + 1));
  const versions = bySequence.map(({ version, bundleId }) => `${version} ${Buffer.from(bundleId).toString('hex').slice(0, 8)}`);
  const changes = versions.filter((version, at) => version !== versions[at - 1]);
  expect(changes.map((change) => change.split(' ')[0])).toEqual(['1.0.0', '2.0.0', '3.0.0', '4.0.0', '2.0.0']);
  expect(changes[4]).toBe(changes[1]);
});

test('a bundle that is half copied, or wrong, does not take over, and the next good one does', async () => {
  const directory = temporaryDirectory();
  const path = join(directory, 'current');
  const next = writeSumBundle(join(directory, 'sum-2'), 2);
  writeSumBundle(path, 1);
  const agent = await startAgent({ slots: { [SLOT]: path }, config: { bundlePollMillis: POLL_MILLIS } });
  const controller = await openController(agent.port);
  const expectStill = async (bias: number, reason: RegExp): Promise<void> => {
    await waitFor(
      async () => reason.test((await statusOf(agent)).reason ?? ''),
      10_000,
      () => `no reason ${reason}:\n${agent.log()}`,
    );
    const requestId = controller.nextId();
    const decision = asDecision(await controller.ask(predictFrame(requestId, SLOT, features(requestId))));
    expectOfItsVersion(decision);
    expect(decision.version).toBe(`${bias}.0.0`);
    expect(await statusOf(agent)).toMatchObject({ state: 'ready', version: `${bias}.0.0` });
    expect((await fetch(`${agent.http}/v2/health/ready`)).status).toBe(200);
  };

  // File by file into the folder of the active bundle, as a slow copy does: the manifest comes before the model.
  for (const name of readdirSync(path)) rmSync(join(path, name));
  await expectStill(1, /manifest.json is missing/);
  copyFileSync(join(next, 'manifest.json'), join(path, 'manifest.json'));
  copyFileSync(join(next, 'golden.json'), join(path, 'golden.json'));
  await expectStill(1, /model.onnx is missing/);
  copyFileSync(join(next, 'model.onnx'), join(path, 'model.onnx'));
  truncateSync(join(path, 'model.onnx'), 20);
  await expectStill(1, /model.onnx has 20 of \d+ bytes/);
  // Some copies write under another name first, and some reserve the whole length.
  renameSync(join(path, 'model.onnx'), join(path, '.model.onnx.part'));
  await expectStill(1, /\.model\.onnx\.part is not listed/);
  renameSync(join(path, '.model.onnx.part'), join(path, 'model.onnx'));
  truncateSync(join(path, 'model.onnx'), statSync(join(next, 'model.onnx')).size);
  await expectStill(1, /model.onnx has SHA-256/);
  copyFileSync(join(next, 'model.onnx'), join(path, 'model.onnx'));
  await waitForVersion(agent, '2.0.0');
  expect((await statusOf(agent)).reason).toBeNull();

  // Whole and wrong: vetting refuses it, and the slot goes on.
  renameSync(path, `${path}.2`);
  renameSync(writeWrongBundle(join(directory, 'wrong')), path);
  await expectStill(2, /golden case 0 does not hold/);
  renameSync(path, `${path}.wrong`);
  mkdirSync(path);
  writeFileSync(join(path, 'manifest.json'), '{"format":"setpoint.bundle.v1"');
  await expectStill(2, /manifest.json/);
  rmSync(path, { recursive: true });
  renameSync(writeSumBundle(join(directory, 'sum-3'), 3), path);
  await waitForVersion(agent, '3.0.0');
});

test('an agent whose configured path is gone starts with its last good bundle, and says so once', async () => {
  const directory = temporaryDirectory();
  const path = writeSumBundle(join(directory, 'current'), 5);
  const settings = { slots: { [SLOT]: path }, directory: join(directory, 'agent'), config: { bundlePollMillis: POLL_MILLIS } };
  const first = await startAgent(settings);
  await first.stop();
  renameSync(path, `${path}.gone`);
  const agent = await startAgent(settings);
  const controller = await openController(agent.port);
  const requestId = controller.nextId();
  const decision = asDecision(await controller.ask(predictFrame(requestId, SLOT, features(requestId))));
  expectOfItsVersion(decision);
  expect(decision.version).toBe('5.0.0');
  await waitFor(
    async () => ((await statusOf(agent)).reason ?? '').includes('there is none'),
    10_000,
    () => `the status gives no reason:\n${agent.log()}`,
  );
  await delay(SEVERAL_POLLS_MILLIS);
  expect(agent.log()).toContain('last good bundle restored');
  // In the status before and after the restore, and in the line that tells of the restore: not once a look.
  expect(countOf(agent.log(), 'there is none')).toBeLessThanOrEqual(3);
  renameSync(writeSumBundle(join(directory, 'sum-6'), 6), path);
  await waitForVersion(agent, '6.0.0');
});
