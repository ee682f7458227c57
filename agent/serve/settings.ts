import { join } from 'node:path';
import { SetpointError } from '../../protocol/errors.ts';
import type { Config } from '../config.ts';
import type { StoreSettings } from '../store/settings.ts';
import type { ThreadSettings } from './messages.ts';

/** The configuration as the parts of the agent take it: sizes in bytes, times in milliseconds. */

const MEBIBYTE = 1024 * 1024;
const DAY_MILLIS = 86_400_000;

/**
 * A stream needs room for the file that is written and for one that is being drained.
 * @throws SetpointError invalid_config
 */
export function checkJournalRoom({ journal }: Config, threadCount: number): void {
  const needed = 2 * journal.segmentMebibytes * threadCount;
  if (journal.maxMebibytes >= needed) return;
  throw new SetpointError(
    'invalid_config',
    `Cannot keep the journals of ${threadCount} threads in journal.maxMebibytes ${journal.maxMebibytes}: two segments each take ${needed}`,
    { field: 'journal.maxMebibytes', remedy: 'raise journal.maxMebibytes or lower journal.segmentMebibytes' },
  );
}

/** What a serving thread is started with. @param metrics blocks of all of them, in the order of their streams */
export function threadSettings(
  config: Config,
  software: string,
  port: number,
  stream: number,
  slotNames: readonly string[],
  metrics: readonly SharedArrayBuffer[],
): ThreadSettings {
  return {
    agentId: config.agentId,
    software,
    stream,
    host: config.listen.host,
    port,
    journalDirectory: join(config.dataDir, 'journal'),
    journal: {
      segmentBytes: config.journal.segmentMebibytes * MEBIBYTE,
      maxBytes: Math.floor((config.journal.maxMebibytes * MEBIBYTE) / metrics.length),
      ringBytes: config.journal.ringMebibytes * MEBIBYTE,
    },
    durability: config.durability,
    onJournalFailure: config.onJournalFailure,
    controllerToken: config.controllerToken,
    defaultDeadlineMicros: config.defaultDeadlineMicros,
    maxConnections: config.maxConnections,
    heavyLimit: config.heavy.queueLength + config.heavy.threads,
    slots: slotNames.map((name, index) => ({ name, index })),
    metrics,
  };
}

export function storeSettings({ agentId, dataDir, store }: Config): StoreSettings {
  const millis = (days: number | null): number | null => (days === null ? null : days * DAY_MILLIS);
  return {
    agentId,
    dataDirectory: dataDir,
    maxBytes: store.maxMebibytes * MEBIBYTE,
    telemetryMaxAgeMillis: millis(store.telemetryMaxDays),
    auditMaxAgeMillis: millis(store.auditMaxDays),
    onFull: store.onFull,
    minFreeBytes: store.minFreeMebibytes * MEBIBYTE,
    ballastBytes: store.ballastMebibytes * MEBIBYTE,
    hangMillis: store.hangMillis,
    checkpointIntervalMillis: store.checkpointSeconds * 1000,
  };
}
