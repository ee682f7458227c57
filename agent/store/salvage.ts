import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { digestOf } from './chain.ts';
import { decodeEntry, type Entry, framesWithoutTelemetry, wholeFrames } from './entry.ts';
import { isSame } from './keys.ts';
import { MESSAGE_TYPES, type SalvageMessage, SalvageMessages } from './salvage-messages.ts';
import type { RecordToStore } from './writer.ts';

const PROCESS_FILE = fileURLToPath(new URL('salvage-process.ts', import.meta.url));

/** Starts after which the rest counts as lost; and those in a row that may bring nothing, which skip a million entries. */
const MAX_STARTS = 50;
const MAX_IDLE_STARTS = 20;

export interface SalvagedRecord extends RecordToStore {
  /** In the log it comes from. */
  readonly index: number;
  /** Null for that store's own events. */
  readonly stream: number | null;
  readonly epoch: bigint;
  /** 'dropped' also when it could not be read; placeholders stand in the frames then. */
  readonly telemetry: 'kept' | 'dropped' | 'none';
}

/** Indices from..to; `to` is null when it is not known how far the store reached. */
interface LostRange {
  readonly from: number;
  readonly to: number | null;
}

export interface SalvageResult {
  readonly taken: number;
  readonly lost: readonly LostRange[];
}

/**
 * Gives every entry that a damaged store still holds whole to `take`, in the order of its log. The store is read by processes
 * that the damage may kill; each next one starts behind the place where the last one died.
 */
export async function salvage(directory: string, take: (record: SalvagedRecord) => Promise<void>): Promise<SalvageResult> {
  const bounds = { first: 1, last: null as number | null };
  await readWith(directory, 'bounds', async ({ type, numbers: [anchor, head] }) => {
    if (type === MESSAGE_TYPES.bounds && head > 0) Object.assign(bounds, { first: anchor + 1, last: head });
    await Promise.resolve();
  });
  const taker = new Taker(bounds.first, take);
  let from = bounds.first;
  let skip = 1;
  let idle = 0;
  for (let start = 0; start < MAX_STARTS && idle < MAX_IDLE_STARTS; start += 1) {
    if (bounds.last !== null && from > bounds.last) break;
    const before = taker.next;
    const isWhole = await readWith(directory, String(from), async (message) => await taker.message(message));
    const isTelemetryMissing = await taker.flush();
    if (isWhole && (bounds.last === null || taker.next > bounds.last)) break;
    // It died reading the entry behind the last one that came, or the telemetry of that one.
    idle = taker.next > before ? 0 : idle + 1;
    if (idle > 0) skip = Math.max(1, skip * 2);
    else skip = isTelemetryMissing ? 0 : 1;
    from = Math.max(from, taker.next) + skip;
  }
  return taker.result(bounds.last);
}

/** Takes entries as they come, each once, and notes what is missing between them. */
class Taker {
  readonly #take: (record: SalvagedRecord) => Promise<void>;
  readonly #lost: LostRange[] = [];
  #taken = 0;
  /** Arrived without its telemetry, which may follow. */
  #pending: Entry | null = null;
  /** Index behind the last entry that arrived. */
  next: number;

  constructor(first: number, take: (record: SalvagedRecord) => Promise<void>) {
    this.next = first;
    this.#take = take;
  }

  async message({ type, entry: bytes, telemetry }: SalvageMessage): Promise<void> {
    // The process may have been on its way to its death for a while: nothing it says is taken unchecked.
    const entry = decodeEntry(bytes.slice());
    if (type !== MESSAGE_TYPES.entry || entry === null) return;
    if (this.#pending !== null && this.#pending.index === entry.index) {
      await this.#end(telemetry);
      return;
    }
    await this.flush();
    if (entry.index < this.next) return;
    if (entry.index > this.next) this.#lost.push({ from: this.next, to: entry.index - 1 });
    this.next = entry.index + 1;
    this.#pending = entry;
    if (entry.telemetryDigest === null) await this.flush();
  }

  /** Takes an entry that still waits for its telemetry without it; true when there was one. */
  async flush(): Promise<boolean> {
    const isMissing = this.#pending !== null && this.#pending.telemetryDigest !== null;
    if (this.#pending !== null) await this.#end(null);
    return isMissing;
  }

  async #end(telemetry: Uint8Array | null): Promise<void> {
    const entry = this.#pending;
    this.#pending = null;
    if (entry === null) return;
    this.#taken += 1;
    await this.#take(recordOf(entry, telemetry));
  }

  result(last: number | null): SalvageResult {
    const isEnd = last !== null && this.next > last;
    return { taken: this.#taken, lost: isEnd ? this.#lost : [...this.#lost, { from: this.next, to: last }] };
  }
}

function recordOf(entry: Entry, telemetry: Uint8Array | null): SalvagedRecord {
  const { index, kind, stream, epoch, sequence, timeMicros, telemetryDigest } = entry;
  const told = { index, kind, stream, epoch, sequence, timeMicros };
  if (telemetryDigest === null) return { ...told, request: entry.request, reply: entry.reply, telemetry: 'none' };
  if (telemetry === null || !isSame(digestOf(telemetry), telemetryDigest)) {
    return { ...told, ...framesWithoutTelemetry(entry), telemetry: 'dropped' };
  }
  return { ...told, ...wholeFrames(entry, telemetry), telemetry: 'kept' };
}

/** Runs one salvage process; true when it came to the end of what there is. */
async function readWith(directory: string, from: string, take: (message: SalvageMessage) => Promise<void>): Promise<boolean> {
  const child = spawn(process.execPath, [PROCESS_FILE, directory, from], { stdio: ['ignore', 'pipe', 'ignore'] });
  const ended = new Promise<boolean>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code) => resolve(code === 0));
  });
  const messages = new SalvageMessages();
  for await (const chunk of child.stdout) {
    for (const message of messages.push(chunk as Buffer)) await take(message);
  }
  return await ended;
}
