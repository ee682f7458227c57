import { rmSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { crc32c } from '../../../agent/journal/crc32c.ts';
import { linkEntry } from '../../../agent/store/chain.ts';
import { checkpointFile } from '../../../agent/store/checkpoint-keeper.ts';
import type { StoreDatabase } from '../../../agent/store/database.ts';
import { decodeEntry } from '../../../agent/store/entry.ts';
import { encodeHead, HEAD_KEY, numberKey } from '../../../agent/store/keys.ts';
import { storeDirectory } from '../../../agent/store/quarantine.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { addCheckpoint, EPOCH, LOG, openWriter, store } from './log-setup.ts';
import { decisionRecord, gapRecord, T0 } from './rows.ts';
import {
  cutCheckpoints,
  cutOff,
  entryAt,
  keepCheckpoint,
  type Kind,
  nameOf,
  recordsOf,
  storeAll,
  tamper,
  twenty,
  verify,
} from './verify-setup.ts';

const planOf = fc.array(
  fc.record({
    kind: fc.constantFrom<Kind>('decision', 'decision', 'observation', 'alert', 'gap'),
    stream: fc.constantFrom(0, 1),
    gap: fc.integer({ min: 1, max: 9 }),
  }),
  { minLength: 3, maxLength: 25 },
);
const at = (fraction: number, length: number): number => Math.min(length - 1, Math.floor(fraction * length));
const fraction = fc.double({ min: 0, max: 1, noNaN: true });

interface Damage {
  /** Changes the database; returns what must be found: kind and entry. */
  readonly [name: string]: (
    database: StoreDatabase,
    entries: number,
    one: number,
    other: number,
    bit: number,
  ) => readonly (readonly [kind: string, index: number])[] | null;
}

const DAMAGE: Damage = {
  'a flipped bit': (database, entries, one, _other, bit) => {
    const index = at(one, entries) + 1;
    const bytes = entryAt(database, index);
    bytes[at(bit, bytes.length)]! ^= 1 << Math.floor(bit * 7.99);
    database.tables.records.put(numberKey(index), bytes);
    return [['changed', index]];
  },
  'a removed entry': (database, entries, one) => {
    const index = at(one, entries) + 1;
    database.tables.records.remove(numberKey(index));
    database.tables.telemetry.remove(numberKey(index));
    return [['missing', index]];
  },
  'two entries swapped': (database, entries, one, other) => {
    const [low, high] = [at(one, entries) + 1, at(other, entries) + 1].toSorted((a, b) => a - b) as [number, number];
    if (low === high) return null;
    const [lowBytes, highBytes] = [entryAt(database, low), entryAt(database, high)];
    database.tables.records.put(numberKey(low), highBytes);
    database.tables.records.put(numberKey(high), lowBytes);
    return [
      ['moved', low],
      ['moved', high],
    ];
  },
  'an entry over another': (database, entries, one, other) => {
    const [from, to] = [at(one, entries) + 1, at(other, entries) + 1];
    if (from === to) return null;
    database.tables.records.put(numberKey(to), entryAt(database, from));
    return [['moved', to]];
  },
  'an entry added at the end': (database, entries, one) => {
    database.tables.records.put(numberKey(entries + 1), entryAt(database, at(one, entries) + 1));
    return [];
  },
};

describe('a change of any one entry of any log', () => {
  test.each(Object.entries(DAMAGE))('%s is named, and nothing else', async (_name, damage) => {
    await fc.assert(
      fc.asyncProperty(planOf, fraction, fraction, fraction, async (plan, one, other, bit) => {
        const directory = temporaryDirectory();
        const records = recordsOf(plan);
        await storeAll(directory, records, 7);
        expect((await verify(directory)).findings).toMatchObject({ total: 0, notes: [] });
        let wanted: readonly (readonly [string, number])[] | null = null;
        await tamper(directory, (database) => {
          wanted = damage(database, records.length + 1, one, other, bit);
        });
        if (wanted === null) return;
        const { findings } = await verify(directory);
        expect(findings.list.map(({ kind, fromIndex }) => [kind, fromIndex])).toEqual(wanted);
        for (const { fromIndex, toIndex, records: names } of findings.list) {
          expect(toIndex).toBe(fromIndex);
          // The first entry is the store's own: it has no name in a stream.
          expect(names).toEqual(fromIndex === 1 ? [] : [nameOf(records[fromIndex! - 2]!)]);
        }
      }),
      { numRuns: 40 },
    );
  });

  test('its features, changed or removed', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 2, max: 21 }), fc.boolean(), fraction, async (index, isRemoved, bit) => {
        const directory = temporaryDirectory();
        await storeAll(directory, recordsOf(twenty));
        await tamper(directory, ({ tables }) => {
          const bytes = Uint8Array.from(tables.telemetry.get(numberKey(index))!);
          bytes[at(bit, bytes.length)]! ^= 4;
          if (isRemoved) tables.telemetry.remove(numberKey(index));
          else tables.telemetry.put(numberKey(index), bytes);
        });
        const { findings } = await verify(directory);
        expect(findings.list.map(({ kind, fromIndex, toIndex }) => [kind, fromIndex, toIndex])).toEqual([
          [isRemoved ? 'missing' : 'changed', index, index],
        ]);
      }),
      { numRuns: 20 },
    );
  });

  test('features where none were', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf([{ kind: 'observation', stream: 0, gap: 1 }]));
    await tamper(directory, ({ tables }) => tables.telemetry.put(numberKey(2), Uint8Array.of(1)));
    expect((await verify(directory)).findings.list).toMatchObject([{ kind: 'changed', fromIndex: 2, records: ['0/1'] }]);
  });
});

/** What somebody does who knows the format, but has not the agent's key: changes an entry and links everything behind it anew. */
async function forge(
  dataDirectory: string,
  index: number,
  change: (bytes: Uint8Array) => void,
  to = Number.POSITIVE_INFINITY,
): Promise<void> {
  await tamper(dataDirectory, (database) => {
    const { records, meta } = database.tables;
    let link = entryAt(database, index - 1).slice(0, 32);
    for (let next = index; next <= to; next++) {
      const value = records.get(numberKey(next));
      if (value === null) {
        meta.put(HEAD_KEY, encodeHead(HEAD_KEY, { log: LOG, index: next - 1, link }));
        return;
      }
      const bytes = Uint8Array.from(value);
      if (next === index) change(bytes);
      linkEntry(bytes, link);
      link = bytes.slice(0, 32);
      records.put(numberKey(next), bytes);
    }
  });
}

/** Another value in a decision, with the check sum made right again. */
function withOtherVersion(bytes: Uint8Array): void {
  const position = Buffer.from(bytes).indexOf('2026.11.1');
  bytes[position] = '9'.charCodeAt(0);
  const view = new DataView(bytes.buffer);
  view.setUint32(32, crc32c(bytes, 36, bytes.length), true);
  expect(decodeEntry(bytes)).not.toBeNull();
}

describe('a forger without the key', () => {
  test('who links everything behind a change anew is found at the next checkpoint, and the range is named', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    // Checkpoints at entries 6, 11, 16 and 21.
    await forge(directory, 9, withOtherVersion);
    const { findings } = await verify(directory);
    expect(findings.list).toMatchObject([{ kind: 'changed', fromIndex: 7, toIndex: 11 }]);
    expect(findings.list[0]!.detail).toContain('linked anew');
    expect(findings.notes).toEqual([expect.stringMatching(/later checkpoints do not agree/)]);
  });

  test('who links only a part anew is found where the part ends', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty));
    await forge(directory, 9, withOtherVersion, 12);
    expect((await verify(directory)).findings.list).toMatchObject([{ kind: 'changed', fromIndex: 13, toIndex: 13 }]);
  });

  test('who makes the check sum right but not the links is found at the entry', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty));
    await tamper(directory, (database) => {
      const bytes = entryAt(database, 9);
      withOtherVersion(bytes);
      database.tables.records.put(numberKey(9), bytes);
    });
    expect((await verify(directory)).findings.list).toMatchObject([
      { kind: 'changed', fromIndex: 9, records: ['0/8'], timeMicros: T0 + 8, detail: 'its link does not follow from the entry before it' },
    ]);
  });

  test('who cuts the end off, head and checkpoints in the store included, is found by the file of checkpoints', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    await cutOff(directory, 13);
    const { findings } = await verify(directory);
    expect(findings.list).toMatchObject([{ kind: 'missing', fromIndex: 14, toIndex: 21 }]);
  });

  test('who cuts off everything that a checkpoint here vouches for is found by one that was kept elsewhere', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    const kept = await keepCheckpoint(directory);
    await cutOff(directory, 13);
    cutCheckpoints(directory, 13);
    expect((await verify(directory)).findings.total).toBe(0);
    expect((await verify(directory, { checkpointPath: kept })).findings.list).toMatchObject([
      { kind: 'missing', fromIndex: 14, toIndex: 21 },
    ]);
  });

  test('who puts a new, empty log in the place of the old one is found by the old checkpoints', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    const kept = await keepCheckpoint(directory);
    rmSync(storeDirectory(directory), { recursive: true });
    const writer = openWriter(directory, null, 0x99n);
    await addCheckpoint(directory, writer, T0 / 1000 + 99);
    await writer.close();
    expect((await verify(directory)).findings.list).toMatchObject([
      { kind: 'missing', detail: expect.stringContaining('does not say that it follows it') },
    ]);
    rmSync(checkpointFile(directory));
    expect((await verify(directory)).findings.total).toBe(0);
    expect((await verify(directory, { checkpointPath: kept })).findings.list.map(({ kind }) => kind)).toEqual(['checkpoint', 'missing']);
  });

  test('a log that was begun anew and says so is sound', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty), 5);
    const before = await verify(directory);
    const kept = await keepCheckpoint(directory);
    rmSync(storeDirectory(directory), { recursive: true });
    const writer = openWriter(directory, before.head, 0x99n);
    await addCheckpoint(directory, writer, T0 / 1000 + 99);
    await writer.close();
    const { findings, checkpoints } = await verify(directory, { checkpointPath: kept });
    expect(findings.list).toEqual([]);
    expect(checkpoints.earlier).toBe(6);
  });

  test('who drops the oldest entries by himself is found, and so is his anchor', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, recordsOf(twenty));
    await tamper(directory, (database) => {
      const link = entryAt(database, 5).slice(0, 32);
      for (let index = 1; index <= 5; index++) {
        database.tables.records.remove(numberKey(index));
        database.tables.telemetry.remove(numberKey(index));
      }
      const key = Buffer.from('anchor');
      database.tables.meta.put(Uint8Array.from(key), encodeHead(Uint8Array.from(key), { log: LOG, index: 5, link }));
    });
    expect((await verify(directory)).findings.list).toMatchObject([{ kind: 'missing', fromIndex: 1, toIndex: 5 }]);
  });
});

describe('the numbers of a stream', () => {
  test('a hole that no record explains is named', async () => {
    const directory = temporaryDirectory();
    await storeAll(directory, [
      decisionRecord({ sequence: 1 }),
      decisionRecord({ sequence: 5 }),
      decisionRecord({ stream: 1, sequence: 3 }),
    ]);
    expect((await verify(directory)).findings.list).toMatchObject([
      { kind: 'hole', fromIndex: 3, records: ['0/2..4'] },
      { kind: 'hole', fromIndex: 4, records: ['1/1..2'] },
    ]);
  });

  test('what a gap record or the store states as lost is no finding, and is listed', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, [decisionRecord({ sequence: 1 }), gapRecord({ from: 2, to: 5 }), decisionRecord({ sequence: 6 })]);
    await writer.appendEvent({ event: 'lost', stream: 0, from: 7, to: 9, reason: 'journal_damaged', detail: 'a file' });
    await writer.appendEvent({ event: 'lost', stream: 0, from: 7, to: 9, reason: 'journal_damaged', detail: 'a file' });
    await store(writer, [decisionRecord({ sequence: 10 })]);
    await addCheckpoint(directory, writer);
    await writer.close();
    const { findings, sequences } = await verify(directory);
    expect(findings.list).toEqual([]);
    expect(sequences.gaps).toMatchObject([
      { stream: 0, from: 2, to: 5, reason: 'disk_full: no space' },
      { stream: 0, from: 7, to: 9 },
      { stream: 0, from: 7, to: 9 },
    ]);
  });

  test('a stream that was begun anew is noted', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(writer, [decisionRecord({ sequence: 1 }), decisionRecord({ sequence: 2 })]);
    await store(writer, [decisionRecord({ sequence: 1, timeMicros: T0 + 9 })], { epoch: EPOCH + 1n });
    await addCheckpoint(directory, writer);
    await writer.close();
    expect((await verify(directory)).findings).toMatchObject({ total: 0, notes: [expect.stringContaining('begun anew')] });
  });
});
