import { FEATURE_COUNT } from './bench-bundle.ts';
import { checkReply, type Arena, type Contender } from './contenders.ts';
import type { Latency, LoadResult, Pace } from './load-jobs.ts';
import type { BenchOptions } from './options.ts';
import { familyOf } from './processor-time.ts';
import { median, rotated } from './statistics.ts';

/** One thing to measure, once a round. */
export interface Entry {
  readonly contender: Contender;
  readonly pace: Pace;
  readonly before?: () => Promise<void>;
  readonly after?: () => Promise<void>;
}

/** One entry's results, one for each round, in the order of the rounds. */
export class Series {
  readonly results: LoadResult[] = [];

  /** A latency percentile of every round, microseconds. */
  latency(key: keyof Latency): (number | null)[] {
    return this.results.map(({ latencyMicros }) => latencyMicros?.[key] ?? null);
  }

  rates(): number[] {
    return this.results.map(({ ratePerSecond }) => ratePerSecond);
  }

  /**
   * What each round says the server could do with its core to itself: the measured rate, scaled up where the client kept
   * it from using the core.
   */
  capacities(): number[] {
    return this.results.map(({ ratePerSecond, serverShare }) => ratePerSecond / Math.min(1, serverShare ?? 1));
  }

  /** The median over the rounds, without those that have none. */
  median(pick: (result: LoadResult) => number | null): number | null {
    return median(this.results.map(pick).filter((one) => one !== null));
  }
}

/** The model alone: in a loop, and each time after a pause, as a request that finds the agent idle meets it. */
export class ModelAlone {
  readonly loop = new Series();
  readonly rested = new Series();
}

/** Runs every entry once a round, in rotated order, and after each round the model alone. */
export async function runRounds(
  arena: Arena,
  entries: readonly Entry[],
  options: BenchOptions,
  compute: ModelAlone,
): Promise<ReadonlyMap<Entry, Series>> {
  const all = new Map(entries.map((entry) => [entry, new Series()]));
  for (let round = 0; round < options.rounds; round++) {
    process.stderr.write(`round ${round + 1} of ${options.rounds}\n`);
    for (const entry of rotated(entries, round)) all.get(entry)?.results.push(await runEntry(arena, entry, options));
    await runModelAlone(arena, options, compute);
  }
  return all;
}

/** Tells what the machine is like at the moment. */
export async function runModelAlone(arena: Arena, options: BenchOptions, compute: ModelAlone): Promise<void> {
  compute.loop.results.push(await runCompute(arena, options, 0));
  compute.rested.results.push(await runCompute(arena, options, REST_MILLIS));
}

async function runEntry(arena: Arena, { contender, pace, before, after }: Entry, options: BenchOptions): Promise<LoadResult> {
  await before?.();
  const { durationMillis, warmupMillis } = options;
  const { endpoint } = contender;
  const result = await arena.load.run({ task: 'load', endpoint, pace, durationMillis, warmupMillis, serverPids: familyOf(contender.pid) });
  checkReply(contender, result.reply);
  // What the agent's store still has to take over would slow the next contender, the floor among them.
  await contender.settle?.();
  await after?.();
  return result;
}

/** A quarter of a second is 20,000 runs: enough for a median. */
const COMPUTE_MILLIS = 250;

/** A request every 200 us is the open loop's rate. */
const REST_MILLIS = 0.2;

function runCompute(arena: Arena, { durationMillis }: BenchOptions, pauseMillis: number): Promise<LoadResult> {
  return arena.load.run({
    task: 'compute',
    modelFile: arena.model('mlp'),
    inputName: 'features',
    featureCount: FEATURE_COUNT,
    durationMillis: Math.min(COMPUTE_MILLIS, durationMillis),
    pauseMillis,
  });
}
