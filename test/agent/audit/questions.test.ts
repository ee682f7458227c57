import { type ChildProcess, spawn } from 'node:child_process';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { loadOrCreateAgentKey, publicKeyPath } from '../../../agent/audit/agent-key.ts';
import { answer } from '../../../agent/audit/answer.ts';
import { LogView } from '../../../agent/audit/log-view.ts';
import type { Question, Selection } from '../../../agent/audit/messages.ts';
import type { LogRecord, Row } from '../../../agent/audit/row.ts';
import { verifyLog } from '../../../agent/audit/verify.ts';
import { MarkFile } from '../../../agent/journal/mark-file.ts';
import { SYSTEM_FILES } from '../../../agent/journal/files.ts';
import { temporaryDirectory, waitFor } from '../../support/agent.ts';
import { EPOCH, openWriter, segmentPath, store, writeSegment } from './log-setup.ts';
import { BUNDLE, contextOf, decisionRecord, T0 } from './rows.ts';
import { OTHER_BUNDLE, smallLog } from './small-log.ts';

interface Asked {
  readonly rows: readonly Row[];
  readonly names: readonly string[];
  readonly warnings: readonly string[];
  readonly summary: string;
}

async function ask(dataDirectory: string, selection: Selection, range: Range = {}): Promise<Asked> {
  const view = LogView.open(dataDirectory);
  try {
    return askView(view, dataDirectory, selection, range);
  } finally {
    await view.close();
  }
}

type Range = Partial<Pick<Question, 'fromMicros' | 'toMicros'>>;

function askView(view: LogView, dataDirectory: string, selection: Selection, range: Range = {}): Asked {
  const rows: Row[] = [];
  const question: Question = {
    type: 'ask',
    dataDirectory,
    agentId: null,
    selection,
    fromMicros: 0,
    toMicros: Number.MAX_SAFE_INTEGER,
    format: 'text',
    ...range,
  };
  const { summary, warnings } = answer(view, question, (row) => rows.push(row));
  return { rows, names: rows.map(({ name, stream, sequence }) => `${name} ${stream}/${sequence}`), warnings, summary };
}

const CHILD = new URL('../../../test/agent/audit/draining-child.ts', import.meta.url).pathname;
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const everything: Selection = { by: 'time' };

describe('a question', () => {
  test('about a substrate finds its decisions and observations, stored or not', async () => {
    const { names, summary, warnings } = await ask(await smallLog(), { by: 'substrate', substrateId: 'A' });
    expect(names).toEqual(['decision 0/1', 'observation 0/3', 'decision 0/10', 'observation 0/11']);
    expect(summary).toBe('2 decisions, 2 observations');
    expect(warnings).toEqual([
      'records 5 to 8 of stream 0 are lost (4, disk_full): no space [noted 2026-11-22T10:15:00.000008Z]',
      'alert at the time: guard cd/x: reliance_low [2026-11-22T10:15:00.000004Z]',
    ]);
  });

  test('about a bundle finds its decisions, by the first digits of its id, too', async () => {
    const directory = await smallLog();
    for (const prefix of [hexOf(OTHER_BUNDLE), hexOf(OTHER_BUNDLE).slice(0, 12)]) {
      expect((await ask(directory, { by: 'bundle', prefix })).names).toEqual(['decision 0/2', 'decision 0/10']);
    }
    expect((await ask(directory, { by: 'bundle', prefix: hexOf(BUNDLE) })).names).toEqual([
      'decision 0/1',
      'decision 0/9',
      'decision 0/12',
    ]);
    await expect(ask(directory, { by: 'bundle', prefix: '00010203' })).rejects.toThrow(/Cannot tell which bundle 00010203 is: 0001/);
    expect((await ask(directory, { by: 'bundle', prefix: 'deadbeef' })).names).toEqual([]);
    expect((await ask(directory, { by: 'bundle', prefix: 'de'.repeat(32) })).names).toEqual([]);
  });

  test('about one record finds it, or says that its number is among those lost', async () => {
    const directory = await smallLog();
    for (const [sequence, name] of [
      [1, 'decision 0/1'],
      [3, 'observation 0/3'],
      [12, 'decision 0/12'],
    ] as const) {
      expect(await ask(directory, { by: 'decision', stream: 0, sequence })).toMatchObject({ names: [name], warnings: [] });
    }
    expect(await ask(directory, { by: 'decision', stream: 0, sequence: 6 })).toMatchObject({
      names: [],
      warnings: [expect.stringContaining('records 5 to 8 of stream 0 are lost')],
    });
    expect(await ask(directory, { by: 'decision', stream: 1, sequence: 6 })).toMatchObject({
      names: [],
      warnings: [],
      summary: 'nothing was found',
    });
  });

  test('about a time finds everything in it, both ends included', async () => {
    const directory = await smallLog();
    const { names } = await ask(directory, everything, { fromMicros: T0 + 3, toMicros: T0 + 10 });
    expect(names).toEqual(['observation 0/3', 'alert 0/4', 'gap 0/8', 'decision 0/9', 'decision 0/10']);
    expect((await ask(directory, { by: 'substrate', substrateId: 'A' }, { fromMicros: T0 + 3, toMicros: T0 + 10 })).names).toEqual([
      'observation 0/3',
      'decision 0/10',
    ]);
  });

  test('is warned by a gap that is stated after its end, when the lost records may be of before', async () => {
    const directory = await smallLog();
    const lost = [expect.stringContaining('records 5 to 8')];
    // The last record before the gap is of T0 + 4.
    expect((await ask(directory, { by: 'substrate', substrateId: 'A' }, { toMicros: T0 + 5 })).warnings).toEqual([
      ...lost,
      expect.stringContaining('alert'),
    ]);
    expect((await ask(directory, { by: 'substrate', substrateId: 'A' }, { toMicros: T0 + 3 })).warnings).toEqual([]);
    expect((await ask(directory, { by: 'substrate', substrateId: 'A' }, { fromMicros: T0 + 9 })).warnings).toEqual([]);
  });

  test('of which retention has dropped a part says so', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(
      writer,
      [1, 2, 3, 4].map((sequence) => decisionRecord({ sequence })),
    );
    await writer.dropTelemetry({ maxRecords: 3 }, 'age');
    await writer.dropRecords({ maxRecords: 2 }, 'age');
    await writer.close();
    const { rows, warnings } = await ask(directory, { by: 'bundle', prefix: hexOf(BUNDLE) });
    expect(rows.map(({ sequence, telemetry }) => [sequence, telemetry])).toEqual([
      [2, 'dropped'],
      [3, 'dropped'],
      [4, 'kept'],
    ]);
    expect(warnings).toEqual([
      'retention has dropped the 2 oldest entries; the answer reaches back to entry 3, 2026-11-22T10:15:00.000002Z',
    ]);
    expect((await ask(directory, everything, { fromMicros: T0 + 3 })).warnings).toEqual([]);
  });

  test('is told of a store that was set aside', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory, { log: 5n, index: 100, link: new Uint8Array(32) });
    await writer.appendEvent({ event: 'lost', stream: null, from: 1, to: 100, reason: 'store_damaged', detail: 'set aside' });
    await writer.close();
    expect((await ask(directory, { by: 'substrate', substrateId: 'A' })).warnings).toEqual([
      expect.stringContaining('begun'),
      expect.stringContaining('records 1 to 100 of an earlier log are lost (store_damaged): set aside'),
    ]);
  });

  test('of an empty data directory is answered by nothing', async () => {
    expect(await ask(temporaryDirectory(), everything)).toMatchObject({ names: [], warnings: [], summary: 'nothing was found' });
  });
});

describe('the journal', () => {
  const one = (sequence: number, stream = 0): LogRecord => decisionRecord({ stream, sequence, timeMicros: T0 + sequence });

  test('of several streams comes in the order of time', async () => {
    const directory = temporaryDirectory();
    writeSegment(directory, [decisionRecord({ sequence: 1, timeMicros: T0 + 10 }), decisionRecord({ sequence: 2, timeMicros: T0 + 30 })], {
      first: 1,
    });
    writeSegment(
      directory,
      [decisionRecord({ stream: 1, sequence: 1, timeMicros: T0 + 20 }), decisionRecord({ stream: 1, sequence: 2, timeMicros: T0 + 40 })],
      { stream: 1, first: 1 },
    );
    expect((await ask(directory, everything)).names).toEqual(['decision 0/1', 'decision 1/1', 'decision 0/2', 'decision 1/2']);
  });

  test('is read from behind what is stored, wherever that ends', async () => {
    for (let stored = 1; stored <= 6; stored++) {
      const directory = temporaryDirectory();
      const offsets = writeSegment(directory, [one(1), one(2), one(3)], { first: 1 });
      writeSegment(directory, [one(4), one(5), one(6)], { first: 4 });
      const writer = openWriter(directory);
      const segment = stored <= 3 ? 1 : 4;
      await store(
        writer,
        Array.from({ length: stored }, (_, at) => one(at + 1)),
        { segment, offset: offsets[(stored - 1) % 3]! },
      );
      await writer.close();
      const { names } = await ask(directory, { by: 'bundle', prefix: hexOf(BUNDLE) });
      expect(names, `${stored} stored`).toEqual([1, 2, 3, 4, 5, 6].map((sequence) => `decision 0/${sequence}`));
    }
  });

  test('is read by its numbers where the offset that the store remembers is wrong', async () => {
    const directory = temporaryDirectory();
    writeSegment(directory, [one(1), one(2), one(3)], { first: 1 });
    const writer = openWriter(directory);
    await store(writer, [one(1), one(2)], { offset: 5000 });
    await writer.close();
    expect((await ask(directory, { by: 'bundle', prefix: hexOf(BUNDLE) })).names).toEqual(['decision 0/1', 'decision 0/2', 'decision 0/3']);
  });

  test('whose stored part is damaged is read behind it', async () => {
    const directory = temporaryDirectory();
    const offsets = writeSegment(directory, [one(1), one(2), one(3)], { first: 1 });
    const path = segmentPath(directory, 0, 1);
    const bytes = readFileSync(path);
    bytes[offsets[0]! + 40]! ^= 1;
    writeFileSync(path, bytes);
    const writer = openWriter(directory);
    await store(writer, [one(1), one(2)], { offset: offsets[1]! });
    await writer.close();
    const { names, warnings } = await ask(directory, { by: 'bundle', prefix: hexOf(BUNDLE) });
    expect(names).toEqual(['decision 0/1', 'decision 0/2', 'decision 0/3']);
    expect(warnings).toEqual([]);
  });

  test('that was begun anew with lower numbers is read whole', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, [one(1), one(2), one(3)]);
    await writer.close();
    writeSegment(directory, [one(1), one(2)], { first: 1, epoch: EPOCH + 1n });
    const { names, warnings } = await ask(directory, { by: 'bundle', prefix: hexOf(BUNDLE) });
    expect(names).toEqual([1, 2, 3, 1, 2].map((sequence) => `decision 0/${sequence}`));
    expect(warnings).toEqual([]);
  });

  test('with a damaged byte gives what is before it, and says what it does not', async () => {
    const directory = temporaryDirectory();
    const offsets = writeSegment(directory, [one(1), one(2), one(3)], { first: 1 });
    const path = segmentPath(directory, 0, 1);
    const bytes = readFileSync(path);
    bytes[offsets[0]! + 40]! ^= 1;
    writeFileSync(path, bytes);
    const { names, warnings } = await ask(directory, everything);
    expect(names).toEqual(['decision 0/1']);
    expect(warnings).toEqual([
      `${path} cannot be read from byte ${offsets[0]} on: records in its last ${bytes.byteLength - offsets[0]!} bytes are not in this answer`,
    ]);
  });

  test('that skips numbers says which', async () => {
    const directory = temporaryDirectory();
    writeSegment(directory, [one(1), one(5)], { first: 1 });
    expect((await ask(directory, everything)).warnings).toEqual([expect.stringContaining('records 2 to 4 of stream 0')]);
  });

  test('that fails says which numbers are in memory only', async () => {
    const directory = temporaryDirectory();
    writeSegment(directory, [one(1)], { first: 1 });
    MarkFile.open(SYSTEM_FILES, join(directory, 'journal'), {
      stream: 0,
      state: 'failing',
      given: 7,
      from: 2,
      durability: 'process',
      reason: 'disk_full',
      sinceMicros: T0,
      bootId: '',
      detail: 'no space',
    }).close();
    expect((await ask(directory, everything)).warnings).toEqual([
      'the journal of stream 0 fails (disk_full, since 2026-11-22T10:15:00.000000Z): records 2 to 7 or later are not on the disk: no space',
    ]);
  });
});

describe('while an agent writes, and its store process drains and deletes', () => {
  test('what is moved between the opening and the reading is given once', async () => {
    const directory = temporaryDirectory();
    const records = [1, 2, 3, 4, 5].map((sequence) => decisionRecord({ sequence, predict: { context: contextOf({ substrateId: 'A' }) } }));
    const offsets = writeSegment(directory, records.slice(0, 4), { first: 1 });
    const writer = openWriter(directory);
    await store(writer, records.slice(0, 2), { offset: offsets[1]! });
    const view = LogView.open(directory);
    // As the store process: the rest of the file, then the next one; the agent has written another record.
    writeSegment(directory, records.slice(4), { first: 5 });
    await store(writer, records.slice(2, 4), { offset: offsets[3]! });
    await store(writer, records.slice(4), { segment: 5 });
    rmSync(segmentPath(directory, 0, 1));
    for (const selection of [everything, { by: 'substrate', substrateId: 'A' }, { by: 'bundle', prefix: hexOf(BUNDLE) }] as const) {
      const decisions = askView(view, directory, selection).names.filter((name) => name.startsWith('decision'));
      expect(decisions).toEqual([1, 2, 3, 4].map((sequence) => `decision 0/${sequence}`));
    }
    for (const sequence of [2, 3, 4]) expect(askView(view, directory, { by: 'decision', stream: 0, sequence }).names).toHaveLength(1);
    await view.close();
    await writer.close();
    expect((await ask(directory, { by: 'substrate', substrateId: 'A' })).names).toHaveLength(5);
  });

  test('every answered decision is found, once', async () => {
    const directory = temporaryDirectory();
    const child = spawn(process.execPath, [CHILD, directory], { stdio: ['pipe', 'pipe', 'pipe'] });
    const ended = endOf(child);
    onTestFinished(() => void child.kill('SIGKILL'));
    const keyPath = publicKeyPath(directory);
    loadOrCreateAgentKey(directory);
    const told = { answered: 0 };
    let rest = '';
    child.stdout.on('data', (chunk: Buffer) => {
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      told.answered = Number(lines.at(-1) ?? told.answered);
    });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()));
    await waitFor(
      () => told.answered > 60 || child.exitCode !== null,
      20_000,
      () => errors,
    );
    expect(child.exitCode, errors).toBeNull();
    for (let round = 0; round < 25 || told.answered < 150; round++) {
      const before = told.answered;
      const { rows, warnings } = await ask(directory, everything);
      const decisions = rows.filter(({ name }) => name === 'decision');
      for (const stream of [0, 1]) {
        const sequences = decisions.filter((row) => row.stream === stream).map(({ sequence }) => sequence);
        expect(sequences, `round ${round}`).toEqual(sequences.map((_, at) => at + 1));
        expect(sequences.length).toBeGreaterThanOrEqual(before);
      }
      expect(warnings).toEqual([]);
      const wafer = before % 50;
      const about = (await ask(directory, { by: 'substrate', substrateId: `W${wafer}` })).rows.filter(({ stream }) => stream === 0);
      expect(about.map(({ sequence }) => sequence)).toEqual(about.map((_, at) => (wafer === 0 ? 50 : wafer) + at * 50));
      expect(about.at(-1)!.sequence).toBeGreaterThanOrEqual(before);
      const { findings, journalRecords, chain } = await verifyLog({
        type: 'verify',
        dataDirectory: directory,
        agentId: null,
        keyPath,
        checkpointPath: null,
        isJson: false,
      });
      expect(findings).toMatchObject({ total: 0, notes: [] });
      expect((chain.kinds.get(1) ?? 0) + journalRecords).toBeGreaterThanOrEqual(2 * before);
      // The child's numbers arrive between two rounds only.
      await new Promise((next) => {
        setImmediate(next);
      });
    }
    // The files of the journal did come and go meanwhile.
    expect(readdirSync(join(directory, 'journal'))).not.toContain('stream-0-0000000000000001.journal');
    child.stdin.end();
    expect(await ended, errors).toEqual({ code: 0, signal: null });
    expect((await ask(directory, everything)).rows.filter(({ name }) => name === 'decision')).toHaveLength(2 * told.answered);
  });
});

async function endOf(child: ChildProcess): Promise<{ code: number | null; signal: string | null }> {
  return await new Promise((resolve) => {
    child.once('close', (code, signal) => resolve({ code, signal }));
  });
}
