import { describe, expect, test } from 'vitest';
import { CONTEXT_FIELDS } from '../../../protocol/frames.ts';
import { readRequestParameters } from '../../../agent/http/request-parameters.ts';
import { FakeServices, infer } from './fake-services.ts';

const noContext = Object.fromEntries(CONTEXT_FIELDS.map((name) => [name, null]));

describe('readRequestParameters()', () => {
  test('gives the defaults for no parameters', () => {
    const want = { binaryByDefault: false, deadlineMicros: 0, context: null, lastApplied: null };
    expect(readRequestParameters(undefined)).toEqual(want);
    expect(readRequestParameters({})).toEqual(want);
  });

  test('reads timeout as the deadline in microseconds', () => {
    expect(readRequestParameters({ timeout: 900 }).deadlineMicros).toBe(900);
    expect(readRequestParameters({ timeout: 60_000_000 }).deadlineMicros).toBe(60_000_000);
  });

  test('reads every context field, and leaves the others null', () => {
    for (const field of CONTEXT_FIELDS) {
      const value = field === 'runNumber' || field === 'processEndMillis' ? 12 : 'W7';
      expect(readRequestParameters({ [`setpoint_${field}`]: value }).context).toEqual({ ...noContext, [field]: value });
    }
  });

  test('reads the last applied setting without making a context', () => {
    expect(readRequestParameters({ setpoint_lastApplied: -1.5 })).toMatchObject({ lastApplied: -1.5, context: null });
  });

  test('ignores what it does not know, and a sequence that is none', () => {
    expect(() =>
      readRequestParameters({ content_type: 'np', triton_x: 1, headers: 'a', sequence_id: 0, sequence_start: false, priority: 2 }),
    ).not.toThrow();
  });

  test.each([
    { timeout: -1 },
    { timeout: 1.5 },
    { timeout: '900' },
    { timeout: 60_000_001 },
    { priority: -1 },
    { priority: 'high' },
    { binary_data_output: 'true' },
    { setpoint_substrateID: 'W7' },
    { setpoint_: 'x' },
    { setpoint___proto__: 'x' },
    { setpoint_substrateId: 7 },
    { setpoint_substrateId: 'x'.repeat(256) },
    { setpoint_substrateId: '한'.repeat(86) },
    { setpoint_substrateId: '\ud800' },
    { setpoint_runNumber: '7' },
    { setpoint_runNumber: -1 },
    { setpoint_runNumber: 1.5 },
    { setpoint_processEndMillis: 2 ** 53 },
    { setpoint_lastApplied: '1' },
    { setpoint_lastApplied: Infinity },
    { a: null },
    { a: [1] },
    { a: {} },
    [],
    'timeout',
    null,
  ])('refuses %j', (parameters) => {
    expect(() => readRequestParameters(parameters)).toThrow(expect.objectContaining({ code: 'invalid_field' }));
  });

  test.each([{ sequence_id: 7 }, { sequence_id: 'lot-7' }, { sequence_start: true }, { sequence_end: true }])(
    'does not support %j',
    (parameters) => {
      expect(() => readRequestParameters(parameters)).toThrow(expect.objectContaining({ code: 'unsupported' }));
    },
  );

  test('reaches the agent with the job', () => {
    const services = new FakeServices();
    const parameters = { timeout: 500, setpoint_substrateId: 'W7', setpoint_runNumber: 3, setpoint_lastApplied: 20.5, priority: 1 };
    infer(services, 'echo/FP32', { parameters, inputs: [{ name: 'x', shape: [1], datatype: 'FP32', data: [1] }] });
    expect(services.jobs[0]).toMatchObject({
      deadlineMicros: 500,
      lastApplied: 20.5,
      context: { ...noContext, substrateId: 'W7', runNumber: 3 },
    });
  });
});
