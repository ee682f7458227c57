import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { StoreReader } from '../../../agent/store/reader.ts';
import { publicKeyPath } from '../../../agent/audit/agent-key.ts';
import type { LogRecord } from '../../../agent/audit/row.ts';
import type { VerifyResult } from '../../../agent/audit/verify.ts';
import { checkpointFile } from '../../../agent/store/checkpoint-keeper.ts';
import { numberKey } from '../../../agent/store/keys.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { addCheckpoint, AGENT_ID, audit, openWriter, segmentPath, store, writeSegment } from './log-setup.ts';
import { decisionRecord, T0 } from './rows.ts';
import { keepCheckpoint, recordsOf, storeAll, tamper, twenty, verify } from './verify-setup.ts';

describe('retention', () => {
  test('that says what it dropped leaves a sound log', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, recordsOf(twenty));
    await addCheckpoint(directory, writer);
    expect(await writer.dropTelemetry({ maxRecords: 8 }, 'age')).toBe(8);
    expect(await writer.dropRecords({ maxRecords: 4 }, 'age')).toBe(4);
    await addCheckpoint(directory, writer, T0 / 1000 + 1);
    await writer.close();
    const { findings, anchor, chain } = await verify(directory);
    expect(findings.list).toEqual([]);
    expect(anchor?.index).toBe(4);
    // Eight had lost their telemetry; three of them (entries 2, 3 and 4) are gone altogether.
    expect(chain).toMatchObject({ firstIndex: 5, telemetryDropped: 5, telemetryKept: 12 });
  });

  test('that goes on while the log is walked is not taken for a removal', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, recordsOf(twenty));
    await addCheckpoint(directory, writer);
    const { head } = writer;
    await writer.dropTelemetry({ maxRecords: 9 }, 'age');
    await writer.dropRecords({ maxRecords: 4 }, 'age');
    await writer.close();
    // As the walk found it when it began: nothing dropped yet, and the log ending before the entries that say so.
    const anchor = vi.spyOn(StoreReader.prototype, 'anchor').mockReturnValueOnce(null);
    const heads = vi.spyOn(StoreReader.prototype, 'head').mockReturnValueOnce(head).mockReturnValueOnce(head);
    onTestFinished(() => {
      anchor.mockRestore();
      heads.mockRestore();
    });
    const { findings, chain } = await verify(directory);
    expect(findings.list).toEqual([]);
    expect(chain).toMatchObject({ firstIndex: 5, entries: 17, telemetryDropped: 6 });
  });

  test('of which more is gone than it says is found', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, recordsOf(twenty));
    await writer.dropTelemetry({ maxRecords: 8 }, 'age');
    await addCheckpoint(directory, writer);
    await writer.close();
    await tamper(directory, ({ tables }) => {
      for (const index of [10, 15]) tables.telemetry.remove(numberKey(index));
    });
    expect((await verify(directory)).findings.list).toMatchObject([
      { kind: 'missing', fromIndex: 10, toIndex: 10 },
      { kind: 'missing', fromIndex: 15, toIndex: 15 },
    ]);
  });
});

describe('checkpoints', () => {
  async function withLine(change: (line: string) => string): Promise<VerifyResult> {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    const path = checkpointFile(directory);
    const lines = readFileSync(path, 'utf8').split('\n');
    writeFileSync(path, [change(lines[0]!), ...lines.slice(1)].join('\n'));
    return await verify(directory);
  }

  test.each([
    ['an index', (line: string) => line.replace('\\n6\\n', '\\n5\\n'), /signature/],
    ['an agent', (line: string) => line.replace('agent-7', 'agent-8'), /signature/],
    ['text', () => 'hello', /no checkpoint/],
  ])('one with another %s is found', async (_name, change, detail) => {
    const { findings } = await withLine(change);
    expect(findings.list).toMatchObject([{ kind: 'checkpoint', detail: expect.stringMatching(detail) }]);
    expect(findings.list[0]!.detail).toContain('line 1 of checkpoints.jsonl');
  });

  test('one that a crash cut short is a note', async () => {
    const { findings } = await withLine((line) => line.slice(0, 90));
    expect(findings).toMatchObject({ total: 0, notes: ['line 1 of checkpoints.jsonl was cut short'] });
  });

  test('the last one may still be on its way', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    const path = checkpointFile(directory);
    truncateSync(path, readFileSync(path).byteLength - 40);
    expect((await verify(directory)).findings).toMatchObject({ total: 0, notes: [] });
  });

  test('one of another key or another agent is found', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty));
    const other = temporaryDirectory();
    await storeAll(other, recordsOf(twenty));
    expect((await verify(directory, { keyPath: publicKeyPath(other) })).findings.list).toMatchObject([
      { kind: 'checkpoint', detail: expect.stringContaining('is signed by key') },
      { kind: 'checkpoint' },
    ]);
    expect((await verify(directory, { agentId: 'agent-8' })).findings.list).toMatchObject([
      { kind: 'checkpoint', detail: expect.stringContaining(`of agent '${AGENT_ID}', 'agent-8' is expected`) },
      { kind: 'checkpoint' },
    ]);
  });

  test('a clock that went back is a note', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    for (const [place, record] of recordsOf(twenty).entries()) {
      await store(writer, [record]);
      if (place % 10 === 0) await addCheckpoint(directory, writer, T0 / 1000 - place);
    }
    await writer.close();
    const { findings } = await verify(directory);
    expect(findings.total).toBe(0);
    expect(findings.notes[0]).toContain('the clock went back');
  });

  test('one in the store under the index of another entry is found', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, recordsOf(twenty));
    const line = await addCheckpoint(directory, writer);
    await writer.putCheckpoint(3, line);
    await writer.close();
    expect((await verify(directory)).findings.list).toMatchObject([{ kind: 'checkpoint', fromIndex: 3 }]);
  });

  test('an external one whose signature is wrong, or that is none, is refused', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty));
    const path = await keepCheckpoint(directory);
    writeFileSync(path, readFileSync(path, 'utf8').replace('\\n21\\n', '\\n20\\n'));
    expect((await verify(directory, { checkpointPath: path })).findings.list).toMatchObject([{ kind: 'checkpoint' }]);
    writeFileSync(path, '');
    await expect(verify(directory, { checkpointPath: path })).rejects.toThrow(/no checkpoint in it/);
  });
});

describe('the journal behind the store', () => {
  async function withJournal(records: readonly LogRecord[]): Promise<string> {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty));
    writeSegment(directory, records, { first: records[0]!.sequence });
    return directory;
  }

  test('goes on where the store ends', async () => {
    const directory = await withJournal([21, 22].map((sequence) => decisionRecord({ sequence })));
    expect(await verify(directory)).toMatchObject({ journalRecords: 2, findings: { total: 0 } });
  });

  test('a hole in it, or before it, is found', async () => {
    expect((await verify(await withJournal([21, 23].map((sequence) => decisionRecord({ sequence }))))).findings.list).toMatchObject([
      { kind: 'hole', detail: expect.stringContaining('22 to 22') },
    ]);
    expect((await verify(await withJournal([25].map((sequence) => decisionRecord({ sequence }))))).findings.list).toMatchObject([
      { kind: 'hole', detail: expect.stringContaining('21 to 24') },
    ]);
  });

  test('a damaged byte in it is found, a torn end is a record on its way', async () => {
    const directory = await withJournal([21, 22, 23].map((sequence) => decisionRecord({ sequence })));
    const path = segmentPath(directory, 0, 21);
    const bytes = readFileSync(path);
    appendFileSync(path, bytes.subarray(32, 60));
    expect((await verify(directory)).findings.total).toBe(0);
    bytes[200]! ^= 1;
    writeFileSync(path, bytes);
    expect((await verify(directory)).findings.list).toMatchObject([
      { kind: 'journal', detail: expect.stringContaining('cannot be read from byte 32') },
    ]);
  });
});

describe('setpoint-agent audit verify', () => {
  test('of a sound log says so and ends with 0, of another with 1 and what is wrong', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    const sound = await audit(directory, 'verify');
    expect(sound).toMatchObject({ code: 0, errors: '' });
    expect(sound.output).toMatch(/\nsound\n$/);
    await tamper(directory, (database) => database.tables.records.remove(numberKey(9)));
    const unsound = await audit(directory, 'verify');
    expect(unsound.code).toBe(1);
    expect(unsound.output).toContain(
      'FINDING      missing: entry 9 (0/8) 2026-11-22T10:15:00.000007Z: nothing is stored under these numbers\n',
    );
    expect(unsound.output).toMatch(/NOT SOUND: 1 finding\n$/);
    const json = await audit(directory, 'verify', '--json');
    expect(json.code).toBe(1);
    expect(JSON.parse(json.output)).toMatchObject({
      isSound: false,
      findingCount: 1,
      findings: [{ kind: 'missing', fromIndex: 9, records: ['0/8'] }],
    });
  });

  test('without a public key says what to give', async () => {
    const directory = temporaryDirectory();
    expect(await audit(directory, 'verify')).toMatchObject({ code: 1, errors: expect.stringContaining('--key FILE') });
  });

  test('without a store checks the journal', async () => {
    const directory = temporaryDirectory();
    writeSegment(directory, [decisionRecord({ sequence: 1 }), decisionRecord({ sequence: 3 })], { first: 1 });
    const key = join(directory, 'other');
    await storeAll(key, recordsOf(twenty));
    const { findings, journalRecords } = await verify(directory, { keyPath: publicKeyPath(key) });
    expect(journalRecords).toBe(2);
    expect(findings.list).toMatchObject([{ kind: 'hole' }]);
  });
});
