import { build, type Histogram } from 'hdr-histogram-js';
import type { Latency, LoadResult } from './load-jobs.ts';
import { processorMicros } from './processor-time.ts';

/** Histograms count tenths of a microsecond: 60 s then fits 32 bits, which keeps recording cheap. */
const TICKS_PER_MICRO = 10;
const LONGEST_TICKS = 60_000_000 * TICKS_PER_MICRO;

export class LatencyHistogram {
  readonly #histogram: Histogram = build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: LONGEST_TICKS,
    numberOfSignificantValueDigits: 3,
  });

  record(micros: number, count: number): void {
    const ticks = Math.min(LONGEST_TICKS, Math.max(0, Math.round(micros * TICKS_PER_MICRO)));
    this.#histogram.recordValueWithCount(ticks, count);
  }

  /** Null when nothing was recorded. */
  summary(): Latency | null {
    if (this.#histogram.totalCount === 0) return null;
    const at = (percentile: number): number => this.#histogram.getValueAtPercentile(percentile) / TICKS_PER_MICRO;
    return { p50: at(50), p90: at(90), p99: at(99), p999: at(99.9), max: this.#histogram.maxValue / TICKS_PER_MICRO };
  }
}

/** Microseconds of a monotonic clock. */
export function nowMicros(): number {
  return performance.now() * 1000;
}

export interface MeasurementPlan {
  readonly warmupMillis: number;
  readonly durationMillis: number;
  readonly serverPids: readonly number[];
}

/**
 * One measured interval after a warm-up. A request belongs to it when it was sent (open loop: was due) inside it, a
 * reply when it arrived inside it: latency counts the first, the rate counts the second.
 */
export class Measurement {
  readonly startMicros: number;
  readonly endMicros: number;
  readonly #plan: MeasurementPlan;
  readonly #latency = new LatencyHistogram();
  #replies = 0;
  #startUsage: NodeJS.CpuUsage | null = null;
  #startServerMicros: number | null = null;
  #startedMicros = 0;
  #loadShare = 0;
  #serverShare: number | null = null;
  #finishedMicros: number | null = null;

  constructor(plan: MeasurementPlan) {
    this.#plan = plan;
    this.startMicros = nowMicros() + plan.warmupMillis * 1000;
    this.endMicros = this.startMicros + plan.durationMillis * 1000;
  }

  /** Tell the time at every turn: takes the processor times as the interval starts and ends. False once it is over. */
  advance(now: number): boolean {
    if (now < this.startMicros) return true;
    if (this.#startUsage === null) {
      this.#startedMicros = now;
      this.#startUsage = process.cpuUsage();
      this.#startServerMicros = processorMicros(this.#plan.serverPids);
    }
    if (now < this.endMicros) return true;
    if (this.#finishedMicros === null) this.#finish(now, this.#startUsage);
    return false;
  }

  #finish(now: number, startUsage: NodeJS.CpuUsage): void {
    this.#finishedMicros = now;
    const usage = process.cpuUsage(startUsage);
    const elapsedMicros = Math.max(1, now - this.#startedMicros);
    this.#loadShare = (usage.user + usage.system) / elapsedMicros;
    const serverMicros = processorMicros(this.#plan.serverPids);
    if (serverMicros === null || this.#startServerMicros === null) return;
    this.#serverShare = (serverMicros - this.#startServerMicros) / elapsedMicros;
  }

  /** `count` requests that were sent (or due) at `sentMicros` were answered now. */
  answered(sentMicros: number, now: number, count: number): void {
    if (now >= this.startMicros && now < this.endMicros) this.#replies += count;
    if (sentMicros >= this.startMicros && sentMicros < this.endMicros) this.#latency.record(now - sentMicros, count);
  }

  result(details: Partial<Pick<LoadResult, 'sendLagMicros' | 'unanswered' | 'reply'>>): LoadResult {
    const seconds = ((this.#finishedMicros ?? nowMicros()) - this.#startedMicros) / 1e6;
    return {
      replies: this.#replies,
      seconds,
      ratePerSecond: this.#replies / seconds,
      unanswered: details.unanswered ?? 0,
      latencyMicros: this.#latency.summary(),
      sendLagMicros: details.sendLagMicros ?? null,
      loadShare: this.#loadShare,
      serverShare: this.#serverShare,
      reply: details.reply ?? null,
    };
  }
}
