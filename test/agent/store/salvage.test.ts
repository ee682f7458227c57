import { openSync, readFileSync, truncateSync, writeSync, closeSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type SalvagedRecord, type SalvageResult, salvage } from '../../../agent/store/salvage.ts';
import { encodeMessage, MESSAGE_TYPES, SalvageMessages } from '../../../agent/store/salvage-messages.ts';
import { StoreReader } from '../../../agent/store/reader.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { DROPPED, isRight, LAST, makeStore } from './damaged-store.ts';

/** The begun event, the records, and the event of the drop. */
const ENTRIES = LAST + 2;
const PAGE_BYTES = 4096;

async function salvaged(directory: string): Promise<{ records: SalvagedRecord[]; result: SalvageResult }> {
  const records: SalvagedRecord[] = [];
  const result = await salvage(directory, async (record) => {
    await Promise.resolve();
    records.push(record);
  });
  expect(result.taken).toBe(records.length);
  return { records, result };
}

function overwrite(directory: string, at: number, bytes: Uint8Array): void {
  const descriptor = openSync(join(directory, 'data.mdb'), 'r+');
  writeSync(descriptor, bytes, 0, bytes.length, at);
  closeSync(descriptor);
}

/** What is taken and what is lost make up the whole log, in order, and everything taken is right. */
function expectAccountedFor(records: readonly SalvagedRecord[], { lost }: SalvageResult): void {
  expect(records.filter((record) => !isRight(record))).toEqual([]);
  const covered = [
    ...records.map(({ index }) => ({ from: index, to: index })),
    ...lost.map(({ from, to }) => ({ from, to: to ?? ENTRIES })),
  ].sort((one, other) => one.from - other.from);
  let next = 1;
  for (const { from, to } of covered) {
    expect(from).toBe(next);
    next = to + 1;
  }
  expect(next).toBe(ENTRIES + 1);
  expect(records.every(({ index }, at) => at === 0 || index > (records[at - 1]?.index ?? 0))).toBe(true);
}

describe('salvage', { timeout: 120_000 }, () => {
  test('takes everything from a sound store, exactly', async () => {
    const directory = join(temporaryDirectory(), 'store');
    await makeStore(directory);
    const { records, result } = await salvaged(directory);
    expect(result).toEqual({ taken: ENTRIES, lost: [] });
    expectAccountedFor(records, result);
    expect(records.filter(({ telemetry }) => telemetry === 'dropped')).toHaveLength(DROPPED);
    expect(records[5]).toMatchObject({ index: 6, kind: 1, stream: 0, epoch: 7n, sequence: 5, telemetry: 'dropped' });
  });

  test('leaves out an entry that is damaged, and names it', async () => {
    const directory = join(temporaryDirectory(), 'store');
    await makeStore(directory);
    const file = readFileSync(join(directory, 'data.mdb'));
    const reader = StoreReader.open(directory);
    const [entry] = reader?.entries(301) ?? [];
    await reader?.close();
    const copies: number[] = [];
    for (let at = file.indexOf(entry!.bytes); at >= 0; at = file.indexOf(entry!.bytes, at + 1)) copies.push(at);
    // Older copies of the page may lie in free ones.
    for (const at of copies) overwrite(directory, at + 150, Uint8Array.of((file[at + 150] as number) ^ 1));
    const { records, result } = await salvaged(directory);
    expect(result.lost).toEqual([{ from: 301, to: 301 }]);
    expectAccountedFor(records, result);
  });

  test('goes on behind pages that kill the process that reads them', async () => {
    const directory = join(temporaryDirectory(), 'store');
    await makeStore(directory);
    const pages = statSync(join(directory, 'data.mdb')).size / PAGE_BYTES;
    for (const page of [Math.floor(pages / 4), Math.floor(pages / 2)]) overwrite(directory, page * PAGE_BYTES, new Uint8Array(PAGE_BYTES));
    const { records, result } = await salvaged(directory);
    expectAccountedFor(records, result);
    expect(result.taken).toBeGreaterThan(ENTRIES / 2);
  });

  test('takes what is left of a store whose end is cut off', async () => {
    const directory = join(temporaryDirectory(), 'store');
    await makeStore(directory);
    truncateSync(join(directory, 'data.mdb'), Math.floor(statSync(join(directory, 'data.mdb')).size * 0.9));
    const { records, result } = await salvaged(directory);
    expectAccountedFor(records, result);
    expect(result.lost.length).toBeGreaterThan(0);
  });

  test('says that everything is lost where nothing can be opened', async () => {
    const directory = join(temporaryDirectory(), 'store');
    await makeStore(directory);
    overwrite(directory, 0, new Uint8Array(4 * PAGE_BYTES).fill(0x5a));
    expect((await salvaged(directory)).result).toEqual({ taken: 0, lost: [{ from: 1, to: null }] });
  });

  test('passes on what take() throws', async () => {
    const directory = join(temporaryDirectory(), 'store');
    await makeStore(directory);
    await expect(salvage(directory, () => Promise.reject(new Error('disk full')))).rejects.toThrow('disk full');
  });
});

describe('salvage messages', () => {
  test('arrive whole however their bytes are cut, and a cut one does not', () => {
    const sent = [
      encodeMessage(MESSAGE_TYPES.bounds, [4, 2 ** 50]),
      encodeMessage(MESSAGE_TYPES.entry, [5, 0], Uint8Array.of(1, 2, 3), Uint8Array.of(4)),
      encodeMessage(MESSAGE_TYPES.entry, [6, 0], Uint8Array.of(7)),
    ];
    const bytes = Buffer.concat(sent);
    for (let size = 1; size <= bytes.length; size += 1) {
      const messages = new SalvageMessages();
      const got = [];
      for (let at = 0; at < bytes.length - 1; at += size)
        got.push(...messages.push(bytes.subarray(at, Math.min(at + size, bytes.length - 1))));
      expect(got.map(({ type, numbers }) => [type, ...numbers])).toEqual([
        [2, 4, 2 ** 50],
        [1, 5, 0],
      ]);
      expect([...got[1]!.entry, ...got[1]!.telemetry]).toEqual([1, 2, 3, 4]);
    }
  });
});
