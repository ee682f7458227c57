import { median, ratio } from './statistics.ts';

/** What the store bench sees of agent and store process once a second, and what the series says. Pure. */

export interface StoreSample {
  /** Since the measured interval began. */
  readonly seconds: number;
  /** Answers since then. */
  readonly answered: number;
  /** Bytes the serving threads wrote to their journals since the agent started. */
  readonly journalBytes: number | null;
  /** Index of the last entry in the store. */
  readonly headIndex: number;
  /** When that entry was committed, by the store's clock; null before the first commit. */
  readonly commitMillis: number | null;
  readonly lagBytes: number;
  readonly fileBytes: number;
  readonly usedBytes: number;
  readonly agentBytes: number | null;
  readonly storeBytes: number | null;
  readonly storeMappedBytes: number | null;
  readonly dropped: { readonly telemetry: number; readonly records: number; readonly lost: number };
}

/** The rate between each sample and the one before; null for the first and where nothing moved the clock. */
function ratesOf<Item>(
  items: readonly Item[],
  time: (item: Item) => number | null,
  value: (item: Item) => number | null,
): (number | null)[] {
  return items.map((item, index) => {
    const before = items[index - 1];
    if (before === undefined) return null;
    const [from, to, first, last] = [time(before), time(item), value(before), value(item)];
    return from === null || to === null || first === null || last === null ? null : ratio(last - first, to - from);
  });
}

/** Answers a second, one for each sample. */
export function answerRates(samples: readonly StoreSample[]): (number | null)[] {
  return ratesOf(
    samples,
    ({ seconds }) => seconds,
    ({ answered }) => answered,
  );
}

/**
 * Entries a second, one for each sample, from commit to commit by the store's own clock: it reports once a second, not in step
 * with the samples, so counting by ours would see 0 now and twice as many then.
 */
export function storeRates(samples: readonly StoreSample[]): (number | null)[] {
  return ratesOf(
    samples,
    ({ commitMillis }) => (commitMillis === null ? null : commitMillis / 1000),
    ({ headIndex }) => headIndex,
  );
}

/** Entries a second from the first commit seen to the last one: what a median of rates must agree with. */
export function meanStoreRate(samples: readonly StoreSample[]): number | null {
  const committed = samples.filter(({ commitMillis }) => commitMillis !== null);
  const ends = [committed[0], committed.at(-1)].filter((one) => one !== undefined);
  return storeRates(ends)[1] ?? null;
}

export function medianOf(values: readonly (number | null)[]): number | null {
  return median(values.filter((one) => one !== null));
}

/** Bytes in the journals a second, over the whole series. */
export function journalRate(samples: readonly StoreSample[]): number | null {
  const ends = [samples[0], samples.at(-1)].filter((one) => one !== undefined);
  const [, rate] = ratesOf(
    ends,
    ({ seconds }) => seconds,
    ({ journalBytes }) => journalBytes,
  );
  return rate ?? null;
}

/** The median of the slopes between all pairs of points (Theil and Sen): one odd sample does not tilt it. Null below two points. */
export function slope(points: readonly (readonly [number, number])[]): number | null {
  const slopes = points.flatMap(([x, y], index) => points.slice(index + 1).map(([laterX, laterY]) => (laterY - y) / (laterX - x)));
  return median(slopes);
}

/** All pairs of a longer series would be too many: a soak can last for days. */
const MOST_POINTS = 600;

/** Growth of what is not in the store yet, as a share of what is written; above 0.02 the store is not keeping up. */
export function lagGrowth(samples: readonly StoreSample[]): number | null {
  return ratio(slope(thinned(samples, MOST_POINTS).map(({ seconds, lagBytes }) => [seconds, lagBytes] as const)), journalRate(samples));
}

/** The median of the second half over the median of the first, each of at least one value; null when a value is missing. */
export function halvesRatio(values: readonly (number | null)[]): number | null {
  const known = values.filter((one) => one !== null);
  if (known.length < 2 || known.length < values.length) return null;
  const middle = Math.floor(known.length / 2);
  return ratio(median(known.slice(middle)), median(known.slice(0, middle)));
}

/** The faster growing one of agent and store process. */
export function memoryGrowth(samples: readonly StoreSample[]): number | null {
  const growths = [halvesRatio(samples.map(({ agentBytes }) => agentBytes)), halvesRatio(samples.map(({ storeBytes }) => storeBytes))];
  const known = growths.filter((one) => one !== null);
  return known.length < growths.length ? null : Math.max(...known);
}

/**
 * The largest file of the last quarter over the largest of the second quarter: the first quarter is for filling the store. Null
 * unless entries or telemetry were dropped between them, for otherwise the cap was not at work.
 */
export function soakFileGrowth(samples: readonly StoreSample[]): number | null {
  const quarter = Math.floor(samples.length / 4);
  const second = samples.slice(quarter, 2 * quarter);
  const last = samples.slice(samples.length - quarter);
  const [before, after] = [second.at(-1), last.at(-1)];
  if (before === undefined || after === undefined || droppedOf(after) <= droppedOf(before)) return null;
  const largest = (some: readonly StoreSample[]): number => Math.max(...some.map(({ fileBytes }) => fileBytes));
  return ratio(largest(last), largest(second));
}

function droppedOf({ dropped }: StoreSample): number {
  return dropped.telemetry + dropped.records;
}

/** At most `limit` items, evenly spaced, with the first and the last. */
export function thinned<Item>(items: readonly Item[], limit: number): Item[] {
  if (items.length <= limit) return [...items];
  return Array.from({ length: limit }, (_, place) => items[Math.round((place * (items.length - 1)) / (limit - 1))]).filter(
    (one) => one !== undefined,
  );
}
