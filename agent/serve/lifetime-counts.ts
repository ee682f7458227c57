import { z } from 'zod';
import type { ThreadMetrics } from './metrics.ts';

/**
 * What every slot has decided since the data directory was new: the metrics of this process start at zero, an auditor's
 * question does not. The store keeps them; between two reports to it a crash loses at most that interval.
 */
const schema = z.record(z.string(), z.strictObject({ model: z.number(), clamped: z.number(), fallback: z.number() }));

export type LifetimeCounts = Readonly<z.infer<typeof schema>>;

/** What was kept; nothing when it is not readable: counts are a service, not a record. */
export function parseLifetimeCounts(kept: unknown): LifetimeCounts {
  const parsed = schema.safeParse(kept);
  return parsed.success ? parsed.data : {};
}

/** Counts from before this process and of it. Slots that are not configured any more keep theirs. */
export function addCounts(before: LifetimeCounts, slots: readonly string[], threads: readonly ThreadMetrics[]): LifetimeCounts {
  const total: Record<string, { model: number; clamped: number; fallback: number }> = { ...before };
  slots.forEach((slot, index) => {
    const old = before[slot] ?? { model: 0, clamped: 0, fallback: 0 };
    const sum = (field: 'model' | 'clamped' | 'fallback'): number =>
      threads.reduce((count, thread) => count + thread.slotField(index, field), old[field]);
    total[slot] = { model: sum('model'), clamped: sum('clamped'), fallback: sum('fallback') };
  });
  return total;
}
