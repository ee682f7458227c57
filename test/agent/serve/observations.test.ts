import { describe, expect, test } from 'vitest';
import { controlThreadKey } from '../../../agent/guard/control-thread.ts';
import { compilePolicy } from '../../../agent/guard/policy.ts';
import type { Connection } from '../../../agent/serve/connection.ts';
import { observationOf, WaitingObservations } from '../../../agent/serve/observations.ts';
import { decodeServerFrame } from '../../../protocol/codec.ts';
import { FRAME_KINDS, type ServerFrame } from '../../../protocol/frames.ts';
import { manifestOf, NO_CONTEXT, observeFrame } from './served.ts';

const policy = compilePolicy(manifestOf());

describe('observationOf()', () => {
  const NOW = 1_000_000;

  test('takes value, input, run and measurement from the frame', () => {
    const context = { ...NO_CONTEXT, equipmentId: 'E1', runNumber: 17, processEndMillis: 900_000 };
    const frame = observeFrame({ context, value: 70.25, appliedInput: 4.5, measurementId: 'm-9' });
    expect(observationOf(frame, policy, NOW)).toEqual({
      key: controlThreadKey('etch', context, ['equipmentId']),
      observation: { measurementId: 'm-9', processMillis: 900_000, runNumber: 17, value: 70.25, appliedInput: 4.5 },
    });
  });

  test('takes the end of processing, then the time of measurement, and never a time to come', () => {
    const millisOf = (processEndMillis: number | null, measuredAtMillis: number): number =>
      observationOf(observeFrame({ context: { ...NO_CONTEXT, processEndMillis }, measuredAtMillis }), policy, NOW).observation
        .processMillis;
    expect([millisOf(900_000, 950_000), millisOf(null, 950_000), millisOf(NOW + 1, 5), millisOf(null, NOW + 1)]).toEqual([
      900_000,
      950_000,
      NOW,
      NOW,
    ]);
  });

  test('keeps control threads apart by the fields of the policy, and slots always', () => {
    const keyOf = (slot: string, fields: Partial<typeof NO_CONTEXT>): string =>
      observationOf(observeFrame({ slot, context: { ...NO_CONTEXT, ...fields } }), policy, NOW).key;
    const key = keyOf('etch', { equipmentId: 'E1', moduleId: 'A' });
    expect(keyOf('etch', { equipmentId: 'E1', moduleId: 'B' })).toBe(key);
    expect(keyOf('etch', { equipmentId: 'E2', moduleId: 'A' })).not.toBe(key);
    expect(keyOf('etch-2', { equipmentId: 'E1', moduleId: 'A' })).not.toBe(key);
  });
});

describe('an observation that waits for the control thread', () => {
  function fakeConnection(log: (ServerFrame | 'flush')[]): Connection {
    const fake = { answer: (bytes: Uint8Array) => log.push(decodeServerFrame(bytes)), flush: () => log.push('flush') };
    return fake as unknown as Connection;
  }

  test('is answered on its connection with its number, outcome and estimate', () => {
    const log: (ServerFrame | 'flush')[] = [];
    const waiting = new WaitingObservations(5);
    const token = waiting.add(fakeConnection(log), 77, 12);
    expect(log).toEqual([]);
    waiting.settle(token, 'applied', 70.5);
    expect(log).toEqual([
      { kind: FRAME_KINDS.observed, requestId: 77, sequence: 12, stream: 5, outcome: 'applied', estimate: 70.5 },
      'flush',
    ]);
  });

  test('is answered once, and not by the token of another', () => {
    const logs: (ServerFrame | 'flush')[][] = [[], []];
    const waiting = new WaitingObservations(0);
    const tokens = logs.map((log, at) => waiting.add(fakeConnection(log), at, at));
    waiting.settle(tokens[1]!, 'recorded', null);
    waiting.settle(tokens[1]!, 'recorded', null);
    waiting.settle(999, 'recorded', null);
    expect([logs[0]!.length, logs[1]!.length]).toEqual([0, 2]);
  });
});
