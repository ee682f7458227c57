import { REASONS, type Reason } from '../../protocol/frames.ts';

/**
 * What a serving thread counts, in shared memory: the thread writes its own block without locks, any thread may read all
 * blocks for /metrics. Float64 holds whole counts up to 2^53. Everything is allocated at start; nothing per request.
 */

/** Upper bounds of the Prometheus latency buckets, microseconds: fine from 10 us to 10 ms, then coarse for a machine in trouble. */
export const BUCKET_MICROS = [
  10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000, 20_000, 50_000, 100_000,
] as const;

export const REASON_NAMES = Object.keys(REASONS) as readonly Reason[];
const REASON_BITS = REASON_NAMES.map((name) => REASONS[name]);

/** Per slot: requests, three actions, errors, observations, discarded late results, model runs and their time, reasons, buckets (+Inf), sum of micros. */
const SLOT_FIELDS = ['requests', 'model', 'clamped', 'fallback', 'errors', 'observations', 'discarded', 'runs', 'runMicros'] as const;
export type SlotField = (typeof SLOT_FIELDS)[number];
const REASONS_AT = SLOT_FIELDS.length;
const BUCKETS_AT = REASONS_AT + REASON_NAMES.length;
const SUM_AT = BUCKETS_AT + BUCKET_MICROS.length + 1;
const SLOT_SIZE = SUM_AT + 1;

const THREAD_FIELDS = [
  'connectionsOpen',
  'connectionsTotal',
  'connectionsRefused',
  'badFrames',
  'turns',
  'modelRuns',
  'journalRecords',
  'journalBytes',
  'journalFailures',
  'journalFailing',
  'ringRecords',
  'recoveredRecords',
  'lostRecords',
  'slowReaders',
  'httpRequests',
] as const;
export type ThreadField = (typeof THREAD_FIELDS)[number];
export const THREAD_FIELD_NAMES: readonly ThreadField[] = THREAD_FIELDS;
export const SLOT_FIELD_NAMES: readonly SlotField[] = SLOT_FIELDS;

/** Service time in buckets 1/32 of a power of two wide (3 % resolution) from 1 us to 2^24 us, for exact percentiles. */
const FINE_OCTAVES = 24;
const FINE_STEPS = 32;
const FINE_SIZE = FINE_OCTAVES * FINE_STEPS;
const FINE_AT = THREAD_FIELDS.length;
const SLOTS_AT = FINE_AT + FINE_SIZE;

const THREAD_INDEX = Object.fromEntries(THREAD_FIELDS.map((field, at) => [field, at])) as Record<ThreadField, number>;
const SLOT_INDEX = Object.fromEntries(SLOT_FIELDS.map((field, at) => [field, at])) as Record<SlotField, number>;

export function metricsBytes(slotCount: number): number {
  return (SLOTS_AT + slotCount * SLOT_SIZE) * Float64Array.BYTES_PER_ELEMENT;
}

function fineBucket(micros: number): number {
  if (micros < 1) return 0;
  const octave = Math.min(31 - Math.clz32(Math.min(micros, 2 ** FINE_OCTAVES)), FINE_OCTAVES - 1);
  const step = Math.floor((micros / 2 ** octave - 1) * FINE_STEPS);
  return octave * FINE_STEPS + Math.min(step, FINE_STEPS - 1);
}

/** Upper edge of a fine bucket, microseconds. */
function fineEdge(bucket: number): number {
  return 2 ** Math.floor(bucket / FINE_STEPS) * (1 + ((bucket % FINE_STEPS) + 1) / FINE_STEPS);
}

/** One serving thread's block. */
export class ThreadMetrics {
  readonly shared: SharedArrayBuffer;
  readonly #cells: Float64Array;

  constructor(shared: SharedArrayBuffer) {
    this.shared = shared;
    this.#cells = new Float64Array(shared);
  }

  add(field: ThreadField, amount = 1): void {
    const at = THREAD_INDEX[field];
    this.#cells[at] = (this.#cells[at] as number) + amount;
  }

  set(field: ThreadField, value: number): void {
    this.#cells[THREAD_INDEX[field]] = value;
  }

  get(field: ThreadField): number {
    return this.#cells[THREAD_INDEX[field]] as number;
  }

  addToSlot(slot: number, field: SlotField, amount = 1): void {
    const at = SLOTS_AT + slot * SLOT_SIZE + SLOT_INDEX[field];
    this.#cells[at] = (this.#cells[at] as number) + amount;
  }

  slotField(slot: number, field: SlotField): number {
    return this.#cells[SLOTS_AT + slot * SLOT_SIZE + SLOT_INDEX[field]] as number;
  }

  /** Counts one answered request: its action (0 model, 1 clamped, 2 fallback), reason bits and service time. */
  answered(slot: number, action: number, reasons: number, micros: number): void {
    const cells = this.#cells;
    const base = SLOTS_AT + slot * SLOT_SIZE;
    cells[base] = (cells[base] as number) + 1;
    cells[base + 1 + action] = (cells[base + 1 + action] as number) + 1;
    if (reasons !== 0) this.#countReasons(base, reasons);
    let bucket = 0;
    while (bucket < BUCKET_MICROS.length && micros > (BUCKET_MICROS[bucket] as number)) bucket++;
    const bucketAt = base + BUCKETS_AT + bucket;
    cells[bucketAt] = (cells[bucketAt] as number) + 1;
    cells[base + SUM_AT] = (cells[base + SUM_AT] as number) + micros;
    const fineAt = FINE_AT + fineBucket(micros);
    cells[fineAt] = (cells[fineAt] as number) + 1;
  }

  #countReasons(base: number, reasons: number): void {
    for (let at = 0; at < REASON_BITS.length; at++) {
      if ((reasons & (REASON_BITS[at] as number)) === 0) continue;
      const cell = base + REASONS_AT + at;
      this.#cells[cell] = (this.#cells[cell] as number) + 1;
    }
  }

  slotReason(slot: number, reason: number): number {
    return this.#cells[SLOTS_AT + slot * SLOT_SIZE + REASONS_AT + reason] as number;
  }

  /** Count in latency bucket `bucket` (not cumulative); BUCKET_MICROS.length is +Inf. */
  slotBucket(slot: number, bucket: number): number {
    return this.#cells[SLOTS_AT + slot * SLOT_SIZE + BUCKETS_AT + bucket] as number;
  }

  slotMicros(slot: number): number {
    return this.#cells[SLOTS_AT + slot * SLOT_SIZE + SUM_AT] as number;
  }

  fineCounts(): Float64Array {
    return this.#cells.subarray(FINE_AT, FINE_AT + FINE_SIZE);
  }
}

export interface ServiceTime {
  readonly count: number;
  readonly p50Micros: number;
  readonly p90Micros: number;
  readonly p99Micros: number;
  readonly p999Micros: number;
  readonly maxMicros: number;
}

/** Percentiles over several threads' fine buckets, less the counts in `since` (the same sum at an earlier time). */
export function serviceTime(threads: readonly ThreadMetrics[], since: Float64Array | null): ServiceTime {
  const counts = sumFine(threads);
  if (since !== null) for (let at = 0; at < counts.length; at++) counts[at] = (counts[at] as number) - (since[at] as number);
  const count = counts.reduce((sum, one) => sum + one, 0);
  const quantile = (fraction: number): number => {
    const rank = Math.ceil(fraction * count);
    let seen = 0;
    for (let at = 0; at < counts.length; at++) {
      seen += counts[at] as number;
      if (seen >= rank && seen > 0) return fineEdge(at);
    }
    return 0;
  };
  return {
    count,
    p50Micros: quantile(0.5),
    p90Micros: quantile(0.9),
    p99Micros: quantile(0.99),
    p999Micros: quantile(0.999),
    maxMicros: quantile(1),
  };
}

export function sumFine(threads: readonly ThreadMetrics[]): Float64Array {
  const total = new Float64Array(FINE_SIZE);
  for (const thread of threads) {
    const counts = thread.fineCounts();
    for (let at = 0; at < FINE_SIZE; at++) total[at] = (total[at] as number) + (counts[at] as number);
  }
  return total;
}
