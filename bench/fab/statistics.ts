import { build, type Histogram } from 'hdr-histogram-js';
import type { Action } from '../../protocol/frames.ts';

export interface Percentiles {
  readonly count: number;
  readonly p50Micros: number;
  readonly p99Micros: number;
  readonly p999Micros: number;
}

export interface Alert {
  readonly atMillis: number;
  readonly text: string;
  /** How often in a row. */
  readonly times: number;
}

/** Round trips up to 60 s, the longest deadline, to three digits; about 200 KB. */
function histogram(): Histogram {
  return build({ lowestDiscernibleValue: 1, highestTrackableValue: 60_000_000, numberOfSignificantValueDigits: 3 });
}

/** Percentiles of a view are over the last 5 to 10 s: two windows, of which the older is dropped. */
const WINDOW_MILLIS = 5000;
/** Weight of the newest run in the mean control error: about the last 200 runs count. */
const ERROR_WEIGHT = 0.01;

/** What one tool's controller has seen. */
export class LineStatistics {
  readonly total = histogram();
  readonly #windows: [Histogram, Histogram] = [histogram(), histogram()];
  readonly #startedMillis: [number, number] = [0, 0];
  readonly actions: Record<Action | 'local', number> = { model: 0, clamped: 0, fallback: 0, local: 0 };
  observations = 0;
  observationsLost = 0;
  maintenances = 0;
  /** Mean distance of the true value from the target, value unit. */
  controlError: number | null = null;

  get predictions(): number {
    const { model, clamped, fallback, local } = this.actions;
    return model + clamped + fallback + local;
  }

  /** @param roundTripMicros counts only where the agent answered */
  answered(action: Action | 'local', roundTripMicros: number, nowMillis: number): void {
    this.actions[action]++;
    if (action === 'local') return;
    const micros = Math.max(1, Math.round(roundTripMicros));
    this.total.recordValue(micros);
    this.#turn(nowMillis);
    this.#windows[0].recordValue(micros);
  }

  processed(distanceFromTarget: number): void {
    const size = Math.abs(distanceFromTarget);
    this.controlError = this.controlError === null ? size : this.controlError + ERROR_WEIGHT * (size - this.controlError);
  }

  /** Answers of the last 5 to 10 s, and how many of them came per second. */
  recent(nowMillis: number): Percentiles & { readonly perSecond: number } {
    this.#turn(nowMillis);
    const both = histogram();
    both.add(this.#windows[0]);
    both.add(this.#windows[1]);
    const seconds = Math.max(0.001, (nowMillis - (this.#startedMillis[1] || this.#startedMillis[0])) / 1000);
    return { ...percentilesOf(both), perSecond: both.totalCount / seconds };
  }

  #turn(nowMillis: number): void {
    if (this.#startedMillis[0] === 0) this.#startedMillis[0] = nowMillis;
    if (nowMillis - this.#startedMillis[0] < WINDOW_MILLIS) return;
    this.#windows.reverse();
    this.#windows[0].reset();
    this.#startedMillis[1] = this.#startedMillis[0];
    this.#startedMillis[0] = nowMillis;
  }
}

function percentilesOf(given: Histogram): Percentiles {
  return {
    count: given.totalCount,
    p50Micros: given.getValueAtPercentile(50),
    p99Micros: given.getValueAtPercentile(99),
    p999Micros: given.getValueAtPercentile(99.9),
  };
}

/** Round trips of several lines as one. */
export function merged(lines: readonly LineStatistics[]): Percentiles {
  const sum = histogram();
  for (const line of lines) sum.add(line.total);
  return percentilesOf(sum);
}

/** As many as a person reads at a glance. */
const MAX_ALERTS = 8;

/** The newest alerts; one that repeats is counted instead of listed again. */
export class AlertLog {
  readonly #alerts: Alert[] = [];

  add(text: string, atMillis: number): void {
    const at = this.#alerts.findIndex((alert) => alert.text === text);
    const times = at < 0 ? 1 : (this.#alerts.splice(at, 1)[0]?.times ?? 0) + 1;
    this.#alerts.push({ atMillis, text, times });
    if (this.#alerts.length > MAX_ALERTS) this.#alerts.shift();
  }

  list(): readonly Alert[] {
    return [...this.#alerts];
  }
}
