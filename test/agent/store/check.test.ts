import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { checkStore } from '../../../agent/store/check.ts';
import { StoreDatabase, type Tables } from '../../../agent/store/database.ts';
import { StoreDamagedError } from '../../../agent/store/errors.ts';
import {
  decodeRun,
  encodeHead,
  encodePosition,
  encodeRun,
  HEAD_KEY,
  numberKey,
  positionKey,
  substrateKey,
} from '../../../agent/store/keys.ts';
import { StoreReader } from '../../../agent/store/reader.ts';
import { StoreWriter } from '../../../agent/store/writer.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { BUNDLE_A, decisions, positionAt } from './records.ts';

const CHECK_PROCESS = new URL('../../../agent/store/check-process.ts', import.meta.url).pathname;

/** Entry i is record i - 1. */
async function storeOf(count: number): Promise<string> {
  const directory = join(temporaryDirectory(), 'store');
  mkdirSync(directory);
  const writer = StoreWriter.open(directory, { newLog: () => 3n, nowMicros: () => 1, previous: null });
  await writer.append(decisions(1, count), positionAt(count));
  await writer.putCheckpoint(5, Uint8Array.of(1, 2));
  await writer.close();
  return directory;
}

async function tamper(directory: string, work: (tables: Tables) => void): Promise<void> {
  const database = StoreDatabase.openForWriting(directory);
  await database.transaction(() => work(database.tables));
  await database.close();
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const flipped = (bytes: Uint8Array | null, at: number): Uint8Array => bytes!.with(at, bytes!.at(at)! ^ 4);
const key = numberKey;

interface Tampering {
  readonly name: string;
  readonly work: (tables: Tables) => void;
  /** Parts of the findings, in their order. */
  readonly findings: readonly string[];
  /** What a reader says of record 20 (entry 21), null when it does not notice. */
  readonly says: string | null;
}

const TAMPERINGS: readonly Tampering[] = [
  {
    name: 'a changed entry',
    work: ({ records }) => records.put(key(21), flipped(records.get(key(21)), 140)),
    findings: ['records 21 its bytes are damaged', 'telemetry null it has 50 keys, the entries account for 49'],
    says: 'Cannot read entry 21 of the store: its bytes are damaged',
  },
  {
    name: 'an entry in the place of another',
    work: ({ records }) => records.put(key(21), records.get(key(22))!),
    findings: ['records 21 entry 22 is in its place', 'records 22 its link does not follow'],
    says: 'Cannot read entry 21 of the store: entry 22 is in its place',
  },
  {
    name: 'a missing entry',
    work: ({ records }) => records.remove(key(21)),
    findings: ['records 22 its key follows that of entry 20', 'records 22 its link does not follow'],
    says: 'Cannot read entry 21 of the store: it is missing',
  },
  {
    name: 'a changed link',
    work: ({ records }) => records.put(key(21), flipped(records.get(key(21)), 3)),
    findings: ['records 21 its link does not follow', 'records 22 its link does not follow'],
    says: null,
  },
  {
    name: 'changed telemetry',
    work: ({ telemetry }) => telemetry.put(key(21), flipped(telemetry.get(key(21)), 60)),
    findings: ['telemetry 21 its bytes are damaged'],
    says: 'Cannot read record 20 of stream 0 (entry 21): its features and outputs are damaged',
  },
  {
    name: 'missing telemetry',
    work: ({ telemetry }) => telemetry.remove(key(21)),
    findings: ['telemetry 21 it is missing'],
    says: 'Cannot read record 20 of stream 0 (entry 21): its features and outputs are missing',
  },
  {
    name: 'telemetry of no entry',
    work: ({ telemetry }) => telemetry.put(key(500), Uint8Array.of(1)),
    findings: ['telemetry null it has 51 keys, the entries account for 50'],
    says: null,
  },
  {
    name: 'a missing substrate key',
    work: ({ substrates }) => substrates.remove(substrateKey(text('LOT0.20'), 21)),
    findings: ['substrates 21 its key is missing'],
    says: null,
  },
  {
    name: 'a substrate key that leads elsewhere',
    work: ({ substrates }) => substrates.put(substrateKey(text('LOT0.20'), 22), new Uint8Array(0)),
    findings: ['substrates null it has 51 keys, the entries account for 50'],
    says: 'Cannot read entry 22 of the store: it is not what its index says',
  },
  {
    name: 'a substrate key that leads nowhere',
    work: ({ substrates }) => substrates.put(substrateKey(text('LOT0.20'), 900), new Uint8Array(0)),
    findings: ['substrates null it has 51 keys, the entries account for 50'],
    says: 'Cannot read entry 900 of the store: it is missing',
  },
  ...(['sequences', 'bundles', 'blocks'] as const).flatMap((table): Tampering[] => [
    {
      name: `a changed key of ${table}`,
      work: (tables) => {
        const { key: first, value } = tables[table].first()!;
        tables[table].put(first, flipped(value, 11));
      },
      findings: [`${table} ${table === 'blocks' ? 1 : 2} Cannot read an index`],
      says: 'Cannot read an index of the store: its bytes are damaged',
    },
    {
      name: `a missing key of ${table}`,
      work: (tables) => tables[table].remove(tables[table].first()!.key),
      findings: [`${table} ${table === 'blocks' ? 1 : 2} its key is missing`],
      says: null,
    },
  ]),
  {
    name: 'a run that ends too early',
    work: ({ blocks }) => {
      const { key: first, value } = blocks.first()!;
      blocks.put(first, encodeRun(first, { ...decodeRun(first, value)!, lastIndex: 50 }));
    },
    findings: ['blocks 1 its key does not hold the entries up to 51'],
    says: null,
  },
  {
    name: 'a changed position',
    work: ({ meta }) => meta.put(positionKey(0), flipped(meta.get(positionKey(0)), 30)),
    findings: ['meta null Cannot read a position'],
    says: null,
  },
  {
    name: 'a position before what is stored',
    work: ({ meta }) => meta.put(positionKey(0), encodePosition(positionKey(0), positionAt(40))),
    findings: ['meta null stream 0 is stored up to 50, its position says 40'],
    says: null,
  },
  {
    name: 'a head that is not the last entry',
    work: ({ meta }) => meta.put(HEAD_KEY, encodeHead(HEAD_KEY, { log: 3n, index: 60, link: new Uint8Array(32) })),
    findings: ['records 60 it must be the last entry, entry 51 is'],
    says: null,
  },
  {
    name: 'a head with another link',
    work: ({ meta }) => meta.put(HEAD_KEY, encodeHead(HEAD_KEY, { log: 3n, index: 51, link: new Uint8Array(32) })),
    findings: ['meta 51 the head has another link'],
    says: null,
  },
  {
    name: 'a missing head',
    work: ({ meta }) => meta.remove(HEAD_KEY),
    findings: ['meta null there are entries, but no head'],
    says: null,
  },
  {
    name: 'a changed checkpoint',
    work: ({ checkpoints }) => checkpoints.put(key(5), flipped(checkpoints.get(key(5)), 5)),
    findings: ['checkpoints 5 its bytes are damaged'],
    says: null,
  },
];

/** Everything that a reader can be asked about record 20. */
function read(reader: StoreReader): void {
  reader.bySequence(0, 20);
  for (const found of [
    reader.bySubstrate('LOT0.20'),
    reader.byBundle(BUNDLE_A, 0, Infinity),
    reader.between(0, Infinity),
    reader.checkpoints(),
  ]) {
    for (const _ of found);
  }
}

describe('the check', () => {
  test.each(TAMPERINGS)('finds $name', async ({ work, findings, says }) => {
    const directory = await storeOf(50);
    await tamper(directory, work);
    const result = await checkStore(directory);
    const found = result.findings.map(({ table, index, what }) => `${table} ${index} ${what}`);
    for (const [at, finding] of findings.entries()) expect(found[at]).toContain(finding);
    const reader = StoreReader.open(directory);
    if (says !== null) expect(() => read(reader!)).toThrow(says);
    await reader?.close();
  });

  test('a writer refuses a store whose head does not fit', async () => {
    for (const name of ['a missing head', 'a head that is not the last entry', 'a head with another link', 'a changed position']) {
      const directory = await storeOf(50);
      await tamper(directory, TAMPERINGS.find((tampering) => tampering.name === name)!.work);
      expect(() => StoreWriter.open(directory, { newLog: () => 4n, nowMicros: () => 1, previous: null }), name).toThrow(StoreDamagedError);
    }
  });

  test('a record with damaged telemetry is named', async () => {
    const directory = await storeOf(50);
    await tamper(directory, ({ telemetry }) => telemetry.put(key(21), Uint8Array.of(1)));
    const reader = StoreReader.open(directory);
    expect(() => reader?.bySequence(0, 20)).toThrow(expect.objectContaining({ index: 21, stream: 0, sequence: 20 }));
    await reader?.close();
  });

  test('as a process ends with 0 for a sound store and for none, and with 3 and the findings for a damaged one', async () => {
    const directory = await storeOf(50);
    const run = (folder: string): { status: number | null; stdout: string } =>
      spawnSync(process.execPath, [CHECK_PROCESS, folder], { encoding: 'utf8' });
    expect(run(directory)).toMatchObject({ status: 0, stdout: '{"entries":51,"findings":[]}\n' });
    expect(run(temporaryDirectory())).toMatchObject({ status: 0, stdout: '{"entries":0,"findings":[]}\n' });
    await tamper(directory, ({ telemetry }) => telemetry.remove(key(21)));
    const { status, stdout } = run(directory);
    expect(status).toBe(3);
    expect(JSON.parse(stdout)).toEqual({ entries: 51, findings: [{ table: 'telemetry', index: 21, what: 'it is missing' }] });
    const noise = temporaryDirectory();
    writeFileSync(join(noise, 'data.mdb'), new Uint8Array(100_000).fill(7));
    // LMDB may end the process instead, even while it opens.
    expect([3, null]).toContain(run(noise).status);
  });
});
