import { describe, expect, test } from 'vitest';
import { reasonNames } from '../../../protocol/frames.ts';
import { MAX_EXACT_JSON_LENGTH, MAX_JSON_BYTES } from '../../../agent/http/services.ts';
import { binaryBody, FakeServices, headerOf, infer, jsonOf, send, wire } from './fake-services.ts';

const slot = 'cd/scanner-a/product-x';
const features = (over: object = {}) => ({ name: 'features', shape: [1, 3], datatype: 'FP32', data: [1, 2, 3], ...over });
const flags = { name: 'flags', shape: [3], datatype: 'BOOL', data: [true, false, true] };
const left = { name: 'left', shape: [2, 2], datatype: 'INT32', data: [1, 2, 3, 4] };

function refused(model: string, body: object | string, status = 400): string {
  const services = new FakeServices();
  const reply = infer(services, model, body);
  expect([reply.status, services.jobs]).toEqual([status, []]);
  expect(headerOf(reply, 'content-type')).toBe('application/json');
  expect(Object.keys(jsonOf(reply))).toEqual(['error']);
  return jsonOf(reply).error;
}

describe('a JSON inference', () => {
  test('answers with the model, its version, the echoed id and the outputs', () => {
    const reply = infer(new FakeServices(), slot, { id: 'wafer "7"', inputs: [features()] });
    expect(reply.status).toBe(200);
    expect(headerOf(reply, 'content-type')).toBe('application/json');
    expect(headerOf(reply, 'inference-header-content-length')).toBeUndefined();
    expect(jsonOf(reply)).toEqual({
      model_name: slot,
      model_version: '1.0.0',
      id: 'wafer "7"',
      outputs: [{ name: 'features', shape: [1, 3], datatype: 'FP32', data: [1, 2, 3] }],
    });
  });

  test('has no id where the request had none, and refuses an id that is no string', () => {
    expect(jsonOf(infer(new FakeServices(), slot, { inputs: [features()] }))).not.toHaveProperty('id');
    expect(refused(slot, { id: 7, inputs: [features()] })).toContain('Cannot read id: value found is 7, a string is allowed');
  });

  test('takes the version of the path, null without one, and refuses one that the model does not have', () => {
    const services = new FakeServices();
    infer(services, slot, { inputs: [features()] });
    expect(jsonOf(infer(services, `${slot}/versions/0.9.0`, { inputs: [features()] })).model_version).toBe('0.9.0');
    expect(services.jobs.map((job) => [job.model, job.version])).toEqual([
      [slot, null],
      [slot, '0.9.0'],
    ]);
    refused(`${slot}/versions/3`, { inputs: [features()] }, 404);
    refused('nobody', { inputs: [features()] }, 404);
  });

  test('reads nested and flat data to the same bytes', () => {
    const services = new FakeServices();
    const cube = (data: unknown) => ({ inputs: [{ name: 'x', shape: [2, 2, 2], datatype: 'FP64', data }] });
    infer(services, 'cube', cube([1, 2, 3, 4, 5, 6, 7, 8]));
    infer(services, 'cube', cube([[[1, 2], [3, 4]], [[5, 6], [7, 8]]])); // prettier-ignore
    const [flat, nested] = services.jobs;
    expect(flat!.inputs[0]!.bytes).toEqual(wire('FP64', [1, 2, 3, 4, 5, 6, 7, 8]));
    expect(nested).toEqual(flat);
  });

  test.each([
    ['a missing row', [[1, 2, 3]]],
    ['a short row', [[1, 2, 3], [4, 5]]], // prettier-ignore
    ['a row and a number', [[1, 2, 3], 4]],
    ['a number and a row', [1, 2, 3, 4, 5, [6]]],
    ['too deep a row', [[1, 2, [3]], [4, 5, 6]]], // prettier-ignore
    ['too few numbers', [1, 2, 3, 4, 5]],
    ['too many numbers', [1, 2, 3, 4, 5, 6, 7]],
    ['no array', 1],
    ['null', null],
  ])('refuses data with %s', (_name, data) => {
    expect(refused(slot, { inputs: [features({ shape: [2, 3], data })] })).toContain('inputs[0].data');
  });

  test('accepts an empty batch', () => {
    const services = new FakeServices();
    const reply = infer(services, slot, { inputs: [features({ shape: [0, 3], data: [] })] });
    expect(jsonOf(reply).outputs[0]).toMatchObject({ shape: [0, 3], data: [] });
  });

  test('gives the inputs in the order of the model, whatever their order in the request', () => {
    const services = new FakeServices();
    infer(services, 'pair', { inputs: [flags, left] });
    expect(services.jobs[0]!.inputs.map((input) => [input.name, input.bytes])).toEqual([
      ['left', wire('INT32', [1, 2, 3, 4])],
      ['flags', Uint8Array.of(1, 0, 1)],
    ]);
  });

  test('answers the requested outputs in the requested order, and asks the agent for those', () => {
    const services = new FakeServices();
    const names = (outputs?: unknown) =>
      jsonOf(infer(services, 'pair', { inputs: [left, flags], ...(outputs === undefined ? {} : { outputs }) })).outputs.map(
        (output: { name: string }) => output.name,
      );
    expect(names()).toEqual(['left', 'flags']);
    expect(names([])).toEqual(['left', 'flags']);
    expect(names([{ name: 'flags' }])).toEqual(['flags']);
    expect(names([{ name: 'flags' }, { name: 'left' }])).toEqual(['flags', 'left']);
    expect(services.jobs.map((job) => job.outputs)).toEqual([null, null, ['flags'], ['flags', 'left']]);
  });

  test('leaves out a requested output that the fallback could not give', () => {
    const services = new FakeServices();
    services.outcome = (job) => ({ outputs: job.inputs.slice(0, 1), version: '1.0.0', parameters: { setpoint_action: 'fallback' } });
    const reply = jsonOf(infer(services, 'pair', { inputs: [left, flags], outputs: [{ name: 'flags' }, { name: 'left' }] }));
    expect([reply.outputs.length, reply.outputs[0].name, reply.parameters]).toEqual([1, 'left', { setpoint_action: 'fallback' }]);
  });

  test("passes the guard's parameters through and names numbers that JSON does not have", () => {
    const services = new FakeServices();
    services.parameters = {
      setpoint_action: 'clamped',
      setpoint_reasons: reasonNames(1 << 13).join(','),
      setpoint_ri: NaN,
      ok: true,
      n: 0.25,
    };
    expect(jsonOf(infer(services, slot, { inputs: [features()] })).parameters).toEqual({
      setpoint_action: 'clamped',
      setpoint_reasons: 'clamp_step',
      setpoint_ri: 'NaN',
      ok: true,
      n: 0.25,
    });
  });
});

describe('a wrong input', () => {
  test.each([
    ['no inputs', {}, 'inputs'],
    ['inputs that are no array', { inputs: {} }, 'inputs'],
    ['no input at all', { inputs: [] }, 'inputs'],
    ['65 inputs', { inputs: Array.from({ length: 65 }, () => features()) }, 'an array of 65'],
    ['an input that is no object', { inputs: [null] }, 'inputs[0]'],
    ['another name', { inputs: [features({ name: 'x' })] }, 'value found is "x", "features" is allowed'],
    ['no name', { inputs: [features({ name: undefined })] }, 'value found is missing'],
    ['the same input twice', { inputs: [features(), features()] }, 'there twice'],
    ['another datatype', { inputs: [features({ datatype: 'FP64' })] }, 'value found is "FP64", FP32 is allowed'],
    ['an unknown datatype', { inputs: [features({ datatype: 'float' })] }, 'one of BOOL'],
    ['another rank', { inputs: [features({ shape: [3] })] }, 'value found is [3], [-1,3] is allowed'],
    ['another dimension', { inputs: [features({ shape: [1, 4], data: [1, 2, 3, 4] })] }, '[1,4]'],
    ['a negative dimension', { inputs: [features({ shape: [-1, 3] })] }, 'inputs[0].shape'],
    ['a dimension that is no integer', { inputs: [features({ shape: [1.5, 3] })] }, 'inputs[0].shape'],
    ['a shape of strings', { inputs: [features({ shape: ['1', '3'] })] }, 'inputs[0].shape'],
    ['no shape', { inputs: [features({ shape: undefined })] }, 'inputs[0].shape'],
    ['an impossible number of elements', { inputs: [features({ shape: [2 ** 52, 3] })] }, 'more elements than a body can hold'],
    ['neither data nor binary data', { inputs: [features({ data: undefined })] }, 'neither of data and binary_data_size'],
    ['both data and binary data', { inputs: [features({ parameters: { binary_data_size: 12 } })] }, 'both of data and binary_data_size'],
    ['parameters that are no object', { inputs: [features({ parameters: [] })] }, 'inputs[0].parameters'],
    ['a nested parameter', { inputs: [features({ parameters: { a: {} } })] }, 'inputs[0].parameters'],
    ['an unknown output', { inputs: [features()], outputs: [{ name: 'y' }] }, 'outputs[0]'],
    ['an output twice', { inputs: [features()], outputs: [{ name: 'features' }, { name: 'features' }] }, 'there twice'],
    ['outputs that are no array', { inputs: [features()], outputs: 'features' }, 'outputs'],
    [
      'binary_data that is no boolean',
      { inputs: [features()], outputs: [{ name: 'features', parameters: { binary_data: 1 } }] },
      'binary_data',
    ],
  ])('with %s is 400', (_name, body, part) => {
    expect(refused(slot, body)).toContain(part);
  });

  test('that is missing is 400 and named', () => {
    expect(refused('pair', { inputs: [flags] })).toContain('"left" is missing, INT32 [2,2] is required');
  });

  test('in shared memory, or an output as a classification, is 501', () => {
    refused(slot, { inputs: [features({ data: undefined, parameters: { shared_memory_region: 'a' } })] }, 501);
    refused(slot, { inputs: [features()], outputs: [{ name: 'features', parameters: { classification: 2 } }] }, 501);
  });

  test.each(['', '{', 'null', '[]', '1', '"inputs"', '{"inputs":[}', '\uFFFE'])('body %j is 400', (body) => {
    refused(slot, body);
  });

  test('body that is not UTF-8 is 400', () => {
    expect(infer(new FakeServices(), slot, Uint8Array.of(0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d)).status).toBe(400);
  });

  test('body that is compressed is 501', () => {
    const sent = { method: 'POST', body: { inputs: [features()] }, headers: { 'content-encoding': 'gzip' } };
    expect(send(new FakeServices(), `/v2/models/${slot}/infer`, sent).status).toBe(501);
  });
});

describe('the bounds', () => {
  test('a JSON part of 1 MiB is read and one byte more is 413', () => {
    const body = (size: number) => JSON.stringify({ inputs: [features()] }).padEnd(size);
    expect(infer(new FakeServices(), slot, body(MAX_JSON_BYTES)).status).toBe(200);
    refused(slot, body(MAX_JSON_BYTES + 1), 413);
  });

  test('a body over 16 MiB is 413 even when most of it is binary', () => {
    const { body, length } = binaryBody({ inputs: [features({ data: undefined })] }, new Uint8Array(16 * 1024 * 1024));
    expect(infer(new FakeServices(), slot, body, length).status).toBe(413);
  });

  test('nesting over 16 levels is refused before it is parsed, brackets inside strings do not count', () => {
    expect(refused(slot, `{"a":${'['.repeat(500_000)}`)).toContain('nested too deeply');
    expect(refused(slot, `{"a":${'['.repeat(16)}${']'.repeat(16)}}`)).toContain('nested too deeply');
    const inner = `${'['.repeat(15)}${']'.repeat(15)}`;
    const text = `{"a":${inner},"b":"${'['.repeat(99)}\\"${'{'.repeat(99)}","inputs":[${JSON.stringify(features())}]}`;
    expect(infer(new FakeServices(), slot, text).status).toBe(200);
  });
});

describe('elements in JSON', () => {
  const one = (datatype: string, literal: string) =>
    infer(new FakeServices(), `echo/${datatype}`, `{"inputs":[{"name":"x","shape":[1],"datatype":"${datatype}","data":[${literal}]}]}`);

  test.each([
    ['BOOL', 'true'],
    ['BOOL', 'false'],
    ['UINT8', '255'],
    ['INT8', '-128'],
    ['UINT16', '65535'],
    ['INT16', '-32768'],
    ['UINT32', '4294967295'],
    ['INT32', '-2147483648'],
    ['UINT64', '18446744073709551615'],
    ['INT64', '-9223372036854775808'],
    ['INT64', '9007199254740993'],
    ['FP32', '-0'],
    ['FP32', '0.10000000149011612'],
    ['FP64', '1e+308'],
    ['FP64', '5e-324'],
    ['BYTES', '"한글 \\u0000 \\" {"'],
    ['BYTES', '""'],
  ])('%s %s comes back digit for digit', (datatype, literal) => {
    expect(one(datatype, literal).body).toContain(`"data":[${literal.replace('\\u0000', '\\u0000')}]`);
  });

  test.each([
    ['BOOL', '1'],
    ['BOOL', '"true"'],
    ['UINT8', '256'],
    ['UINT8', '-1'],
    ['INT8', '1.5'],
    ['INT32', '2147483648'],
    ['INT32', 'true'],
    ['UINT64', '18446744073709551616'],
    ['UINT64', '-1'],
    ['INT64', '9223372036854775808'],
    ['INT64', '9007199254740993.0'],
    ['INT64', '1e18'],
    ['INT64', '"1"'],
    ['INT64', '123456789012345678901234567890'],
    ['FP32', '1e39'],
    ['FP32', '1e999'],
    ['FP32', '"1"'],
    ['FP32', 'null'],
    ['FP32', 'NaN'],
    ['FP64', '1e309'],
    ['BYTES', '1'],
    ['BYTES', '"\\ud800"'],
    ['FP16', '1'],
  ])('%s %s is 400', (datatype, literal) => {
    const reply = one(datatype, literal);
    expect([reply.status, typeof jsonOf(reply).error]).toEqual([400, 'string']);
  });

  test('integers beyond 2^53 are refused, not rounded, in a JSON part too long to be read exactly', () => {
    const text = `{"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[9007199254740993]}]}`;
    expect(infer(new FakeServices(), 'echo/INT64', text.padEnd(MAX_EXACT_JSON_LENGTH)).status).toBe(200);
    const long = infer(new FakeServices(), 'echo/INT64', text.padEnd(MAX_EXACT_JSON_LENGTH + 1));
    expect([long.status, jsonOf(long).error]).toEqual([400, expect.stringContaining('256 KiB')]);
  });

  test('beyond 2^53 beside a 64-bit integer leave floats and parameters what they are', () => {
    const services = new FakeServices();
    const text =
      '{"parameters":{"setpoint_lastApplied":12345678901234567890},"inputs":[{"name":"x","shape":[1],"datatype":"INT64","data":[9007199254740993]}]}';
    infer(services, 'echo/INT64', text);
    expect(services.jobs[0]!.lastApplied).toBe(12345678901234567000);
    expect(services.jobs[0]!.inputs[0]!.bytes).toEqual(wire('INT64', [9007199254740993n]));
    expect(one('FP64', '9007199254740993').body).toContain('"data":[9007199254740992]');
  });

  test('FP16 is refused with the way out, as input and, before the model runs, as output', () => {
    const data = { name: 'x', shape: [1], datatype: 'FP16', data: [1] };
    expect(refused('echo/FP16', { inputs: [data] })).toMatch(/no FP16.*binary_data_size/);
    const { body, length } = binaryBody({ inputs: [{ ...data, data: undefined, parameters: { binary_data_size: 2 } }] }, new Uint8Array(2));
    const services = new FakeServices();
    const reply = infer(services, 'echo/FP16', body, length);
    expect([reply.status, jsonOf(reply).error, services.jobs]).toEqual([400, expect.stringMatching(/no FP16.*binary_data/), []]);
  });

  test.each([NaN, Infinity, -Infinity])('an output of %d is an error that names the binary way, never null', (value) => {
    for (const datatype of ['FP32', 'FP64'] as const) {
      const services = new FakeServices();
      services.outcome = () => ({
        outputs: [{ name: 'x', datatype, shape: [2], bytes: wire(datatype, [1, value]) }],
        version: '1.0.0',
        parameters: {},
      });
      const reply = infer(services, `echo/${datatype}`, { inputs: [{ name: 'x', shape: [1], datatype, data: [1] }] });
      expect([reply.status, jsonOf(reply).error]).toEqual([501, expect.stringMatching(/element 1 is one; .*binary_data/)]);
    }
  });

  test('a BYTES output that is not UTF-8 is an error that names the binary way', () => {
    const services = new FakeServices();
    const bytes = Uint8Array.of(1, 0, 0, 0, 0xff);
    services.outcome = () => ({ outputs: [{ name: 'x', datatype: 'BYTES', shape: [1], bytes }], version: '1.0.0', parameters: {} });
    const reply = infer(services, 'echo/BYTES', { inputs: [{ name: 'x', shape: [1], datatype: 'BYTES', data: ['a'] }] });
    expect([reply.status, jsonOf(reply).error]).toEqual([501, expect.stringContaining('not UTF-8')]);
  });
});
