import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { isSigned, parseCheckpoint } from '../../../agent/audit/checkpoint.ts';
import { loadAgentPublicKey, publicKeyPath } from '../../../agent/audit/agent-key.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { checkpointFile } from '../../../agent/store/checkpoint-keeper.ts';
import { StoreReader } from '../../../agent/store/reader.ts';
import { STORE_DEFAULTS } from '../../../agent/store/settings.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';
import { appendRecords, numbers, segmentPath, writeSegment } from './journal-files.ts';
import { decisionRecord, eventsOf, kill, type RunningStore, sequencesOf, startStore, storedRecords, until } from './store-setup.ts';

const PROCESS = join(import.meta.dirname, '../../../agent/store/store-process.ts');

function range(from: number, to: number): number[] {
  return numbers(from, to).map(({ sequence }) => sequence);
}

function journalNames(directory: string): string[] {
  return readdirSync(join(directory, 'journal')).sort();
}

async function untilDrained(store: RunningStore, headIndex: number): Promise<void> {
  await until(() => store.report().headIndex >= headIndex && store.report().lagBytes === 0, store);
}

describe('the store process', () => {
  test('killed twenty times while records arrive: every record is stored once, and the chain holds', async () => {
    const store = startStore();
    const { directory, supervisor } = store;
    let last = 0;
    let path = '';
    for (let times = 0; times < 20; times++) {
      await until(() => supervisor.status.processId !== null, store);
      for (let part = 0; part < 10; part++) {
        // A new segment every 2,000 records; the last ones of a segment are written before the next one begins.
        if (last % 2000 === 0) path = writeSegment(directory, 0, last + 1, []);
        appendRecords(path, numbers(last + 1, last + 200));
        last += 200;
        await new Promise((next) => {
          setTimeout(next, 20 + Math.random() * 60);
        });
      }
      kill(supervisor.status.processId ?? 0, 'SIGKILL');
    }
    await supervisor.stop();
    const again = startStore({ directory });
    await until(() => again.report().state === 'draining', again);
    await again.supervisor.stop();
    const records = await storedRecords(directory);
    expect(sequencesOf(records)).toEqual(range(1, last));
    expect(eventsOf(records).map(({ event }) => event)).toEqual(['begun']);
    expect(journalNames(directory)).toHaveLength(1);
    expect(store.alerts.filter((alert) => !alert.startsWith('store_down'))).toEqual([]);
  });

  test('stopped by its agent: everything in the journals is in the store, signed in two places', async () => {
    const store = startStore();
    const { directory } = store;
    await until(() => store.report().state === 'draining', store);
    writeSegment(directory, 0, 1, numbers(1, 9000));
    writeSegment(directory, 0, 9001, numbers(9001, 12_000));
    writeSegment(directory, 1, 1, numbers(1, 500));
    await store.supervisor.stop();
    expect(store.exits).toEqual([]);
    const records = await storedRecords(directory);
    expect(sequencesOf(records, 0)).toEqual(range(1, 12_000));
    expect(sequencesOf(records, 1)).toEqual(range(1, 500));
    const reader = StoreReader.open(join(directory, 'store'))!;
    const [...checkpoints] = reader.checkpoints();
    expect(checkpoints.at(-1)?.index).toBe(reader.head()?.index);
    await reader.close();
    const lines = readFileSync(checkpointFile(directory), 'utf8').trim().split('\n');
    expect(lines.at(-1)).toBe(Buffer.from(checkpoints.at(-1)!.bytes).toString().trim());
    const checkpoint = parseCheckpoint(Buffer.from(lines.at(-1)!));
    expect(isSigned(checkpoint!, loadAgentPublicKey(publicKeyPath(directory)))).toBe(true);
  });

  test('keeps what the agent gives it, and gives it back', async () => {
    const store = startStore();
    store.supervisor.tell({ type: 'state', name: 'slots', value: { 'etch/cd': 'b1' } });
    store.supervisor.tell({ type: 'state', name: 'estimators', value: ['ä'] });
    await until(() => store.report().state === 'draining', store);
    await store.supervisor.stop();
    expect(store.states).toEqual([{}]);
    const again = startStore({ directory: store.directory });
    await until(() => again.states.length === 1, again);
    expect(again.states).toEqual([{ slots: { 'etch/cd': 'b1' }, estimators: ['ä'] }]);
  });

  test('keeps segments with observations until the snapshot has them', async () => {
    const store = startStore();
    const { directory } = store;
    writeSegment(directory, 0, 1, [...numbers(1, 3), { sequence: 4, kind: RECORD_KINDS.alert }]);
    const withObservation = writeSegment(
      directory,
      0,
      5,
      numbers(5, 6, RECORD_KINDS.gap).slice(0, 0).concat(observation(5), numbers(6, 6)),
    );
    writeSegment(directory, 0, 7, numbers(7, 7));
    await untilDrained(store, 8);
    await until(() => !existsSync(segmentPath(directory, 0, 1)), store);
    expect(existsSync(withObservation)).toBe(true);
    store.supervisor.tell({ type: 'snapshot', positions: [{ stream: 0, sequence: 5 }] });
    await until(() => !existsSync(withObservation), store);
    expect(existsSync(segmentPath(directory, 0, 7))).toBe(true);
  });

  test('a process that was stopped is replaced, and the store goes on', async () => {
    const store = startStore({ settings: { hangMillis: 2000 }, timings: { openMillis: 10_000 } });
    const path = writeSegment(store.directory, 0, 1, numbers(1, 10));
    await untilDrained(store, 11);
    kill(store.report().processId ?? 0, 'SIGSTOP');
    appendRecords(path, numbers(11, 20));
    await untilDrained(store, 21);
    expect(store.exits).toEqual([expect.stringContaining('said nothing')]);
  });

  test('a second process waits until the first has ended', async () => {
    const store = startStore();
    await until(() => store.report().state === 'draining', store);
    const other = startStore({ directory: store.directory });
    await new Promise((next) => {
      setTimeout(next, 1000);
    });
    expect(other.states).toEqual([]);
    await store.supervisor.stop();
    await until(() => other.states.length === 1, other);
  });

  test('ends when its agent is gone, and does not before: not for a signal to the whole group', async () => {
    const directory = temporaryDirectory();
    const settings = { ...STORE_DEFAULTS, agentId: 'test', dataDirectory: directory, minFreeBytes: 1, ballastBytes: 0 };
    const child = spawn(process.execPath, [PROCESS, JSON.stringify(settings)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
    onTestFinished(() => void child.kill('SIGKILL'));
    let heard = 0;
    child.on('message', () => (heard += 1));
    await waitFor(
      () => heard > 0,
      20_000,
      () => 'it does not open',
    );
    child.kill('SIGTERM');
    child.kill('SIGINT');
    const before = heard;
    await waitFor(
      () => heard > before + 1,
      20_000,
      () => 'it does not speak any more',
    );
    child.disconnect();
    const [code, signal] = (await once(child, 'exit')) as [number | null, string | null];
    expect([code, signal]).toEqual([0, null]);
  });
});

function observation(sequence: number): ReturnType<typeof decisionRecord> {
  return { ...decisionRecord(sequence, 1), kind: RECORD_KINDS.observation, reply: new Uint8Array(0) };
}

describe('a damaged journal', () => {
  test('is set aside segment by segment; the store says what it lacks and goes on', async () => {
    const store = startStore();
    const { directory } = store;
    const path = writeSegment(directory, 0, 1, numbers(1, 100));
    const bytes = readFileSync(path);
    const half = bytes.byteLength / 2;
    bytes[half] = bytes[half]! ^ 1;
    writeFileSync(path, bytes);
    writeSegment(directory, 0, 101, numbers(101, 110));
    await until(() => store.alerts.length === 2 && store.report().lagBytes === 0, store);
    await store.supervisor.stop();
    const records = await storedRecords(directory);
    const [lost, ...more] = eventsOf(records).filter((event) => event.event === 'lost');
    if (lost?.event !== 'lost') throw new Error('nothing is stated as lost');
    expect(more).toEqual([]);
    expect(lost).toMatchObject({ stream: 0, to: 100, reason: 'journal_damaged' });
    expect(sequencesOf(records)).toEqual([...range(1, lost.from - 1), ...range(101, 110)]);
    expect(journalNames(directory)).toEqual([expect.stringContaining('.damaged-'), expect.stringContaining('0101.journal')]);
  });
});

describe('a damaged store', () => {
  test('a sound one that is suspected is checked and used again', async () => {
    const store = startStore();
    const path = writeSegment(store.directory, 0, 1, numbers(1, 100));
    await untilDrained(store, 101);
    kill(store.report().processId ?? 0, 'SIGBUS');
    await until(() => store.report().state === 'checking', store);
    appendRecords(path, numbers(101, 120));
    await untilDrained(store, 121);
    expect(readdirSync(store.directory).filter((name) => name.includes('damaged'))).toEqual([]);
    expect(store.alerts).toEqual([]);
  });

  test.each([
    ['cut short', (path: string) => truncateSync(path, Math.floor(statSync(path).size / 8192) * 4096)],
    ['overwritten', (path: string) => writeFileSync(path, Buffer.alloc(statSync(path).size, 0xa5))],
  ])('that is %s is set aside, with an alert; a new one says what it lacks and goes on', async (_, damage) => {
    const first = startStore();
    const { directory } = first;
    writeSegment(directory, 0, 1, numbers(1, 3000));
    const current = writeSegment(directory, 0, 3001, numbers(3001, 3100));
    await untilDrained(first, 3101);
    await first.supervisor.stop();
    const [data = ''] = readdirSync(join(directory, 'store')).filter((name) => /^data\.mdb$|\.mdb$/.test(name) && !name.includes('lock'));
    damage(join(directory, 'store', data));
    appendRecords(current, numbers(3101, 3200));
    const store = startStore({ directory });
    await until(() => store.alerts.some((alert) => alert.startsWith('store_set_aside')), store);
    await until(() => store.report().state === 'draining' && store.report().lagBytes === 0 && store.report().headIndex > 1, store);
    await store.supervisor.stop();
    const aside = readdirSync(directory).filter((name) => name.startsWith('store.damaged-'));
    expect(aside).toHaveLength(1);
    const records = await storedRecords(directory);
    const stated = eventsOf(records).filter(({ event }) => event === 'lost');
    expect(stated.length).toBeGreaterThan(0);
    expect(sequencesOf(records)).toEqual(expect.arrayContaining(range(3001, 3200)));
  });
});
