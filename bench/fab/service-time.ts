import type { Percentiles } from './statistics.ts';

/** Cumulative counts of a Prometheus histogram by upper bound, seconds, ascending; the last bound is infinite. */
export type Buckets = readonly (readonly [boundSeconds: number, count: number])[];

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)\{([^}]*)\}\s+(\S+)/;
const BOUND = /(?:^|,)\s*le="([^"]+)"/;

/** Sums the buckets of histogram `name` over all its other labels (Prometheus text format 0.0.4, OpenMetrics alike). */
export function readBuckets(text: string, name: string): Buckets {
  const counts = new Map<number, number>();
  for (const line of text.split('\n')) {
    const match = LINE.exec(line);
    if (match === null || match[1] !== `${name}_bucket`) continue;
    const bound = BOUND.exec(match[2] ?? '')?.[1];
    if (bound === undefined) continue;
    const seconds = bound === '+Inf' ? Infinity : Number(bound);
    counts.set(seconds, (counts.get(seconds) ?? 0) + Number(match[3]));
  }
  return [...counts].sort(([left], [right]) => left - right);
}

/**
 * Percentiles of a histogram, linear inside a bucket as Prometheus' histogram_quantile is; a rank in the infinite bucket
 * is infinite. Null without counts.
 */
export function bucketPercentiles(buckets: Buckets): Percentiles | null {
  const count = buckets.at(-1)?.[1] ?? 0;
  if (count === 0) return null;
  const micros = (fraction: number): number => {
    const rank = fraction * count;
    let lower: readonly [number, number] = [0, 0];
    for (const bucket of buckets) {
      if (bucket[1] >= rank) {
        if (bucket[0] === Infinity) return Infinity;
        return 1e6 * (lower[0] + ((bucket[0] - lower[0]) * (rank - lower[1])) / Math.max(1e-9, bucket[1] - lower[1]));
      }
      lower = bucket;
    }
    return Infinity;
  };
  return { count, p50Micros: micros(0.5), p99Micros: micros(0.99), p999Micros: micros(0.999) };
}
