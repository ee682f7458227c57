import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { HeavyLane } from '../../../agent/infer/heavy-lane.ts';
import { encodeMessage, type HeavyResult, type HeavyRun, MessageReader } from '../../../agent/infer/heavy-messages.ts';
import type { OrtTensors } from '../../../agent/infer/session.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';

/** A heavy process that answers when the test says so. */
interface FakeProcess {
  readonly path: string;
  readonly runs: HeavyRun[];
  answer(result: HeavyResult, pieces?: number): void;
  /** Breaks every connection, as the end of the process does. */
  die(): void;
}

async function fakeProcess(): Promise<FakeProcess> {
  const path = join(temporaryDirectory(), 'heavy.sock');
  const runs: HeavyRun[] = [];
  const sockets: Socket[] = [];
  const server: Server = createServer((socket) => {
    sockets.push(socket);
    const reader = new MessageReader<HeavyRun>((run) => runs.push(run));
    socket.on('data', (chunk) => reader.push(chunk));
    socket.on('error', () => socket.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(path, resolve);
  });
  const die = (): void => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  onTestFinished(die);
  return {
    path,
    runs,
    answer: (result, pieces = 1) => {
      const message = encodeMessage(result);
      const size = Math.ceil(message.byteLength / pieces);
      for (let at = 0; at < message.byteLength; at += size) sockets.at(-1)?.write(message.subarray(at, at + size));
    },
    die,
  };
}

/** What became of the runs of a lane, in order. */
function recorder(lane: HeavyLane): { start: (name: string) => void; seen: string[] } {
  const seen: string[] = [];
  const start = (name: string): void =>
    lane.run(name, `/bundles/${name}`, feeds, {
      onResult: (outputs) => seen.push(`${name}: ${String(outputs['y']?.data)}`),
      onFailure: ({ code, message }, isCrash) => seen.push(`${name}: ${code}: ${message}${isCrash ? ' (crash)' : ''}`),
    });
  return { start, seen };
}

const ENDED = 'not_ready: Cannot run the model: the heavy process ended meanwhile (crash)';
const MISSING = 'not_ready: Cannot run the model: the heavy process is not running';

const feeds: OrtTensors = { x: { type: 'float32', data: Float32Array.of(1, 2), dims: [1, 2], location: 'cpu' } };

function outputsOf(...numbers: readonly number[]): OrtTensors {
  return { y: { type: 'float32', data: Float32Array.from(numbers), dims: [numbers.length], location: 'cpu' } };
}

async function connected(limit = 8): Promise<{ lane: HeavyLane; process: FakeProcess } & ReturnType<typeof recorder>> {
  const process = await fakeProcess();
  const lane = new HeavyLane(limit);
  onTestFinished(() => lane.close());
  lane.connect(process.path);
  await lane.ready();
  return { lane, process, ...recorder(lane) };
}

function until(condition: () => boolean): Promise<void> {
  return waitFor(condition, 5000, () => 'the condition does not hold');
}

describe('the heavy lane', () => {
  test('hands a run over with its bundle and feeds, and gives its result back', async () => {
    const { lane, process, start, seen } = await connected();
    start('a');
    expect(lane.inFlight).toBe(1);
    await until(() => process.runs.length === 1);
    expect(process.runs[0]).toEqual({ id: 1, bundleId: 'a', directory: '/bundles/a', feeds });
    process.answer({ id: 1, outputs: outputsOf(3) }, 7);
    await until(() => seen.length === 1);
    expect([seen, lane.inFlight]).toEqual([['a: 3'], 0]);
  });

  test('gives results to the runs they belong to, in whatever order they come', async () => {
    const { process, start, seen } = await connected();
    for (const name of ['a', 'b', 'c']) start(name);
    await until(() => process.runs.length === 3);
    process.answer({ id: 3, outputs: outputsOf(30) });
    process.answer({ id: 1, outputs: outputsOf(10) });
    process.answer({ id: 2, error: 'it broke' });
    await until(() => seen.length === 3);
    expect(seen).toEqual(['c: 30', 'a: 10', 'b: invalid_field: Cannot run the model: it broke']);
  });

  test('ignores a result that nobody waits for', async () => {
    const { process, start, seen } = await connected();
    start('a');
    await until(() => process.runs.length === 1);
    process.answer({ id: 99, outputs: outputsOf(1) });
    process.answer({ id: 1, outputs: outputsOf(2) });
    process.answer({ id: 1, outputs: outputsOf(3) });
    await until(() => seen.length > 0);
    expect(seen).toEqual(['a: 2']);
  });

  test('fails every run in flight, as a crash, when the process dies', async () => {
    const { lane, process, start, seen } = await connected();
    start('a');
    start('b');
    await until(() => process.runs.length === 2);
    process.die();
    await until(() => seen.length === 2);
    expect(seen).toEqual([`a: ${ENDED}`, `b: ${ENDED}`]);
    expect(lane.inFlight).toBe(0);
  });

  test('fails a run at once, not as a crash, while there is no process', async () => {
    const lane = new HeavyLane(8);
    const { start, seen } = recorder(lane);
    start('a');
    expect(seen).toEqual([`a: ${MISSING}`]);
    const process = await fakeProcess();
    lane.connect(process.path);
    start('b');
    expect(seen).toEqual([`a: ${MISSING}`, `b: ${MISSING}`]);
    lane.close();
  });

  test('goes on with the next process', async () => {
    const { lane, process, start, seen } = await connected();
    start('a');
    await until(() => process.runs.length === 1);
    process.die();
    await until(() => seen.length === 1);
    const next = await fakeProcess();
    lane.connect(next.path);
    await lane.ready();
    start('b');
    await until(() => next.runs.length === 1);
    next.answer({ id: next.runs[0]!.id, outputs: outputsOf(5) });
    await until(() => seen.length === 2);
    expect(seen[1]).toBe('b: 5');
  });

  test('fails what runs in the old process when it is told of a new one', async () => {
    const { lane, process, start, seen } = await connected();
    start('a');
    await until(() => process.runs.length === 1);
    const next = await fakeProcess();
    lane.connect(next.path);
    expect(seen).toEqual([`a: ${ENDED}`]);
    await lane.ready();
    // The old socket's end must not be taken for the end of the new one.
    process.die();
    await new Promise((resolve) => {
      setTimeout(resolve, 30);
    });
    start('b');
    expect([lane.inFlight, seen.length]).toEqual([1, 1]);
  });

  test('survives a process that does not listen', async () => {
    const lane = new HeavyLane(1);
    const { start, seen } = recorder(lane);
    lane.connect(join(temporaryDirectory(), 'nobody.sock'));
    await new Promise((resolve) => {
      setTimeout(resolve, 30);
    });
    start('a');
    expect(seen).toEqual([`a: ${MISSING}`]);
  });

  test('is full at its limit, and no longer when a result has come', async () => {
    const { lane, process, start, seen } = await connected(2);
    expect(lane.isFull).toBe(false);
    start('a');
    expect(lane.isFull).toBe(false);
    start('b');
    expect([lane.isFull, lane.inFlight]).toEqual([true, 2]);
    await until(() => process.runs.length === 2);
    process.answer({ id: 2, outputs: outputsOf(1) });
    await until(() => seen.length === 1);
    expect(lane.isFull).toBe(false);
  });
});
