import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { genesisLink, linkOf } from '../../../agent/store/chain.ts';
import { checkStore } from '../../../agent/store/check.ts';
import { StoreConflictError } from '../../../agent/store/errors.ts';
import { type StoredRecord, StoreReader } from '../../../agent/store/reader.ts';
import { type StoreHead, StoreWriter } from '../../../agent/store/writer.ts';
import { decodeClientFrame, decodeServerFrame } from '../../../protocol/codec.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { alert, BUNDLE_A, BUNDLE_B, decision, decisions, observation, positionAt, timeOf } from './records.ts';

const NOW_MICROS = timeOf(0);

function newFolder(): string {
  const directory = join(temporaryDirectory(), 'store.d');
  mkdirSync(directory);
  return directory;
}

function openWriter(directory: string, previous: StoreHead | null = null): StoreWriter {
  return StoreWriter.open(directory, { newLog: () => 0x1122_3344_5566_7788n, nowMicros: () => NOW_MICROS, previous });
}

function openReader(directory: string): StoreReader {
  const reader = StoreReader.open(directory);
  if (reader === null) throw new Error('no store');
  onTestFinished(async () => await reader.close());
  return reader;
}

const eventOf = (record: StoredRecord): unknown => JSON.parse(new TextDecoder().decode(record.request));
const all = (reader: StoreReader): StoredRecord[] => [...reader.between(0, Number.MAX_SAFE_INTEGER)];

async function expectSound(directory: string): Promise<void> {
  expect((await checkStore(directory)).findings).toEqual([]);
}

describe('a store', () => {
  test('gives back every record exactly, by each of its indices, after it was opened again', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    const outputs = [{ name: 'y', datatype: 'FP32', shape: [2], bytes: Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 8) }] as const;
    const records = [
      decision(1, { outputs }),
      observation(2, 'LOT0.1'),
      alert(3),
      decision(4, { bundleId: BUNDLE_B, substrateId: 'LOT0.1' }),
    ];
    expect(await writer.append(records, positionAt(4))).toBe(4);
    await writer.close();
    const reader = openReader(directory);
    expect(all(reader).slice(1)).toMatchObject(records.map((record, at) => ({ ...record, index: at + 2, stream: 0, epoch: 7n })));
    expect(all(reader).map(({ telemetry }) => telemetry)).toEqual(['none', 'kept', 'none', 'none', 'kept']);
    expect([...reader.bySubstrate('LOT0.1')].map(({ sequence }) => sequence)).toEqual([1, 2, 4]);
    expect([...reader.byBundle(BUNDLE_B, 0, Infinity)]).toMatchObject([records[3]!]);
    expect([...reader.byBundle(BUNDLE_A, timeOf(1), timeOf(1))]).toMatchObject([records[0]!]);
    expect([...reader.byBundle(BUNDLE_A, timeOf(2), Infinity)]).toEqual([]);
    expect(records.map(({ sequence }) => reader.bySequence(0, sequence))).toMatchObject(records);
    expect(reader.bySequence(0, 5)).toBeNull();
    expect(reader.bySequence(1, 1)).toBeNull();
    expect([...reader.bySubstrate('LOT0')]).toEqual([]);
    expect(reader.positions()).toEqual([positionAt(4)]);
    await expectSound(directory);
  });

  test('begins with an entry that names the log before', async () => {
    const directory = newFolder();
    const link = new Uint8Array(32).fill(9);
    await openWriter(directory, { log: 0xabn, index: 41, link }).close();
    const reader = openReader(directory);
    expect(reader.head()).toMatchObject({ log: 0x1122_3344_5566_7788n, index: 1 });
    expect(reader.anchor()).toBeNull();
    const [begun] = all(reader);
    expect(begun).toMatchObject({ index: 1, kind: 5, stream: null, timeMicros: NOW_MICROS, telemetry: 'none' });
    expect(eventOf(begun!)).toEqual({ event: 'begun', previous: { log: '00000000000000ab', index: 41, link: '09'.repeat(32) } });
  });

  test('links every entry to the one before, across batches and restarts', async () => {
    const directory = newFolder();
    const first = openWriter(directory);
    await first.append(decisions(1, 5), positionAt(5));
    await first.append(decisions(6, 9), positionAt(9));
    await first.close();
    const second = openWriter(directory);
    expect(second.head.index).toBe(10);
    await second.append(decisions(10, 12), positionAt(12));
    const { head } = second;
    await second.close();
    let link: Uint8Array = genesisLink(head.log);
    for (const { bytes } of openReader(directory).entries(1)) {
      const stored = bytes.slice(0, 32);
      link = linkOf(bytes, link);
      expect(link).toEqual(stored);
    }
    expect(link).toEqual(head.link);
  });

  test('reads on from where its position says, one position for each stream', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    await writer.append(decisions(1, 3), positionAt(3));
    await writer.append([], positionAt(3, { segment: 4, offset: 32 }));
    await writer.append([alert(1)], positionAt(9, { stream: 5 }));
    expect(writer.position(0)).toEqual(positionAt(3, { segment: 4, offset: 32 }));
    expect(writer.position(1)).toBeNull();
    await writer.close();
    const again = openWriter(directory);
    expect(again.positions()).toEqual([positionAt(3, { segment: 4, offset: 32 }), positionAt(9, { stream: 5 })]);
    await again.close();
  });

  test('leaves out a record that it has, and refuses another one under its number', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    const records = [...decisions(1, 5), decision(8)];
    await writer.append(records, positionAt(8));
    expect(await writer.append([...records.slice(2), decision(9)], positionAt(9))).toBe(1);
    expect(writer.head.index).toBe(8);
    const other = decision(4, { substrateId: 'another' });
    await expect(writer.append([other], positionAt(9))).rejects.toThrow(StoreConflictError);
    await expect(writer.append([other], positionAt(9))).rejects.toThrow(
      'Cannot store record 4 of stream 0: another one is stored under its number',
    );
    // Equal but for its features, which only the digest tells apart.
    await expect(writer.append([decision(4, { featureCount: 85 })], positionAt(9))).rejects.toThrow(StoreConflictError);
    await expect(writer.append([{ ...decision(4), timeMicros: 5 }], positionAt(9))).rejects.toThrow(StoreConflictError);
    await expect(writer.append([decision(7)], positionAt(9))).rejects.toThrow(StoreConflictError);
    await expect(writer.append([decision(11), decision(10)], positionAt(11))).rejects.toThrow('it follows record 11');
    await expect(writer.append([decision(12)], positionAt(11))).rejects.toThrow('its position says that 11 is the last');
    expect(await writer.append([decision(10)], positionAt(10))).toBe(1);
    await writer.close();
    await expectSound(directory);
  });

  test('takes the same numbers again from a stream that was begun anew, and finds the newest', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    await writer.append(decisions(1, 5), positionAt(5));
    expect(await writer.append(decisions(1, 3, { substrateId: 'anew' }), positionAt(3, { epoch: 1n }))).toBe(3);
    await writer.close();
    const reader = openReader(directory);
    expect([1, 3, 4, 5, 6].map((sequence) => reader.bySequence(0, sequence)?.epoch)).toEqual([1n, 1n, 7n, 7n, undefined]);
    await expectSound(directory);
  });

  test('finds numbers among those of other streams and behind missing ones, over many blocks', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    for (let at = 0; at < 30; at += 1) {
      await writer.append(decisions(at * 110 + 1, at * 110 + 100), positionAt(at * 110 + 100));
      await writer.append(decisions(at * 20 + 1, at * 20 + 20, { stream: 1, bundleId: BUNDLE_B }), positionAt(at * 20 + 20, { stream: 1 }));
    }
    await writer.close();
    const reader = openReader(directory);
    for (const sequence of [1, 100, 1651, 3290]) expect(reader.bySequence(0, sequence)).toMatchObject(decision(sequence));
    for (const sequence of [101, 110, 3291]) expect(reader.bySequence(0, sequence)).toBeNull();
    expect(reader.bySequence(1, 333)).toMatchObject(decision(333, { stream: 1, bundleId: BUNDLE_B }));
    expect([...reader.byBundle(BUNDLE_B, 0, Infinity)]).toHaveLength(600);
    expect([...reader.byBundle(BUNDLE_A, timeOf(1000), timeOf(2000))]).toHaveLength(911);
    expect(all(reader).map(({ index }) => index)).toEqual(Array.from({ length: 3601 }, (_, at) => at + 1));
    await expectSound(directory);
  });

  test('keeps substrates apart whose names begin alike or hold zeros', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    const names = ['', 'W', 'W1', 'W\0', 'W\0\0\0\0\0\0\0\0\x02', '\u{1f4a0}', 'W'.repeat(255)];
    await writer.append(
      names.map((substrateId, at) => decision(at + 1, { substrateId })),
      positionAt(names.length),
    );
    await writer.close();
    const reader = openReader(directory);
    for (const [at, name] of names.entries()) expect([...reader.bySubstrate(name)].map(({ sequence }) => sequence)).toEqual([at + 1]);
    await expectSound(directory);
  });

  test('keeps states and checkpoints, which are no entries', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    await writer.putState('counters', { a: [1, null, 'ü'] });
    await writer.putState('counters', { a: 2 });
    await writer.putCheckpoint(1, Uint8Array.of(1, 2, 3));
    expect(writer.getState('counters')).toEqual({ a: 2 });
    expect(writer.getState('slots')).toBeNull();
    expect(writer.head.index).toBe(1);
    await writer.close();
    const reader = openReader(directory);
    expect(reader.state('counters')).toEqual({ a: 2 });
    expect([...reader.checkpoints()].map(({ index, bytes }) => [index, ...bytes])).toEqual([[1, 1, 2, 3]]);
    await expectSound(directory);
  });

  test('calls that do not wait for each other are done one after the other', async () => {
    const directory = newFolder();
    const writer = openWriter(directory);
    const counts = await Promise.all([
      writer.append(decisions(1, 10), positionAt(10)),
      writer.append(decisions(11, 20), positionAt(20)),
      writer.appendEvent({ event: 'lost', stream: 0, from: 21, to: 25, reason: 'journal_damaged', detail: 'x' }),
      writer.append(decisions(5, 10), positionAt(20)).catch(() => -1),
      writer.append(decisions(26, 30), positionAt(30)),
    ]);
    expect(counts).toEqual([10, 10, undefined, 0, 5]);
    expect(writer.head.index).toBe(27);
    await writer.close();
    await expectSound(directory);
  });
});

describe('dropping', () => {
  async function filled(directory: string, count: number): Promise<StoreWriter> {
    const writer = openWriter(directory);
    for (let from = 1; from <= count; from += 700) {
      const to = Math.min(count, from + 699);
      await writer.append(decisions(from, to), positionAt(to));
    }
    return writer;
  }

  test('telemetry leaves the audit and the chain, says so in an entry, and gives pages back', async () => {
    const directory = newFolder();
    const writer = await filled(directory, 2000);
    const before = writer.usage();
    expect(before).toMatchObject({
      entries: 2001,
      firstIndex: 1,
      telemetryFirstIndex: 2,
      oldestTelemetryMicros: timeOf(1),
      oldestMicros: NOW_MICROS,
    });
    expect(await writer.dropTelemetry({ maxRecords: 1200 }, 'size')).toBe(1200);
    const after = writer.usage();
    expect(after).toMatchObject({ entries: 2004, firstIndex: 1, telemetryFirstIndex: 1202, oldestTelemetryMicros: timeOf(1201) });
    expect(after.usedBytes).toBeLessThan(before.usedBytes * 0.8);
    await writer.close();
    const reader = openReader(directory);
    const dropped = reader.bySequence(0, 1200);
    expect(dropped).toMatchObject({ telemetry: 'dropped', kind: 1 });
    expect(decodeClientFrame(dropped!.request)).toMatchObject({ context: { substrateId: 'LOT48.0' } });
    expect(decodeServerFrame(dropped!.reply)).toMatchObject({ sequence: 1200, outputs: null });
    expect(reader.bySequence(0, 1201)).toMatchObject({ ...decision(1201), telemetry: 'kept' });
    expect(
      all(reader)
        .filter(({ kind }) => kind === 5)
        .map(eventOf)
        .slice(1),
    ).toEqual([
      { event: 'dropped', what: 'telemetry', fromIndex: 2, toIndex: 501, count: 500, reason: 'size' },
      { event: 'dropped', what: 'telemetry', fromIndex: 502, toIndex: 1001, count: 500, reason: 'size' },
      { event: 'dropped', what: 'telemetry', fromIndex: 1002, toIndex: 1201, count: 200, reason: 'size' },
    ]);
    await expectSound(directory);
  });

  test('by age stops at the first that is young enough', async () => {
    const directory = newFolder();
    const writer = await filled(directory, 100);
    expect(await writer.dropTelemetry({ olderThanMicros: timeOf(41), maxRecords: 500 }, 'age')).toBe(40);
    expect(await writer.dropTelemetry({ olderThanMicros: timeOf(41), maxRecords: 500 }, 'age')).toBe(0);
    expect(writer.usage().telemetryFirstIndex).toBe(42);
    expect(await writer.dropRecords({ olderThanMicros: timeOf(21), maxRecords: 500 }, 'age')).toBe(21);
    expect(await writer.dropRecords({ olderThanMicros: timeOf(21), maxRecords: 500 }, 'age')).toBe(0);
    expect(writer.usage()).toMatchObject({ firstIndex: 22, entries: 82, telemetryFirstIndex: 42 });
    await writer.close();
    await expectSound(directory);
  });

  test('records leaves an anchor that the rest is linked to, and nothing that leads to them', async () => {
    const directory = newFolder();
    const writer = await filled(directory, 3000);
    await writer.putCheckpoint(10, Uint8Array.of(1));
    await writer.putCheckpoint(2501, Uint8Array.of(2));
    const before = openReader(directory);
    const anchorLink = [...before.entries(2500)][0]!.bytes.slice(0, 32);
    expect(await writer.dropRecords({ maxRecords: 2500 }, 'size')).toBe(2500);
    expect(writer.usage()).toMatchObject({ firstIndex: 2501, telemetryFirstIndex: 2501, oldestMicros: timeOf(2500) });
    expect(await writer.append([decision(10), decision(3001)], positionAt(3001))).toBe(1);
    await writer.close();
    const reader = openReader(directory);
    expect(reader.anchor()).toEqual({ log: 0x1122_3344_5566_7788n, index: 2500, link: anchorLink });
    const [first] = reader.entries(1);
    expect(first?.index).toBe(2501);
    expect(linkOf(first!.bytes, anchorLink)).toEqual(first!.bytes.slice(0, 32));
    expect(reader.bySequence(0, 2499)).toBeNull();
    expect(reader.bySequence(0, 2500)).toMatchObject(decision(2500));
    expect([...reader.bySubstrate('LOT99.24')]).toHaveLength(0);
    expect([...reader.bySubstrate('LOT100.1')]).toHaveLength(1);
    expect([...reader.byBundle(BUNDLE_A, 0, Infinity)]).toHaveLength(502);
    expect([...reader.checkpoints()].map(({ index }) => index)).toEqual([2501]);
    await expectSound(directory);
  });

  test('never leaves a store without its last entry, and goes on after a restart', async () => {
    const directory = newFolder();
    const writer = await filled(directory, 20);
    expect(await writer.dropRecords({ maxRecords: 20 }, 'size')).toBe(20);
    await writer.close();
    const again = openWriter(directory);
    expect(again.usage()).toMatchObject({ firstIndex: 21, entries: 2, oldestTelemetryMicros: timeOf(20) });
    await again.append(decisions(21, 30), positionAt(30));
    await again.close();
    await expectSound(directory);
    expect(openReader(directory).bySequence(0, 25)).toMatchObject(decision(25));
  });
});

test('usage can be asked between any number of commits: no look keeps a reader slot', async () => {
  const directory = newFolder();
  const writer = openWriter(directory);
  // More looks than there are slots, each of another state: one that stayed open would keep its own.
  for (let look = 1; look <= 80; look++) {
    await writer.append([decision(look)], positionAt(look));
    expect(writer.usage()).toMatchObject({ entries: look + 1, telemetryFirstIndex: 2 });
  }
  await writer.close();
});
