import {
  BUCKET_MICROS,
  REASON_NAMES,
  SLOT_FIELD_NAMES,
  THREAD_FIELD_NAMES,
  type SlotField,
  type ThreadField,
  type ThreadMetrics,
} from './metrics.ts';
import { addCounts } from './lifetime-counts.ts';
import type { StatusDetail, StoreView } from './messages.ts';

/** Everything the agent counts, in the Prometheus text format 0.0.4. Names follow its conventions: base units, _total. */

const THREAD_METRICS: Readonly<Record<ThreadField, readonly [string, 'counter' | 'gauge', string]>> = {
  connectionsOpen: ['setpoint_connections_open', 'gauge', 'WebSocket connections now open'],
  connectionsTotal: ['setpoint_connections_total', 'counter', 'WebSocket connections opened'],
  connectionsRefused: ['setpoint_connections_refused_total', 'counter', 'Connections refused at the limit'],
  badFrames: ['setpoint_bad_frames_total', 'counter', 'Frames that could not be read'],
  turns: ['setpoint_turns_total', 'counter', 'Turns of the event loop that answered requests'],
  modelRuns: ['setpoint_model_runs_total', 'counter', 'Runs of models on serving threads; one run may answer a batch'],
  journalRecords: ['setpoint_journal_records_total', 'counter', 'Records written to the journal'],
  journalBytes: ['setpoint_journal_bytes_total', 'counter', 'Bytes written to the journal'],
  journalFailures: ['setpoint_journal_failures_total', 'counter', 'Journal writes or syncs that failed'],
  journalFailing: ['setpoint_journal_failing', 'gauge', 'Serving threads whose journal cannot be written now'],
  ringRecords: ['setpoint_journal_ring_records', 'gauge', 'Records in memory that wait until the journal can be written'],
  recoveredRecords: ['setpoint_journal_recovered_records_total', 'counter', 'Records written late, from memory'],
  lostRecords: ['setpoint_journal_lost_records_total', 'counter', 'Records that were never written; gap records name them'],
  slowReaders: ['setpoint_slow_readers_total', 'counter', 'Connections closed because the peer did not read'],
  httpRequests: ['setpoint_http_requests_total', 'counter', 'HTTP requests'],
};

const SLOT_METRICS: Readonly<Partial<Record<SlotField, readonly [string, string]>>> = {
  errors: ['setpoint_request_errors_total', 'Requests refused with an error'],
  observations: ['setpoint_observations_total', 'Metrology values received'],
  discarded: ['setpoint_late_results_total', 'Model results that came after their deadline and were discarded'],
};

/** The text for all serving threads together, and for the store process. */
export function metricsText(
  threads: readonly ThreadMetrics[],
  slots: readonly string[],
  status: StatusDetail,
  isReady: boolean,
  store: StoreView,
): string {
  const lines: string[] = [];
  const family = (name: string, type: string, help: string): void => {
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  };
  const sum = (value: (thread: ThreadMetrics) => number): number => threads.reduce((total, thread) => total + value(thread), 0);
  family('setpoint_ready', 'gauge', 'Whether every configured slot answers');
  lines.push(`setpoint_ready ${isReady ? 1 : 0}`);
  for (const field of THREAD_FIELD_NAMES) {
    const [name, type, help] = THREAD_METRICS[field];
    family(name, type, help);
    lines.push(`${name} ${sum((thread) => thread.get(field))}`);
  }
  family('setpoint_slot_info', 'gauge', 'The bundle a slot answers from');
  for (const { slot, bundleId, version, state } of status.slots) {
    lines.push(`setpoint_slot_info{slot="${slot}",bundle="${bundleId ?? ''}",version="${version ?? ''}",state="${state}"} 1`);
  }
  family('setpoint_decisions_total', 'counter', 'Decisions by action');
  slots.forEach((slot, index) => {
    for (const action of ['model', 'clamped', 'fallback'] as const) {
      lines.push(`setpoint_decisions_total{slot="${slot}",action="${action}"} ${sum((thread) => thread.slotField(index, action))}`);
    }
  });
  family('setpoint_reasons_total', 'counter', 'Decisions by reason');
  slots.forEach((slot, index) => {
    REASON_NAMES.forEach((reason, at) => {
      const count = sum((thread) => thread.slotReason(index, at));
      if (count > 0) lines.push(`setpoint_reasons_total{slot="${slot}",reason="${reason}"} ${count}`);
    });
  });
  for (const field of SLOT_FIELD_NAMES) {
    const metric = SLOT_METRICS[field];
    if (metric === undefined) continue;
    family(metric[0], 'counter', metric[1]);
    slots.forEach((slot, index) => lines.push(`${metric[0]}{slot="${slot}"} ${sum((thread) => thread.slotField(index, field))}`));
  }
  histogram(lines, threads, slots);
  storeMetrics(lines, store);
  lifetimeMetrics(lines, addCounts(store.lifetime, slots, threads));
  return `${lines.join('\n')}\n`;
}

function histogram(lines: string[], threads: readonly ThreadMetrics[], slots: readonly string[]): void {
  const name = 'setpoint_service_seconds';
  lines.push(`# HELP ${name} Time from frame in to reply handed to the socket`, `# TYPE ${name} histogram`);
  slots.forEach((slot, index) => {
    let cumulative = 0;
    for (let bucket = 0; bucket <= BUCKET_MICROS.length; bucket++) {
      for (const thread of threads) cumulative += thread.slotBucket(index, bucket);
      const bound = BUCKET_MICROS[bucket];
      lines.push(`${name}_bucket{slot="${slot}",le="${bound === undefined ? '+Inf' : bound / 1e6}"} ${cumulative}`);
    }
    const micros = threads.reduce((total, thread) => total + thread.slotMicros(index), 0);
    lines.push(`${name}_sum{slot="${slot}"} ${micros / 1e6}`, `${name}_count{slot="${slot}"} ${cumulative}`);
  });
}

/** A store that is down has only the first two: its last values would be stale. */
function storeMetrics(lines: string[], { report }: StoreView): void {
  if (report === null) return;
  const isUp = report.state !== 'down' && report.state !== 'checking';
  const rows: (readonly [string, 'counter' | 'gauge', string, number])[] = [
    ['setpoint_store_up', 'gauge', 'Whether the store process runs', isUp ? 1 : 0],
    ['setpoint_store_restarts_total', 'counter', 'Restarts of the store process', report.restarts],
  ];
  if (isUp) {
    rows.push(
      ['setpoint_store_waiting', 'gauge', 'Whether the store waits for space or is full', report.state === 'draining' ? 0 : 1],
      ['setpoint_store_entries', 'gauge', 'Entries in the store', report.entries],
      ['setpoint_store_lag_bytes', 'gauge', 'Journal bytes that are not in the store yet', report.lagBytes],
      ['setpoint_store_file_bytes', 'gauge', 'Size of the store on the disk', report.fileBytes],
      ['setpoint_store_used_bytes', 'gauge', 'Pages of the store in use', report.usedBytes],
      ['setpoint_disk_free_bytes', 'gauge', 'Free space where the store is', report.freeBytes],
    );
  }
  for (const [name, type, help, value] of rows) lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, `${name} ${value}`);
}

function lifetimeMetrics(lines: string[], counts: ReturnType<typeof addCounts>): void {
  const name = 'setpoint_lifetime_decisions_total';
  lines.push(`# HELP ${name} Decisions since the data directory was new, over restarts`, `# TYPE ${name} counter`);
  for (const [slot, actions] of Object.entries(counts)) {
    for (const [action, count] of Object.entries(actions)) lines.push(`${name}{slot="${slot}",action="${action}"} ${count}`);
  }
}
