import autocannon from 'autocannon';
import { type Endpoint, fromBase64, type LoadResult } from './load-jobs.ts';
import type { MeasurementPlan } from './measurement.ts';
import { processorMicros } from './processor-time.ts';

/** autocannon counts by whole seconds and times in whole milliseconds: it gives a rate, and no latency worth printing. */
export async function runAutocannon(
  endpoint: Extract<Endpoint, { transport: 'autocannon' }>,
  connections: number,
  plan: MeasurementPlan,
): Promise<LoadResult> {
  const options = {
    url: endpoint.url,
    method: 'POST',
    headers: endpoint.headers,
    body: Buffer.from(fromBase64(endpoint.body)),
    connections,
  } as const;
  if (plan.warmupMillis > 0) await autocannon({ ...options, duration: plan.warmupMillis / 1000 });
  const usage = process.cpuUsage();
  const serverBefore = processorMicros(plan.serverPids);
  const start = performance.now();
  const result = await autocannon({ ...options, duration: plan.durationMillis / 1000 });
  const elapsedMicros = (performance.now() - start) * 1000;
  const used = process.cpuUsage(usage);
  const serverAfter = processorMicros(plan.serverPids);
  const failures = result.errors + result.timeouts + result.non2xx;
  if (failures > 0) throw new Error(`Cannot go on: ${failures} of ${result.requests.total} HTTP requests failed`);
  return {
    replies: result.requests.total,
    seconds: elapsedMicros / 1e6,
    ratePerSecond: (result.requests.total * 1e6) / elapsedMicros,
    unanswered: 0,
    latencyMicros: null,
    sendLagMicros: null,
    loadShare: (used.user + used.system) / elapsedMicros,
    serverShare: serverBefore === null || serverAfter === null ? null : (serverAfter - serverBefore) / elapsedMicros,
    reply: null,
  };
}
