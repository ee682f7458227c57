import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { waitFor } from '../../support/agent.ts';

/** A parent that tells its child's id and waits; the child starts the watch and then hangs for ever, as in native code. */
const WATCH = new URL('../../../agent/store/orphan-watch.ts', import.meta.url).href;
const CHILD = `
  const { Worker } = require('node:worker_threads');
  const watch = new Worker(new URL(${JSON.stringify(WATCH)}), { workerData: { parentId: process.ppid, graceMillis: 600 } });
  watch.once('online', () => setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0), 200));
`;
const PARENT = `
  const child = require('node:child_process').spawn(process.execPath, ['-e', ${JSON.stringify(CHILD)}], { stdio: 'ignore' });
  console.log(child.pid);
  setInterval(() => {}, 1000);
`;

const isRunning = (processId: number): boolean => existsSync(`/proc/${processId}`);

test('a process that hangs ends when its parent is gone, and not before', { timeout: 30_000 }, async () => {
  const parent = spawn(process.execPath, ['-e', PARENT], { stdio: ['ignore', 'pipe', 'inherit'] });
  const childId = await new Promise<number>((resolve) => {
    parent.stdout.once('data', (chunk: Buffer) => resolve(Number(chunk.toString())));
  });
  // Longer than the grace: the watch is there and lets it be.
  await new Promise((resolve) => {
    setTimeout(resolve, 2500);
  });
  expect(isRunning(childId)).toBe(true);
  parent.kill('SIGKILL');
  await waitFor(
    () => !isRunning(childId),
    20_000,
    () => `process ${childId} still runs`,
  );
});
