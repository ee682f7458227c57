import { describe, expect, test } from 'vitest';
import { binaryBody, blobOf, FakeServices, headerOf, infer, jsonOf, wire } from './fake-services.ts';

const slot = 'cd/scanner-a/product-x';
const row = wire('FP32', [1.5, -2, 3]);
const binaryRow = (size = 12, over: object = {}) => ({
  name: 'features',
  shape: [1, 3],
  datatype: 'FP32',
  parameters: { binary_data_size: size },
  ...over,
});
const left = { name: 'left', shape: [2, 2], datatype: 'INT32' };
const flags = { name: 'flags', shape: [3], datatype: 'BOOL' };
const leftBytes = wire('INT32', [1, 2, 3, -4]);
const flagBytes = Uint8Array.of(1, 0, 1);

describe('binary inputs', () => {
  test('are taken from behind the JSON, byte for byte, at any alignment', () => {
    for (const id of ['', 'a', 'ab', 'abc']) {
      const services = new FakeServices();
      const { body, length } = binaryBody({ id, inputs: [binaryRow()] }, row);
      const reply = infer(services, slot, body, length);
      expect([reply.status, jsonOf(reply).outputs[0].data]).toEqual([200, [1.5, -2, 3]]);
      expect(services.jobs[0]!.inputs[0]!.bytes).toEqual(row);
    }
  });

  test('lie in the order of the request, and may stand beside JSON ones', () => {
    const services = new FakeServices();
    const swapped = binaryBody(
      {
        inputs: [
          { ...flags, parameters: { binary_data_size: 3 } },
          { ...left, parameters: { binary_data_size: 16 } },
        ],
      },
      flagBytes,
      leftBytes,
    );
    const mixed = binaryBody(
      {
        inputs: [
          { ...flags, parameters: { binary_data_size: 3 } },
          { ...left, data: [1, 2, 3, -4] },
        ],
      },
      flagBytes,
    );
    for (const { body, length } of [swapped, mixed]) {
      expect(infer(services, 'pair', body, length).status).toBe(200);
    }
    for (const job of services.jobs) {
      expect(job.inputs.map((input) => [...input.bytes])).toEqual([[...leftBytes], [...flagBytes]]);
    }
  });

  test.each([
    ['a blob shorter than binary_data_size', binaryBody({ inputs: [binaryRow(12)] }, row.subarray(0, 11)), 'more than the body has left'],
    ['bytes left over', binaryBody({ inputs: [binaryRow(12)] }, row, Uint8Array.of(0)), 'leave some of it over'],
    ['a size that does not fit the shape', binaryBody({ inputs: [binaryRow(11)] }, row.subarray(0, 11)), 'value found is 11 bytes, 12'],
    ['a negative size', binaryBody({ inputs: [binaryRow(-1)] }, row), 'binary_data_size'],
    ['a size that is no integer', binaryBody({ inputs: [binaryRow(1.5)] }, row), 'binary_data_size'],
    ['data as well', binaryBody({ inputs: [binaryRow(12, { data: [1, 2, 3] })] }, row), 'both'],
  ])('with %s are 400', (_name, { body, length }, part) => {
    const reply = infer(new FakeServices(), slot, body, length);
    expect([reply.status, jsonOf(reply).error]).toEqual([400, expect.stringContaining(part)]);
  });

  test('of BOOL may only be 0 and 1', () => {
    const inputs = [{ ...left, data: [1, 2, 3, 4] }, { ...flags, parameters: { binary_data_size: 3 } }]; // prettier-ignore
    const { body, length } = binaryBody({ inputs }, Uint8Array.of(0, 1, 2));
    const reply = infer(new FakeServices(), 'pair', body, length);
    expect([reply.status, jsonOf(reply).error]).toEqual([400, expect.stringContaining('element 2: value found is 2, 0 or 1')]);
  });

  test.each([
    ['a short length', [1, 0, 0], 1],
    ['a length beyond the end', [2, 0, 0, 0, 65], 1],
    ['a huge length', [255, 255, 255, 255, 65], 1],
    ['too few elements', [1, 0, 0, 0, 65], 2],
    ['too many elements', [0, 0, 0, 0, 0, 0, 0, 0], 1],
    ['bytes that are not UTF-8', [1, 0, 0, 0, 255], 1],
  ])('of BYTES with %s are 400', (_name, bytes, count) => {
    const blob = Uint8Array.from(bytes);
    const { body, length } = binaryBody(
      { inputs: [{ name: 'x', shape: [count], datatype: 'BYTES', parameters: { binary_data_size: blob.length } }] },
      blob,
    );
    expect(infer(new FakeServices(), 'echo/BYTES', body, length).status).toBe(400);
  });
});

describe('Inference-Header-Content-Length', () => {
  const { body, length } = binaryBody({ inputs: [binaryRow()] }, row);

  test.each(['-1', 'x', '1.5', '1e2', ' 5', '0x10', '+5', String(body.length + 1), '99999999999999999999'])('%j is 400', (value) => {
    const reply = infer(new FakeServices(), slot, body, value);
    expect([reply.status, jsonOf(reply).error]).toEqual([400, expect.stringContaining('Cannot read Inference-Header-Content-Length')]);
  });

  test('that cuts the JSON is 400', () => {
    expect(infer(new FakeServices(), slot, body, String(Number(length) - 1)).status).toBe(400);
  });

  test('absent means that the whole body is JSON', () => {
    expect(infer(new FakeServices(), slot, body).status).toBe(400);
    expect(infer(new FakeServices(), slot, { inputs: [binaryRow(12, { parameters: {}, data: [1, 2, 3] })] }).status).toBe(200);
  });

  test('of the whole body means that no binary data follows', () => {
    const json = binaryBody({ inputs: [binaryRow(12, { parameters: {}, data: [1, 2, 3] })] });
    expect(infer(new FakeServices(), slot, json.body, json.length).status).toBe(200);
  });
});

describe('binary outputs', () => {
  const inputs = [{ ...left, data: [1, 2, 3, -4] }, { ...flags, data: [true, false, true] }]; // prettier-ignore
  const ask = (over: object) => infer(new FakeServices(), 'pair', { inputs, ...over });

  test('come on request, behind the JSON that gives their sizes', () => {
    const reply = ask({ id: '한', outputs: [{ name: 'left', parameters: { binary_data: true } }, { name: 'flags' }] });
    expect(headerOf(reply, 'content-type')).toBe('application/octet-stream');
    expect(jsonOf(reply)).toEqual({
      model_name: 'pair',
      model_version: '1.0.0',
      id: '한',
      outputs: [
        { name: 'left', shape: [2, 2], datatype: 'INT32', parameters: { binary_data_size: 16 } },
        { name: 'flags', shape: [3], datatype: 'BOOL', data: [true, false, true] },
      ],
    });
    expect(blobOf(reply)).toEqual(leftBytes);
  });

  test('are the default with binary_data_output, which binary_data overrides', () => {
    const all = ask({ parameters: { binary_data_output: true } });
    expect(blobOf(all)).toEqual(Uint8Array.from([...leftBytes, ...flagBytes]));
    const swapped = ask({ parameters: { binary_data_output: true }, outputs: [{ name: 'flags' }, { name: 'left' }] });
    expect(blobOf(swapped)).toEqual(Uint8Array.from([...flagBytes, ...leftBytes]));
    const one = ask({
      parameters: { binary_data_output: true },
      outputs: [{ name: 'flags', parameters: { binary_data: false } }, { name: 'left' }],
    });
    expect(jsonOf(one).outputs[0].data).toEqual([true, false, true]);
    expect(blobOf(one)).toEqual(leftBytes);
  });

  test('carry NaN', () => {
    const services = new FakeServices();
    const bytes = wire('FP32', [NaN]);
    services.outcome = () => ({ outputs: [{ name: 'x', datatype: 'FP32', shape: [1], bytes }], version: '1', parameters: {} });
    const body = { inputs: [{ name: 'x', shape: [1], datatype: 'FP32', data: [0] }], parameters: { binary_data_output: true } };
    expect(blobOf(infer(services, 'echo/FP32', body))).toEqual(bytes);
  });
});

describe('a raw request', () => {
  const raw = (model: string, body: Uint8Array) => {
    const services = new FakeServices();
    const reply = infer(services, model, body, '0');
    return { reply, input: services.jobs[0]?.inputs[0] };
  };

  test('is the only input, and is answered with binary outputs', () => {
    const { reply, input } = raw(slot, row);
    expect(input).toMatchObject({ name: 'features', datatype: 'FP32', shape: [1, 3] });
    expect(jsonOf(reply).outputs).toEqual([{ name: 'features', shape: [1, 3], datatype: 'FP32', parameters: { binary_data_size: 12 } }]);
    expect(blobOf(reply)).toEqual(row);
  });

  test('fills the free dimension; of two the first is a batch of 1', () => {
    expect(raw(slot, new Uint8Array(36)).input!.shape).toEqual([3, 3]);
    expect(raw('cube', new Uint8Array(64)).input!.shape).toEqual([2, 2, 2]);
    expect(raw('wide', new Uint8Array(20)).input!.shape).toEqual([1, 5]);
    expect(raw(slot, new Uint8Array(0)).input!.shape).toEqual([0, 3]);
  });

  test('of BYTES is one element, without its length', () => {
    const { input } = raw('echo/BYTES', Buffer.from('wafer'));
    expect(input!.shape).toEqual([1]);
    expect(Buffer.from(input!.bytes).toString('latin1')).toBe('\x05\0\0\0wafer');
  });

  test('is 400 when its size does not tell the shape or the model has several inputs', () => {
    expect(raw(slot, new Uint8Array(13)).reply.status).toBe(400);
    expect(raw(slot, new Uint8Array(16)).reply.status).toBe(400);
    expect(raw('etch%2Fready', new Uint8Array(8)).reply.status).toBe(400);
    expect(raw('pair', new Uint8Array(19)).reply.status).toBe(400);
    expect(raw('echo/BOOL', Uint8Array.of(2)).reply.status).toBe(400);
  });
});
