import { closeSync, existsSync, mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { StoreSupervisor } from '../../../agent/serve/store-supervisor.ts';
import { freeBytesOf } from '../../../agent/store/disk-space.ts';
import { StoreReader } from '../../../agent/store/reader.ts';
import { STORE_DEFAULTS } from '../../../agent/store/settings.ts';
import { appendRecords, numbers, writeSegment } from './journal-files.ts';

/**
 * The life of a store on a file system that fills up and is emptied again. Argument: an empty directory on a small file
 * system. Prints what was seen.
 */
const MEBIBYTE = 1024 * 1024;
const [, , directory = ''] = process.argv;
const filler = join(directory, 'filler');
const alerts: string[] = [];
const exits: string[] = [];
mkdirSync(join(directory, 'journal'), { recursive: true });
const supervisor = new StoreSupervisor({
  settings: { ...STORE_DEFAULTS, agentId: 'test', dataDirectory: directory, minFreeBytes: 8 * MEBIBYTE, ballastBytes: 8 * MEBIBYTE },
  onReady: () => {},
  onStatus: () => {},
  onAlert: (alert) => alerts.push(alert),
  onExit: (description) => exits.push(description),
  timings: { firstRestartMillis: 50, maxRestartMillis: 200, stopMillis: 10_000 },
});

async function until(what: string, condition: () => boolean): Promise<void> {
  const end = Date.now() + 20_000;
  while (!condition()) {
    if (Date.now() > end) throw new Error(`not within 20 s: ${what}: ${JSON.stringify({ ...supervisor.status, alerts, exits })}`);
    await delay(20);
  }
}

/** Leaves so many bytes free; none at all for 0. */
function fillUpTo(freeBytes: number): void {
  const descriptor = openSync(filler, 'a');
  try {
    while (freeBytesOf(directory) > freeBytes) writeSync(descriptor, new Uint8Array(64 * 1024));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  } finally {
    closeSync(descriptor);
  }
}

const ballast = join(directory, 'store', 'ballast');
const current = writeSegment(directory, 0, 1, numbers(1, 5000));
supervisor.start();
await until('drained', () => supervisor.status.headIndex > 5000 && supervisor.status.lagBytes === 0);
await until('the ballast is there', () => existsSync(ballast));
fillUpTo(4 * MEBIBYTE);
await until('it waits for space', () => supervisor.status.state === 'waiting_for_space');
const wasGivenUp = !existsSync(ballast);
appendRecords(current, numbers(5001, 20_000));
await until('it says what it lags', () => supervisor.status.lagBytes > 0);
const stored = supervisor.status.headIndex;
fillUpTo(0);
const exitsBefore = exits.length;
process.kill(supervisor.status.processId ?? 0, 'SIGKILL');
await until('it cannot be opened', () => exits.some((exit) => exit.startsWith('code 75')));
const stateWhenFull = supervisor.status.state;
rmSync(filler);
await until('it goes on', () => supervisor.status.state === 'draining' && supervisor.status.lagBytes === 0);
await supervisor.stop();
const reader = StoreReader.open(join(directory, 'store'));
const sequences = [...(reader?.between(0, Number.MAX_SAFE_INTEGER) ?? [])].filter(({ stream }) => stream === 0).length;
await reader?.close();
process.stdout.write(JSON.stringify({ wasGivenUp, stored, exitsBefore, stateWhenFull, alerts, sequences }));
