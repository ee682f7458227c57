import { type ChildProcess, spawn } from 'node:child_process';
import { join, resolve } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { openBundle } from '../../../agent/bundles/bundle.ts';
import { parseGolden } from '../../../agent/bundles/golden.ts';
import { HeavyLane } from '../../../agent/infer/heavy-lane.ts';
import { toFeeds, toWireTensor } from '../../../agent/infer/tensor.ts';
import type { OrtTensors } from '../../../agent/infer/session.ts';
import type { WireTensor } from '../../../protocol/datatype.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';
import { countingInput, shippedBundle, writeCountingBundle } from '../../support/models.ts';

const PROCESS_FILE = resolve(import.meta.dirname, '../../../agent/infer/heavy-process.ts');

interface Running {
  readonly child: ChildProcess;
  readonly lane: HeavyLane;
  /** What the process told its supervisor, beside 'listening'. */
  readonly reports: unknown[];
}

interface Limits {
  readonly hangMillis?: number;
  readonly memoryLimitBytes?: number;
}

/** A real heavy process with one thread, and a lane to it. */
async function start({ hangMillis = 30_000, memoryLimitBytes = 4 * 1024 ** 3 }: Limits = {}): Promise<Running> {
  const socketPath = join(temporaryDirectory(), 'heavy.sock');
  const settings = ['1', '8', String(hangMillis), String(memoryLimitBytes)];
  const child = spawn(process.execPath, [PROCESS_FILE, socketPath, ...settings], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    env: { ORT_DISABLE_TELEMETRY: '1', PATH: process.env['PATH'] ?? '' },
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  const reports: unknown[] = [];
  let isListening = false;
  child.on('message', (message: { type: string }) => {
    if (message.type === 'listening') isListening = true;
    else reports.push(message);
  });
  await waitFor(
    () => isListening,
    20_000,
    () => 'the heavy process does not listen',
  );
  const lane = new HeavyLane(8);
  onTestFinished(() => lane.close());
  lane.connect(socketPath);
  await lane.ready();
  return { child, lane, reports };
}

function run(lane: HeavyLane, directory: string, tensors: readonly WireTensor[]): Promise<OrtTensors> {
  const { bundleId } = openBundle(directory);
  return new Promise((resolveRun, reject) => {
    lane.run(bundleId, directory, toFeeds(tensors), {
      onResult: resolveRun,
      onFailure: ({ message }, isCrash) => reject(new Error(isCrash ? `${message} (crash)` : message)),
    });
  });
}

describe('the heavy process', () => {
  test('runs the model of a bundle, and says why it cannot', async () => {
    const { lane } = await start();
    const directory = shippedBundle('cd-scanner-a-product-x');
    const bundle = openBundle(directory);
    const [first] = parseGolden(bundle.read(bundle.manifest.golden), 'golden.json');
    const outputs = await run(lane, directory, first!.inputs);
    const prediction = toWireTensor('prediction', outputs['prediction']!);
    const expected = first!.outputs.find(({ name }) => name === 'prediction')!;
    expect(prediction.shape).toEqual(expected.shape);
    expect(Buffer.from(prediction.bytes).readFloatLE()).toBeCloseTo(Buffer.from(expected.bytes).readFloatLE(), 3);
    await expect(run(lane, directory, countingInput(1))).rejects.toThrow(/^(?!.*crash).*input/is);
    expect(Object.keys(await run(lane, directory, first!.inputs)).sort()).toEqual(['gsi', 'prediction', 'reference']);
  });

  test('reports a hung run with its bundle only, and not one that waits behind it', async () => {
    const { lane, child, reports } = await start({ hangMillis: 300 });
    const folder = temporaryDirectory();
    const slow = writeCountingBundle(join(folder, 'slow'), 'tensors', '1');
    const other = writeCountingBundle(join(folder, 'other'), 'tensors', '2');
    const hung = run(lane, slow, countingInput(2n ** 60n));
    const waiting = run(lane, other, countingInput(1));
    const ended = Promise.allSettled([hung, waiting]);
    await waitFor(
      () => reports.length > 0,
      20_000,
      () => 'no report',
    );
    expect(reports).toEqual([{ type: 'hung', bundleIds: [openBundle(slow).bundleId], message: 'a run took longer than 300 ms' }]);
    child.kill('SIGKILL');
    expect((await ended).map((one) => (one.status === 'rejected' ? String(one.reason) : 'answered'))).toEqual([
      'Error: Cannot run the model: the heavy process ended meanwhile (crash)',
      'Error: Cannot run the model: the heavy process ended meanwhile (crash)',
    ]);
  });

  test('reports that it took too much memory, and what ran', async () => {
    const { reports } = await start({ memoryLimitBytes: 1024 });
    await waitFor(
      () => reports.length > 0,
      20_000,
      () => 'no report',
    );
    expect(reports).toEqual([
      { type: 'memory', bundleIds: [], message: expect.stringMatching(/^the heavy process took \d+ bytes, 1024 are allowed$/) },
    ]);
  });

  test('ends when its supervisor is gone', async () => {
    const { child } = await start();
    const ended = new Promise((resolveEnd) => {
      child.once('exit', (_code, signal) => resolveEnd(signal));
    });
    child.disconnect();
    expect(await ended).toBe('SIGKILL');
  });
});
