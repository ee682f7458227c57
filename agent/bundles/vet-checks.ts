import type { WireTensor } from '../../protocol/datatype.ts';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import type { TensorSchema } from '../../protocol/manifest.ts';
import type { DeclaredTensor, Session } from '../infer/session.ts';
import { toFeeds, toWireTensor } from '../infer/tensor.ts';
import { isMemoryFailure, trimEngineMessage } from './engine-message.ts';
import { compareTensors, type GoldenCase } from './golden.ts';
import { describeDifference } from './tensor-compare.ts';
import { extremeInputs, hasFreeFirstAxis, poisonedRow, splitRows, stackRows } from './vet-inputs.ts';
import type { VetHeader } from './vet-protocol.ts';

/** The steps of a vetting that run the model. Only the vet process calls these. */

/** Rows that the batch check stacks. */
const BATCH_ROWS = 8;
/** Runs before the measured ones: the engine's memory plan and the JavaScript compiler settle within them. */
const WARM_UP_RUNS = 100;
/** Runs of a block. Two of them are above the p99. */
const BLOCK_RUNS = 200;
/** The block with the lowest p99 counts: other work on the machine makes a block slower, never faster. */
const BLOCKS = 3;
/**
 * More blocks, with pauses, while the median fits the budget and no p99 does: on two busy cores the best of three blocks of a
 * model of 50 us once had a p99 of 435 us, and a false verdict costs the model its place on the serving threads.
 */
const MORE_BLOCKS = 20;
const PAUSE_MILLIS = 25;
/** A model so slow that it cannot do a block in this time is heavy whatever the rest would show. */
const BLOCK_MILLIS = 2000;

function refuse(why: string): never {
  throw new SetpointError('invalid_bundle', why);
}

/** Runs the model and returns every output. */
function run(session: Session, inputs: readonly WireTensor[]): WireTensor[] {
  const feeds = toFeeds(inputs);
  const outputs = session.run(feeds, fetchesOf(session));
  return session.outputs.map(({ name }) => {
    const tensor = outputs[name];
    return tensor === undefined ? refuse(`the model gave no output '${name}'`) : toWireTensor(name, tensor);
  });
}

function fetchesOf(session: Session): Record<string, null> {
  return Object.fromEntries(session.outputs.map(({ name }) => [name, null]));
}

/** The manifest must declare exactly what the engine found in the model, in the same order. */
export function checkDeclaration(session: Session, { inputs, outputs }: Pick<VetHeader, 'inputs' | 'outputs'>): void {
  compareDeclared('input', session.inputs, inputs);
  compareDeclared('output', session.outputs, outputs);
}

function compareDeclared(what: string, found: readonly DeclaredTensor[], declared: readonly TensorSchema[]): void {
  if (found.length !== declared.length) refuse(`the model has ${found.length} ${what}s, the manifest declares ${declared.length}`);
  for (const [index, tensor] of found.entries()) {
    const text = describe(tensor);
    const expected = declared[index] === undefined ? 'none' : describe(declared[index]);
    if (text !== expected) refuse(`${what} ${index} of the model is ${text}, the manifest declares ${expected}`);
  }
}

function describe({ name, datatype, shape }: DeclaredTensor): string {
  return `'${name}' ${datatype ?? 'of an unsupported type'} [${shape.join(', ')}]`;
}

/** Returns the largest difference of a float. */
export function checkGolden(session: Session, cases: readonly GoldenCase[], { rtol, atol }: Pick<VetHeader, 'rtol' | 'atol'>): number {
  let maxDifference = 0;
  for (const [index, { inputs, outputs }] of cases.entries()) {
    const got = new Map(runCase(session, inputs, index).map((tensor) => [tensor.name, tensor]));
    for (const want of outputs) {
      const tensor = got.get(want.name);
      if (tensor === undefined) refuse(`golden case ${index} names output '${want.name}', which the model does not have`);
      const difference = describeDifference(tensor, want, rtol, atol);
      if (difference.message !== null) refuse(`golden case ${index} does not hold: output ${difference.message}`);
      maxDifference = Math.max(maxDifference, difference.maxDifference);
    }
  }
  return maxDifference;
}

function runCase(session: Session, inputs: readonly WireTensor[], index: number): WireTensor[] {
  const given = inputs.map(({ name }) => name).sort();
  const wanted = session.inputs.map(({ name }) => name).sort();
  if (given.join('\n') !== wanted.join('\n')) {
    refuse(`golden case ${index} gives inputs ${given.join(', ')}, the model takes ${wanted.join(', ')}`);
  }
  try {
    return run(session, inputs);
  } catch (cause) {
    const message = trimEngineMessage(messageOf(cause));
    return refuse(`golden case ${index} does not run: ${message}`);
  }
}

/** Any answer and any exception is fine, as long as there is one; the parent's limits judge the rest. */
export function runExtremes(session: Session, { inputs }: GoldenCase, isUnbounded: boolean, announce: (label: string) => void): void {
  for (const extreme of extremeInputs(inputs, isUnbounded)) {
    announce(extreme.label);
    try {
      run(session, extreme.inputs);
    } catch (cause) {
      const message = messageOf(cause);
      if (isMemoryFailure(message))
        refuse(`with inputs of ${extreme.label} it asks for more memory than is allowed: ${trimEngineMessage(message)}`);
    }
  }
}

export interface BatchCheck {
  readonly isBatchable: boolean;
  /** One row of the golden vectors, where they can be cut into rows. */
  readonly row: readonly WireTensor[] | null;
}

/**
 * A model is batchable when rows in one run give what they give alone, whatever the other rows hold: a row of NaN beside them
 * must not change them either. A free first axis alone does not promise that (it may be time, or be averaged over).
 */
export function checkBatch(session: Session, cases: readonly GoldenCase[], header: VetHeader): BatchCheck {
  if (!hasFreeFirstAxis(header.inputs)) return { isBatchable: false, row: null };
  const rows = cases.flatMap(({ inputs }) => splitRows(inputs, BATCH_ROWS)).slice(0, BATCH_ROWS);
  const [first] = rows;
  if (first === undefined) return { isBatchable: false, row: null };
  try {
    const alone = rows.map((row) => run(session, row));
    const isBatchable =
      hasFreeFirstAxis(header.outputs) && isIndependent(session, [...rows, ...rows.slice(0, 1)], [...alone, ...alone.slice(0, 1)], header);
    return { isBatchable, row: first };
  } catch {
    // The model does not take rows one by one, or not together: it is run as its golden cases are.
    return { isBatchable: false, row: null };
  }
}

function isIndependent(
  session: Session,
  rows: readonly (readonly WireTensor[])[],
  alone: readonly WireTensor[][],
  header: VetHeader,
): boolean {
  const poisoned = rows.map((row, index) => (index === 0 ? poisonedRow(row) : row));
  for (const [batch, from] of [
    [rows, 0],
    [poisoned, 1],
  ] as const) {
    const stacked = stackRows(batch);
    if (stacked === null) return false;
    const together = splitRows(run(session, stacked), batch.length);
    if (together.length !== rows.length) return false;
    for (let row = from; row < rows.length; row += 1) {
      const differs = (together[row] ?? []).some((got, column) => {
        const want = alone[row]?.[column];
        return want === undefined || compareTensors(got, want, header.rtol, header.atol) !== null;
      });
      if (differs) return false;
    }
  }
  return true;
}

export function computeOutputs(session: Session, cases: readonly GoldenCase[]): GoldenCase[] {
  return cases.map(({ inputs }, index) => ({ inputs, outputs: runCase(session, inputs, index) }));
}

export interface RunTiming {
  readonly runMicros: { readonly p50: number; readonly p99: number; readonly max: number };
  readonly runs: number;
}

/** @param budgetMicros the run time that decides the lane */
export function measureRuns(session: Session, inputs: readonly WireTensor[], budgetMicros: number): RunTiming {
  const feeds = toFeeds(inputs);
  const fetches = fetchesOf(session);
  const runOnce = (): void => void session.run(feeds, fetches);
  measureBlock(runOnce, WARM_UP_RUNS);
  let best = summarize(measureBlock(runOnce, BLOCK_RUNS));
  for (let block = 1; block < BLOCKS || (block < MORE_BLOCKS && isUndecided(best, budgetMicros)); block += 1) {
    if (block >= BLOCKS) pause(PAUSE_MILLIS);
    const next = summarize(measureBlock(runOnce, BLOCK_RUNS));
    if (next.runMicros.p99 < best.runMicros.p99) best = next;
  }
  return best;
}

function isUndecided({ runMicros }: RunTiming, budgetMicros: number): boolean {
  return runMicros.p50 <= budgetMicros && runMicros.p99 > budgetMicros;
}

/** Gives the processor to whoever disturbed the measurement. */
function pause(millis: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, millis);
}

/** Times in microseconds; fewer than `runs` where the block's time is up. */
function measureBlock(runOnce: () => void, runs: number): number[] {
  const times: number[] = [];
  const blockStart = performance.now();
  for (let index = 0; index < runs; index += 1) {
    const start = performance.now();
    runOnce();
    const end = performance.now();
    times.push((end - start) * 1000);
    if (end - blockStart > BLOCK_MILLIS) break;
  }
  return times;
}

function summarize(times: readonly number[]): RunTiming {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (quantile: number): number => Math.round((sorted[Math.ceil(quantile * sorted.length) - 1] ?? 0) * 10) / 10;
  return { runMicros: { p50: at(0.5), p99: at(0.99), max: at(1) }, runs: sorted.length };
}
