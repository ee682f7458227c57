import type { StoreSettings } from './settings.ts';
import type { StoreUsage } from './writer.ts';

type RetentionReason = 'age' | 'size';

export type RetentionStep =
  | { readonly action: 'none' }
  /** The cap is reached and nothing may be dropped: take no more. */
  | { readonly action: 'hold' }
  | { readonly action: 'drop_telemetry' | 'drop_records'; readonly reason: RetentionReason; readonly olderThanMicros?: number };

type RetentionSettings = Pick<StoreSettings, 'maxBytes' | 'telemetryMaxAgeMillis' | 'auditMaxAgeMillis' | 'onFull'>;

/** The last entry always stays, and each drop adds its own: with fewer, dropping would go on for ever and free nothing. */
const MIN_ENTRIES = 2;

/**
 * What has to be dropped next, in this order: telemetry that is too old, the oldest telemetry while the cap is exceeded,
 * records that are too old, and, if the site chose so, the oldest records while the cap is exceeded. Pure.
 */
export function nextRetentionStep(settings: RetentionSettings, usage: StoreUsage, nowMicros: number): RetentionStep {
  const { telemetryMaxAgeMillis, auditMaxAgeMillis, maxBytes, onFull } = settings;
  const telemetryLimit = limitMicros(telemetryMaxAgeMillis, nowMicros);
  if (isOlder(usage.oldestTelemetryMicros, telemetryLimit)) {
    return { action: 'drop_telemetry', reason: 'age', olderThanMicros: telemetryLimit };
  }
  const isOver = usage.usedBytes > maxBytes;
  if (isOver && usage.oldestTelemetryMicros !== null) return { action: 'drop_telemetry', reason: 'size' };
  const recordLimit = limitMicros(auditMaxAgeMillis, nowMicros);
  if (isOlder(usage.oldestMicros, recordLimit)) return { action: 'drop_records', reason: 'age', olderThanMicros: recordLimit };
  if (!isOver) return { action: 'none' };
  return onFull === 'hold' || usage.entries <= MIN_ENTRIES ? { action: 'hold' } : { action: 'drop_records', reason: 'size' };
}

function limitMicros(maxAgeMillis: number | null, nowMicros: number): number {
  return maxAgeMillis === null ? Number.NEGATIVE_INFINITY : nowMicros - maxAgeMillis * 1000;
}

function isOlder(timeMicros: number | null, limit: number): boolean {
  return timeMicros !== null && timeMicros < limit;
}
