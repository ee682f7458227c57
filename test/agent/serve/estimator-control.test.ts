import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { EstimatorState } from '../../../agent/guard/estimator.ts';
import { Journal } from '../../../agent/journal/journal.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { EstimatorControl } from '../../../agent/serve/estimator-control.ts';
import { encodeFrame } from '../../../protocol/codec.ts';
import type { StreamSequence } from '../../../agent/store/messages.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { policyOf } from '../guard/guarded-manifest.ts';
import { NO_CONTEXT, observeFrame } from './served.ts';

const POLICY = policyOf({
  kind: 'prediction',
  roles: { prediction: { output: 'y' } },
  fallback: { estimator: 'ewma', lambda: 0.5, baselineValue: 1, threadBy: ['equipmentId'] },
});

interface Copy {
  readonly snapshot: string;
  readonly positions: readonly StreamSequence[];
}

interface Started {
  readonly control: EstimatorControl;
  readonly told: Map<string, EstimatorState | null>;
  readonly copies: Copy[];
  readonly log: string[];
}

function start(dataDirectory: string, slots: readonly string[] = ['etch']): Started {
  const told = new Map<string, EstimatorState | null>();
  const copies: Copy[] = [];
  const log: string[] = [];
  const control = new EstimatorControl({
    dataDirectory,
    slots,
    log: (_level, event) => log.push(event),
    broadcast: (_slot, key, state) => told.set(key, state),
    saved: (snapshot, positions) => copies.push({ snapshot, positions }),
  });
  control.load();
  return { control, told, copies, log };
}

/** Writes observations to the journal of stream 0, as a serving thread does; the values are learnt in this order. */
function writeObservations(dataDirectory: string, values: readonly number[], slot = 'etch', firstRun = 1): void {
  const journal = new Journal({ directory: join(dataDirectory, 'journal'), stream: 0, newEpoch: () => 1n, onSyncFailure: () => {} });
  values.forEach((value, at) => {
    const context = { ...NO_CONTEXT, equipmentId: 'E1', runNumber: firstRun + at, processEndMillis: 1000 * (firstRun + at) };
    const frame = observeFrame({ slot, value, context, measurementId: `m-${firstRun + at}` });
    journal.append(RECORD_KINDS.observation, (firstRun + at) * 1e9, encodeFrame(frame), new Uint8Array(0));
  });
  journal.commit();
  journal.close();
}

function intercept({ told }: Started): number | undefined {
  return [...told.values()][0]?.current.intercept;
}

describe('estimators at start', () => {
  test('are learnt from the journal alone', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70, 72]);
    const started = start(directory);
    started.control.slotReady('etch', POLICY);
    expect(intercept(started)).toBe(71);
  });

  test('go on from the snapshot, and learn nothing twice', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70, 72]);
    const first = start(directory);
    first.control.slotReady('etch', POLICY);
    first.control.save();
    expect(first.copies.map(({ positions }) => positions)).toEqual([[{ stream: 0, sequence: 2 }]]);
    writeObservations(directory, [73], 'etch', 3);
    const second = start(directory);
    second.control.slotReady('etch', POLICY);
    expect(intercept(second)).toBe(72);
  });

  test('wait in the snapshot for a slot that is not ready, so that their journal may go', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70, 72]);
    start(directory).control.save();
    rmSync(join(directory, 'journal'), { recursive: true });
    const second = start(directory);
    expect(second.told.size).toBe(0);
    second.control.slotReady('etch', POLICY);
    expect(intercept(second)).toBe(71);
  });

  test('do not wait for a slot that is not configured', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70, 72], 'gone');
    const { control, copies } = start(directory);
    control.save();
    expect(JSON.parse(copies[0]!.snapshot)).toMatchObject({ positions: [{ stream: 0, sequence: 2 }], waiting: [] });
  });

  test('tell the store of a snapshot that was there already, once', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70]);
    start(directory).control.save();
    const { control, copies } = start(directory);
    control.save();
    control.save();
    expect(copies).toHaveLength(1);
  });
});

describe('a copy of the snapshot', () => {
  function copyOf(directory: string): string {
    const { control, copies } = start(directory);
    control.slotReady('etch', POLICY);
    control.save();
    return copies[0]!.snapshot;
  }

  test.each([
    ['lost', (path: string) => rmSync(path)],
    ['damaged', (path: string) => writeFileSync(path, '{')],
  ])('brings back what a %s one held, with what the journal holds beyond it', (_how, harm) => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70, 72]);
    const copy = copyOf(directory);
    // The store has taken the first journal over; what follows is in the next.
    rmSync(join(directory, 'journal'), { recursive: true });
    mkdirSync(join(directory, 'journal'));
    writeAfter(directory, 2, [73]);
    harm(join(directory, 'estimators.json'));
    const second = start(directory);
    expect(second.control.needsCopy).toBe(true);
    second.control.adopt(copy);
    second.control.slotReady('etch', POLICY);
    expect([intercept(second), second.control.needsCopy]).toEqual([72, false]);
    expect(second.log).toContain('estimators restored');
  });

  test('that is none is told of, and what the journal holds is learnt', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70, 72]);
    const started = start(directory);
    started.control.adopt('{"format":"other"}');
    started.control.slotReady('etch', POLICY);
    expect([intercept(started), started.log]).toEqual([71, ['estimators not restored']]);
  });

  test('is not asked for when the snapshot is there', () => {
    const directory = temporaryDirectory();
    writeObservations(directory, [70]);
    copyOf(directory);
    expect(start(directory).control.needsCopy).toBe(false);
    expect(existsSync(join(directory, 'estimators.json'))).toBe(true);
  });
});

/** Observations whose numbers begin behind `last`, as in a journal whose first files were drained. */
function writeAfter(directory: string, last: number, values: readonly number[]): void {
  const journal = new Journal({ directory: join(directory, 'journal'), stream: 0, newEpoch: () => 1n, onSyncFailure: () => {} });
  for (let number = 1; number <= last; number++) journal.append(RECORD_KINDS.alert, 1, new TextEncoder().encode('{}'), new Uint8Array(0));
  journal.commit();
  journal.close();
  writeObservations(directory, values, 'etch', last + 1);
}
