import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { checkStore } from '../../../agent/store/check.ts';
import { StoreReader } from '../../../agent/store/reader.ts';
import { StoreWriter } from '../../../agent/store/writer.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { decision, decisions, positionAt } from './records.ts';

const CHILD = new URL('../../../test/agent/store/writer-child.ts', import.meta.url).pathname;

const HALF_WRITER = new URL('../../../test/agent/store/half-writer-child.ts', import.meta.url).pathname;

class Writer {
  readonly child: ChildProcess;
  acknowledged = 0;
  said = '';

  constructor(directory: string, keep = 0) {
    this.child = spawn(process.execPath, [CHILD, directory, String(keep)], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.said += chunk.toString();
      this.acknowledged = Number(this.said.slice(0, this.said.lastIndexOf('\n')).split('\n').at(-1));
    });
    onTestFinished(() => void this.child.kill('SIGKILL'));
  }

  async reach(sequence: number): Promise<void> {
    while (this.acknowledged < sequence && this.child.exitCode === null && this.child.signalCode === null) await delay(5);
  }

  async kill(): Promise<void> {
    const closed = once(this.child, 'close');
    this.child.kill('SIGKILL');
    await closed;
  }
}

function folder(): string {
  const directory = join(temporaryDirectory(), 'store');
  mkdirSync(directory);
  return directory;
}

async function openWhenThere(directory: string): Promise<StoreReader> {
  for (;;) {
    const reader = StoreReader.open(directory);
    if (reader !== null) return reader;
    await delay(5);
  }
}

/** Reads everything and expects each decision to be right and in its place; returns the highest sequence. */
function expectAllRight(reader: StoreReader): number {
  let last = 0;
  let index = 0;
  for (const record of reader.between(0, Infinity)) {
    if (index > 0) expect(record.index).toBe(index + 1);
    ({ index } = record);
    if (record.kind !== 1) continue;
    if (last > 0) expect(record.sequence).toBe(last + 1);
    last = record.sequence;
    if (last % 97 === 0) expect(record).toMatchObject(decision(last));
  }
  return last;
}

describe('a reader', () => {
  test('finds nothing where there is no store, and leaves nothing there', () => {
    const directory = temporaryDirectory();
    expect(StoreReader.open(join(directory, 'none'))).toBeNull();
    expect(StoreReader.open(directory)).toBeNull();
    expect(readdirSync(directory)).toEqual([]);
  });

  test('sees every committed record while another process writes, and none half', async () => {
    const directory = folder();
    const writer = new Writer(directory);
    const reader = await openWhenThere(directory);
    for (const sequence of [64, 640, 4096]) {
      await writer.reach(sequence);
      const { acknowledged } = writer;
      expect(expectAllRight(reader)).toBeGreaterThanOrEqual(acknowledged);
      expect(reader.bySequence(0, acknowledged)).toMatchObject(decision(acknowledged));
      expect([...reader.bySubstrate('LOT1.7')]).toMatchObject([decision(32)]);
    }
    await writer.kill();
    await reader.close();
  });

  test('goes on when what it would read next is dropped meanwhile', async () => {
    const directory = folder();
    const writer = new Writer(directory, 1500);
    await writer.reach(1400);
    const reader = await openWhenThere(directory);
    const records = reader.between(0, Infinity);
    const entries = reader.entries(1);
    records.next();
    const first = entries.next().value?.index ?? 0;
    await writer.reach(writer.acknowledged + 4000);
    let before = 0;
    for (const record of records) {
      expect(record.index).toBeGreaterThan(before);
      before = record.index;
    }
    let index = first;
    let jumps = 0;
    for (const entry of entries) {
      if (entry.index !== index + 1) jumps += 1;
      expect(entry.index).toBeGreaterThan(index);
      ({ index } = entry);
    }
    expect(index).toBeGreaterThan(5000);
    expect(jumps).toBeGreaterThan(0);
    await writer.kill();
    await reader.close();
  });

  test('looks at the newest commit each time, within one turn, too', async () => {
    const directory = folder();
    const writer = new Writer(directory);
    await writer.reach(64);
    const reader = await openWhenThere(directory);
    const before = reader.head()?.index;
    const deadline = Date.now() + 20_000;
    // No waiting: lmdb lets go of a snapshot by itself only when the turn ends.
    while (reader.head()?.index === before && Date.now() < deadline);
    expect(reader.head()?.index).toBeGreaterThan(before!);
    await writer.kill();
    await reader.close();
  });

  test('does not make the file grow while it stands open between two looks', async () => {
    const directory = folder();
    const writer = new Writer(directory, 600);
    await writer.reach(2000);
    const reader = await openWhenThere(directory);
    const iterator = reader.entries(1)[Symbol.iterator]();
    iterator.next();
    await writer.reach(writer.acknowledged + 1000);
    const before = statSync(join(directory, 'data.mdb')).size;
    await writer.reach(writer.acknowledged + 6000);
    expect(statSync(join(directory, 'data.mdb')).size).toBeLessThan(before * 1.5);
    await writer.kill();
    await reader.close();
  });

  test('finds everything that was acknowledged after the writer was killed, again and again', async () => {
    const directory = folder();
    for (let round = 1; round <= 5; round += 1) {
      const writer = new Writer(directory, 3000);
      await writer.reach(writer.acknowledged + 64 * round * 7);
      await delay(round * 13);
      await writer.kill();
      const reader = await openWhenThere(directory);
      const last = expectAllRight(reader);
      expect(last).toBeGreaterThanOrEqual(writer.acknowledged);
      expect(reader.positions()).toMatchObject([{ lastSequence: last }]);
      await reader.close();
      expect((await checkStore(directory)).findings).toEqual([]);
    }
  });

  test('gives times in both bounds, wherever the clock jumped', async () => {
    const directory = folder();
    const writer = StoreWriter.open(directory, { newLog: () => 1n, nowMicros: () => 1, previous: null });
    const times = [500, 100, 900, 300, 300, 700];
    await writer.append(
      times.map((timeMicros, at) => decision(at + 1, { timeMicros })),
      positionAt(6),
    );
    await writer.close();
    const reader = await openWhenThere(directory);
    expect([...reader.between(300, 700)].map(({ sequence }) => sequence)).toEqual([1, 4, 5, 6]);
    expect([...reader.between(901, 2000)]).toEqual([]);
    await reader.close();
  });

  test('reads values that are larger than a page, and larger than a chunk', async () => {
    const directory = folder();
    const writer = StoreWriter.open(directory, { newLog: () => 1n, nowMicros: () => 1, previous: null });
    const sizes = [1, 500, 2000, 9000, 60_000, 250_000];
    const records = Array.from({ length: 30 }, (_, at) => decision(at + 1, { featureCount: sizes[at % 6]! }));
    await writer.append(records, positionAt(30));
    await writer.close();
    const reader = await openWhenThere(directory);
    let at = 0;
    for (const record of reader.between(2, Infinity)) {
      expect(Buffer.from(record.request).equals(records[at]!.request), `record ${at}`).toBe(true);
      at += 1;
    }
    expect(at).toBe(30);
    expect([...reader.entries(1)]).toHaveLength(31);
    await reader.close();
  });
});

describe('a writer whose commit fails', () => {
  test('half-way through a transaction leaves nothing of it', async () => {
    const directory = folder();
    const { signal, stderr } = spawnSync(process.execPath, [HALF_WRITER, directory], { encoding: 'utf8' });
    expect(signal).toBe('SIGKILL');
    expect(stderr).toContain('Cannot write to the store: half-way');
    const reader = await openWhenThere(directory);
    expect([reader.head()?.index, reader.state('half')]).toEqual([1, null]);
    await reader.close();
    expect((await checkStore(directory)).findings).toEqual([]);
  });

  test('says so, refuses everything after it, and leaves what was acknowledged', async () => {
    const directory = folder();
    await StoreWriter.open(directory, { newLog: () => 77n, nowMicros: () => 1, previous: null }).close();
    // A limit on the size of files fails a write as a full disk does.
    const script = `ulimit -f 2000; exec "${process.execPath}" "${CHILD}" "${directory}"`;
    let said = '';
    let signal: string | null = null;
    try {
      execFileSync('/bin/bash', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'], timeout: 25_000 });
    } catch (error) {
      const end = error as { stdout: Buffer; signal: string | null };
      said = end.stdout.toString();
      ({ signal } = end);
    }
    const lines = said.trim().split('\n');
    // LMDB's own error path may end the process first; both end it.
    expect(['SIGKILL', 'SIGABRT', 'SIGSEGV', 'SIGBUS']).toContain(signal);
    if (signal === 'SIGKILL') expect(lines.at(-1)).toBe('failed journal_failed refused');
    const acknowledged = Math.max(...lines.map(Number).filter((number) => !Number.isNaN(number)));
    expect(acknowledged).toBeGreaterThan(64);
    const reader = await openWhenThere(directory);
    expect(expectAllRight(reader)).toBeGreaterThanOrEqual(acknowledged);
    await reader.close();
    expect((await checkStore(directory)).findings).toEqual([]);
    const writer = StoreWriter.open(directory, { newLog: () => 1n, nowMicros: () => 1, previous: null });
    const next = (writer.position(0)?.lastSequence ?? 0) + 1;
    expect(await writer.append(decisions(next, next + 500), positionAt(next + 500))).toBe(501);
    await writer.close();
  });
});
