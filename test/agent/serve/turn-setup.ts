import { onTestFinished, vi } from 'vitest';
import type { Journal } from '../../../agent/journal/journal.ts';
import type { RecordKind } from '../../../agent/journal/record.ts';
import { metricsBytes, ThreadMetrics } from '../../../agent/serve/metrics.ts';
import type { Request } from '../../../agent/serve/request.ts';
import type { ServedBundle, Slot } from '../../../agent/serve/slot.ts';
import { Turn, type TurnObservation, type TurnServices } from '../../../agent/serve/turn.ts';
import { encodeFrame } from '../../../protocol/codec.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { predictFrame, RecordingTarget, servedBundle, slotWith, vector } from './served.ts';

/** A turn over fakes that write down the order of what happens. */

export const WALL_MILLIS = 1_795_000_000_000;

/**
 * A journal that writes down what it is asked to do. `cannotWrite` makes the next commits throw; as in the real one, it knows
 * that it fails only after the first.
 */
class FakeJournal {
  readonly stream = 3;
  readonly log: string[];
  readonly kinds: RecordKind[] = [];
  readonly #whenSynced: ((error: SetpointError | null) => void)[] = [];
  cannotWrite = false;
  isFailing = false;
  nextSequence = 1;
  writtenBytes = 0;

  constructor(log: string[]) {
    this.log = log;
  }

  append(kind: RecordKind): void {
    this.kinds.push(kind);
    this.log.push(`append ${this.nextSequence}`);
    this.nextSequence++;
  }

  commit(): void {
    this.log.push('commit');
    this.isFailing = this.cannotWrite;
    if (this.cannotWrite) throw new SetpointError('journal_failed', 'Cannot write the journal of stream 3: no space left');
    this.writtenBytes += 100;
  }

  /** Records of the turn that fails that are in the file all the same: those of a write that came to an end half-way. */
  writtenOfTurn = 0;

  withdrawFrom(sequence: number): number {
    this.log.push(`withdraw ${sequence}`);
    this.nextSequence = sequence + this.writtenOfTurn;
    return this.nextSequence;
  }

  whenSynced(callback: (error: SetpointError | null) => void): void {
    this.#whenSynced.push(callback);
  }

  /** The disk has, or has not, what was committed so far. */
  synced(error: SetpointError | null = null): void {
    this.log.push('synced');
    for (const callback of this.#whenSynced.splice(0)) callback(error);
  }
}

/** An observation that writes down what became of it. */
export function observed(log: string[], bytes: Uint8Array = Uint8Array.of(1)): TurnObservation {
  return {
    bytes,
    journaled: (sequence) => log.push(`journaled ${sequence}`),
    refused: (error) => log.push(`refused ${error.code}`),
  };
}

interface Setup {
  readonly turn: Turn;
  readonly journal: FakeJournal;
  readonly metrics: ThreadMetrics;
  readonly log: string[];
  readonly target: RecordingTarget;
  readonly heavy: Request[];
  readonly alerts: string[];
  readonly failures: string[];
}

export function setUp(services: Partial<TurnServices> = {}): Setup {
  const log: string[] = [];
  const journal = new FakeJournal(log);
  const metrics = new ThreadMetrics(new SharedArrayBuffer(metricsBytes(4)));
  const heavy: Request[] = [];
  const alerts: string[] = [];
  const failures: string[] = [];
  const turn = new Turn({
    journal: journal as unknown as Journal,
    metrics,
    defaultDeadlineMicros: 777_000,
    durability: 'process',
    onJournalFailure: 'serve',
    nowMillis: () => WALL_MILLIS,
    submitHeavy: (request) => heavy.push(request),
    journalFailed: (error, records) => failures.push(`${error.code} ${records}`),
    onDecision: (slot, reasons) => alerts.push(`${slot.name} ${reasons}`),
    ...services,
  });
  return { turn, journal, metrics, log, target: new RecordingTarget(log), heavy, alerts, failures };
}

/** Lets every run of the bundle's model appear in the log, with its number of rows. */
function watchRuns(bundle: ServedBundle, log: string[]): void {
  const model = bundle.model!;
  const runRows = model.runRows.bind(model);
  vi.spyOn(model, 'runRows').mockImplementation((count, isEveryOutputWanted) => {
    log.push(`run ${count}`);
    return runRows(count, isEveryOutputWanted);
  });
}

export function inlineSlot(log: string[], spec?: Readonly<Record<string, unknown>>): Slot {
  const bundle = servedBundle('inline', spec);
  onTestFinished(() => bundle.model!.release());
  watchRuns(bundle, log);
  return slotWith(bundle);
}

export function predict(
  { turn, target }: Pick<Setup, 'turn' | 'target'>,
  slot: Slot,
  requestId: number,
  fields: Parameters<typeof predictFrame>[0] = {},
): void {
  const frame = predictFrame({ requestId, features: vector(requestId, 0), ...fields });
  turn.predict(target, slot, slot.active!, frame, turn.keep(encodeFrame(frame)), performance.now());
}

export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
