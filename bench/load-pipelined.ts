import { Measurement, LatencyHistogram, nowMicros, type MeasurementPlan } from './measurement.ts';
import type { LoadResult, Pace } from './load-jobs.ts';
import type { PipelinedConnection } from './raw-client.ts';

/** Closed-loop and open-loop load over raw connections that answer in order. */

/** A server silent for this long has failed. */
const STALL_MILLIS = 5_000;

/** After the interval, requests in flight get this long; then they count as unanswered and as late as that. */
const DRAIN_MICROS = 2_000_000;

/** Batches in flight on one connection: each takes one entry, so no more than the requests in flight. */
const LONGEST_QUEUE = 1024;

/** When requests in flight were sent, oldest first: one entry for all that left in one write. A ring, so nothing moves. */
export class SendTimes {
  readonly #micros = new Float64Array(LONGEST_QUEUE);
  readonly #counts = new Int32Array(LONGEST_QUEUE);
  #head = 0;
  #entries = 0;

  push(micros: number, count: number): void {
    if (this.#entries === LONGEST_QUEUE) throw new Error(`Cannot send more: ${LONGEST_QUEUE} writes are unanswered`);
    const at = (this.#head + this.#entries) % LONGEST_QUEUE;
    this.#micros[at] = micros;
    this.#counts[at] = count;
    this.#entries += 1;
  }

  /** Takes the oldest `count` requests and tells when each group of them was sent. */
  take(count: number, tell: (sentMicros: number, count: number) => void): void {
    let left = count;
    while (left > 0) {
      if (this.#entries === 0) throw new Error('Cannot match a reply: nothing is in flight');
      const waiting = this.#counts[this.#head] ?? 0;
      const taken = Math.min(left, waiting);
      tell(this.#micros[this.#head] ?? 0, taken);
      left -= taken;
      this.#counts[this.#head] = waiting - taken;
      if (taken < waiting) continue;
      this.#head = (this.#head + 1) % LONGEST_QUEUE;
      this.#entries -= 1;
    }
  }
}

/** Sends one request on its own and returns the reply, so that the bench can see that it measures answers, not errors. */
export async function sampleReply(connection: PipelinedConnection): Promise<Uint8Array> {
  const reply = connection.captureReply();
  connection.send(1);
  return reply;
}

/** Keeps `inFlight` requests on the way: k replies in one read let k requests go in one write. */
export async function runClosedLoop(
  connections: readonly PipelinedConnection[],
  inFlight: number,
  plan: MeasurementPlan,
): Promise<LoadResult> {
  const measurement = new Measurement(plan);
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let waiting = 0;
  connections.forEach((connection, index) => {
    const times = new SendTimes();
    const window = Math.floor(inFlight / connections.length) + (index < inFlight % connections.length ? 1 : 0);
    let now = 0;
    const tell = (sentMicros: number, count: number): void => measurement.answered(sentMicros, now, count);
    connection.onFailure = reject;
    connection.onReplies = (count) => {
      now = nowMicros();
      times.take(count, tell);
      if (measurement.advance(now)) {
        times.push(now, count);
        connection.send(count);
        return;
      }
      waiting -= count;
      if (waiting === 0) resolve();
    };
    waiting += window;
    if (window === 0) return;
    times.push(nowMicros(), window);
    connection.send(window);
  });
  const lifeMillis = plan.warmupMillis + plan.durationMillis + STALL_MILLIS;
  const stalled = setTimeout(() => reject(new Error(`Cannot finish: ${waiting} replies are missing after ${lifeMillis} ms`)), lifeMillis);
  try {
    await promise;
  } finally {
    clearTimeout(stalled);
  }
  return measurement.result({});
}

/**
 * One connection's share of a constant rate: request j is due at `start + j * interval`. Replies come in order, so the
 * j-th reply answers the j-th request and its latency counts from when that was due, whenever it really left.
 */
export class Schedule {
  readonly #startMicros: number;
  readonly #intervalMicros: number;
  sent = 0;
  answered = 0;

  constructor(startMicros: number, intervalMicros: number) {
    this.#startMicros = startMicros;
    this.#intervalMicros = intervalMicros;
  }

  dueMicros(request: number): number {
    return this.#startMicros + request * this.#intervalMicros;
  }

  /** Requests that are due by now and not sent, of those due before `endMicros`. */
  dueBy(now: number, endMicros: number): number {
    const last = Math.min(now, endMicros - this.#intervalMicros / 2);
    return Math.max(0, Math.floor((last - this.#startMicros) / this.#intervalMicros) + 1 - this.sent);
  }
}

/**
 * Sends at a constant rate whatever the server does. Timers are too coarse for a request each 200 us, so this process
 * looks at the clock in every turn of its event loop and sends all that is due: it uses one core, by design. With
 * `tickMillis` it sleeps in between and leaves the core to others; requests then leave late by up to that and a timer's error.
 */
export async function runOpenLoop(
  connections: readonly PipelinedConnection[],
  { ratePerSecond, tickMillis }: Extract<Pace, { kind: 'open' }>,
  plan: MeasurementPlan,
): Promise<LoadResult> {
  const measurement = new Measurement(plan);
  const sendLag = new LatencyHistogram();
  const intervalMicros = (connections.length * 1e6) / ratePerSecond;
  const startMicros = nowMicros();
  const schedules = connections.map((_, index) => new Schedule(startMicros + (index * 1e6) / ratePerSecond, intervalMicros));
  const { promise, resolve, reject } = Promise.withResolvers<void>();

  connections.forEach((connection, index) => {
    const schedule = schedules[index];
    if (schedule === undefined) return;
    connection.onFailure = reject;
    connection.onReplies = (count) => {
      const now = nowMicros();
      for (let reply = 0; reply < count; reply++) measurement.answered(schedule.dueMicros(schedule.answered++), now, 1);
    };
  });

  function sendDue(now: number): void {
    for (let index = 0; index < schedules.length; index++) {
      const schedule = schedules[index];
      const due = schedule?.dueBy(now, measurement.endMicros) ?? 0;
      if (schedule === undefined || due === 0) continue;
      for (let request = 0; request < due; request++) {
        const dueMicros = schedule.dueMicros(schedule.sent++);
        if (dueMicros >= measurement.startMicros) sendLag.record(now - dueMicros, 1);
      }
      connections[index]?.send(due);
    }
  }

  function turn(): void {
    const now = nowMicros();
    sendDue(now);
    const running = measurement.advance(now);
    const open = schedules.some((schedule) => schedule.answered < schedule.sent);
    if (!running && !(open && now < measurement.endMicros + DRAIN_MICROS)) resolve();
    else if (tickMillis === 0) setImmediate(turn);
    else setTimeout(turn, tickMillis);
  }
  turn();
  await promise;
  return measurement.result({ sendLagMicros: sendLag.summary(), unanswered: giveUp(schedules, measurement) });
}

/** Requests still in flight count as answered now: leaving them out would hide exactly the slowest. */
function giveUp(schedules: readonly Schedule[], measurement: Measurement): number {
  const now = nowMicros();
  let unanswered = 0;
  for (const schedule of schedules) {
    for (; schedule.answered < schedule.sent; schedule.answered++) {
      measurement.answered(schedule.dueMicros(schedule.answered), now, 1);
      unanswered += 1;
    }
  }
  return unanswered;
}
