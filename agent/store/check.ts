import { digestOf, genesisLink, LINK_BYTES, linkEntry } from './chain.ts';
import { checked, readAnchor, readHead, readPositions, readTelemetryFirst } from './contents.ts';
import { StoreDatabase, type Table, type Tables } from './database.ts';
import { bundleOf, decodeEntry, type Entry, substrateOf } from './entry.ts';
import { StoreDamagedError } from './errors.ts';
import { blockOf, bundleKey, decodeRun, isSame, numberKey, numberOfKey, type Run, substrateKey, unseal } from './keys.ts';
import { lastRun } from './runs.ts';
import type { StoreHead } from './writer.ts';

/** More would say nothing new about a damaged store. */
const MAX_FINDINGS = 100;

interface Finding {
  /** The sub-database. */
  readonly table: string;
  /** Entry that it is about, null when it is about none. */
  readonly index: number | null;
  readonly what: string;
}

export interface CheckResult {
  /** Entries looked at. */
  readonly entries: number;
  /** Empty for a sound store; at most 100. */
  readonly findings: readonly Finding[];
}

/**
 * Looks at everything a store holds: each entry with its check, link and telemetry, each index in both directions, and what
 * the store says of itself. Sees one snapshot. Damage may kill the process: this belongs into one that may die.
 */
export async function checkStore(directory: string): Promise<CheckResult> {
  let database: StoreDatabase | null = null;
  try {
    database = StoreDatabase.openForReading(directory);
    return database === null ? { entries: 0, findings: [] } : new Check(database.tables).run();
  } catch (error) {
    if (!(error instanceof StoreDamagedError)) throw error;
    return { entries: 0, findings: [{ table: 'meta', index: error.index, what: error.message }] };
  } finally {
    await database?.close();
  }
}

/** Tables whose every key some entry accounts for. */
const COUNTED = ['telemetry', 'substrates', 'sequences', 'bundles', 'blocks'] as const;

interface ExpectedRun {
  readonly first: Entry;
  last: Entry;
  low: number;
  high: number;
  count: number;
  readonly find: () => Run | null;
}

class Check {
  readonly #tables: Tables;
  readonly #findings: Finding[] = [];
  readonly #telemetryFirst: number;
  /** Keys that the entries account for; a table that has more holds keys that lead nowhere. */
  readonly #accounted = { telemetry: 0, substrates: 0, sequences: 0, bundles: 0, blocks: 0 };
  /** Of the block that is walked through. */
  readonly #runs = new Map<string, ExpectedRun>();
  readonly #lastSequences = new Map<string, number>();
  #block = -1;

  constructor(tables: Tables) {
    this.#tables = tables;
    this.#telemetryFirst = readTelemetryFirst(tables);
  }

  run(): CheckResult {
    const head = readHead(this.#tables);
    if (head === null) {
      const hasEntries = this.#tables.records.first() !== null;
      if (hasEntries) this.#find('meta', null, 'there are entries, but no head');
      return { entries: 0, findings: this.#findings };
    }
    const entries = this.#walk(head, readAnchor(this.#tables));
    this.#endBlock();
    for (const name of COUNTED) {
      const { entryCount } = this.#tables[name].stats();
      const count = this.#accounted[name];
      if (entryCount !== count) this.#find(name, null, `it has ${entryCount} keys, the entries account for ${count}`);
    }
    this.#checkPositions();
    this.#checkCheckpoints(head);
    return { entries, findings: this.#findings };
  }

  #find(table: string, index: number | null, what: string): void {
    if (this.#findings.length < MAX_FINDINGS) this.#findings.push({ table, index, what });
  }

  #walk(head: StoreHead, anchor: StoreHead | null): number {
    let link = anchor?.link ?? genesisLink(head.log);
    let next = (anchor?.index ?? 0) + 1;
    let entries = 0;
    for (const { key, value } of this.#tables.records.range()) {
      const index = numberOfKey(key);
      if (key.length !== 8 || index !== next) this.#find('records', index, `its key follows that of entry ${next - 1}`);
      const stored = value.slice(0, LINK_BYTES);
      const entry = decodeEntry(value);
      if (entry === null || entry.index !== index) {
        this.#find('records', index, entry === null ? 'its bytes are damaged' : `entry ${entry.index} is in its place`);
      } else {
        linkEntry(value, link);
        if (!isSame(value.subarray(0, LINK_BYTES), stored)) this.#find('records', index, 'its link does not follow from the entry before');
        this.#checkEntry(entry);
      }
      link = stored;
      next = index + 1;
      entries += 1;
    }
    if (next !== head.index + 1) this.#find('records', head.index, `it must be the last entry, entry ${next - 1} is`);
    else if (!isSame(link, head.link)) this.#find('meta', head.index, 'the head has another link than the last entry');
    return entries;
  }

  #checkEntry(entry: Entry): void {
    if (blockOf(entry.index) !== this.#block) this.#endBlock();
    this.#block = blockOf(entry.index);
    this.#checkTelemetry(entry);
    const substrate = substrateOf(entry.kind, entry.request);
    if (substrate !== null) {
      const value = this.#tables.substrates.get(substrateKey(substrate, entry.index));
      if (value === null) this.#find('substrates', entry.index, 'its key is missing');
      else this.#accounted.substrates += 1;
    }
    const { index, stream, epoch, sequence, timeMicros } = entry;
    const { blocks, bundles } = this.#tables;
    this.#expect('blocks', entry, timeMicros, () => runAt(blocks, numberKey(blockOf(index))));
    const bundleId = bundleOf(entry.kind, entry.reply);
    if (bundleId !== null) {
      const key = bundleKey(bundleId, blockOf(index));
      this.#expect(`bundles ${Buffer.from(bundleId).toString('hex')}`, entry, timeMicros, () => runAt(bundles, key));
    }
    if (stream === null) return;
    const name = `${stream} ${epoch}`;
    this.#expect(`sequences ${name}`, entry, sequence, () => lastRun(this.#tables, stream, epoch, sequence)?.run ?? null);
    const last = this.#lastSequences.get(name);
    if (last !== undefined && last >= sequence) this.#find('records', index, `its sequence ${sequence} follows ${last}`);
    this.#lastSequences.set(name, sequence);
  }

  #checkTelemetry({ index, telemetryDigest }: Entry): void {
    if (telemetryDigest === null) return;
    const telemetry = this.#tables.telemetry.get(numberKey(index));
    if (telemetry !== null) this.#accounted.telemetry += 1;
    if (telemetry === null && index >= this.#telemetryFirst) this.#find('telemetry', index, 'it is missing');
    if (telemetry !== null && index < this.#telemetryFirst) this.#find('telemetry', index, 'it is there, but should have been dropped');
    if (telemetry !== null && !isSame(digestOf(telemetry), telemetryDigest)) this.#find('telemetry', index, 'its bytes are damaged');
  }

  #expect(name: string, entry: Entry, value: number, find: () => Run | null): void {
    const run = this.#runs.get(name);
    if (run === undefined) {
      this.#runs.set(name, { first: entry, last: entry, low: value, high: value, count: 1, find });
      return;
    }
    run.last = entry;
    run.low = Math.min(run.low, value);
    run.high = Math.max(run.high, value);
    run.count += 1;
  }

  /** A run may say more than what is left of it: its oldest entries may have been dropped. */
  #endBlock(): void {
    for (const [name, { first, last, low, high, count, find }] of this.#runs) {
      const table = name.split(' ', 1)[0] as 'blocks' | 'bundles' | 'sequences';
      const run = this.#found(table, first.index, find);
      if (run === null) continue;
      this.#accounted[table] += 1;
      const holds =
        run.firstIndex <= first.index && run.lastIndex === last.index && run.low <= low && run.high >= high && run.count >= count;
      if (!holds) this.#find(table, first.index, `its key does not hold the entries up to ${last.index}`);
    }
    this.#runs.clear();
  }

  #found(table: string, index: number, find: () => Run | null): Run | null {
    try {
      const run = find();
      if (run === null) this.#find(table, index, 'its key is missing');
      return run;
    } catch (error) {
      if (!(error instanceof StoreDamagedError)) throw error;
      this.#find(table, index, error.message);
      return null;
    }
  }

  #checkPositions(): void {
    for (const { stream, epoch, lastSequence } of readPositions(this.#tables)) {
      const last = this.#lastSequences.get(`${stream} ${epoch}`) ?? 0;
      if (last > lastSequence) this.#find('meta', null, `stream ${stream} is stored up to ${last}, its position says ${lastSequence}`);
    }
  }

  #checkCheckpoints(head: StoreHead): void {
    for (const { key, value } of this.#tables.checkpoints.range()) {
      const index = numberOfKey(key);
      if (unseal(key, value) === null) this.#find('checkpoints', index, 'its bytes are damaged');
      if (index > head.index) this.#find('checkpoints', index, 'it is about an entry that does not exist');
    }
  }
}

function runAt(table: Table, key: Uint8Array): Run | null {
  const value = table.get(key);
  return value === null ? null : checked(decodeRun(key, value), 'an index');
}
