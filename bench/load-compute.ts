import { readFileSync } from 'node:fs';
import { openSession } from '../agent/infer/session.ts';
import type { ComputeJob, LoadResult } from './load-jobs.ts';
import { Measurement, nowMicros } from './measurement.ts';

const NEVER_WOKEN = new Int32Array(new SharedArrayBuffer(4));

/** Runs between looks at whether the time is over. */
const RUNS_A_TURN = 64;

/** The floor of compute: the model alone, one row a run, by the very call the agent makes, with nothing around it. */
export function runCompute(job: ComputeJob): LoadResult {
  const session = openSession(readFileSync(job.modelFile));
  const data = new Float32Array(job.featureCount);
  const feeds = { [job.inputName]: { type: 'float32', data, dims: [1, job.featureCount], location: 'cpu' } } as const;
  const fetches = Object.fromEntries(session.outputs.map(({ name }) => [name, null]));
  const measurement = new Measurement({ warmupMillis: job.durationMillis / 4, durationMillis: job.durationMillis, serverPids: [] });
  while (measurement.advance(nowMicros())) {
    for (let run = 0; run < RUNS_A_TURN; run++) {
      if (job.pauseMillis > 0) Atomics.wait(NEVER_WOKEN, 0, 0, job.pauseMillis);
      const start = nowMicros();
      session.run(feeds, fetches);
      measurement.answered(start, nowMicros(), 1);
    }
  }
  session.release();
  return measurement.result({});
}
