import { describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { headerOf, jsonOf, FakeServices, send, type Sent } from './fake-services.ts';

/** A client's mistakes must come back as its own: a 4xx with {"error"}, never a 500, a throw or silence. */
function expectRefusal(path: string, sent: Sent): void {
  const reply = send(new FakeServices(), path, sent);
  if (reply.status !== 200) {
    const error = [reply.status, headerOf(reply, 'content-type'), Object.keys(jsonOf(reply))];
    expect(error).toEqual([
      expect.toSatisfy((status: number) => (status >= 400 && status < 500) || status === 501),
      'application/json',
      ['error'],
    ]);
  }
}

const inputMembers = {
  name: fc.oneof(fc.constantFrom('x', 'left'), fc.jsonValue()),
  shape: fc.oneof(fc.array(fc.integer({ min: -1, max: 5 }), { maxLength: 9 }), fc.jsonValue()),
  datatype: fc.oneof(fc.constantFrom('FP64', 'FP32', 'BYTES'), fc.jsonValue()),
  data: fc.jsonValue({ depthSize: 'small' }),
  parameters: fc.oneof(fc.record({ binary_data_size: fc.oneof(fc.nat(64), fc.jsonValue()) }), fc.jsonValue()),
};
const nearRequest = fc.record(
  {
    id: fc.jsonValue(),
    parameters: fc.oneof(
      fc.dictionary(fc.constantFrom('timeout', 'priority', 'setpoint_runNumber', 'sequence_id'), fc.jsonValue()),
      fc.jsonValue(),
    ),
    inputs: fc.oneof(fc.array(fc.oneof(fc.record(inputMembers, { requiredKeys: [] }), fc.jsonValue()), { maxLength: 3 }), fc.jsonValue()),
    outputs: fc.oneof(
      fc.array(fc.record({ name: fc.constantFrom('x', 'y'), parameters: fc.jsonValue() }, { requiredKeys: [] })),
      fc.jsonValue(),
    ),
  },
  { requiredKeys: [] },
);
const paths = fc.constantFrom('cube', 'pair', 'echo/BYTES', 'echo/FP16', 'echo/INT64').map((name) => `/v2/models/${name}/infer`);

describe('a hostile request', () => {
  test('of any bytes, with any header length, is refused in good order', () => {
    const lengths = fc.option(fc.oneof(fc.nat(300).map(String), fc.string()), { nil: '' });
    fc.assert(
      fc.property(paths, fc.uint8Array({ maxLength: 256 }), lengths, (path, body, length) => {
        expectRefusal(path, { method: 'POST', body, headers: { 'inference-header-content-length': length } });
      }),
      { numRuns: 500 },
    );
  });

  test('of almost valid JSON with binary data is refused in good order', () => {
    fc.assert(
      fc.property(paths, nearRequest, fc.uint8Array({ maxLength: 64 }), (path, request, blob) => {
        const head = Buffer.from(JSON.stringify(request));
        const headers = { 'inference-header-content-length': String(head.length) };
        expectRefusal(path, { method: 'POST', body: new Uint8Array(Buffer.concat([head, blob])), headers });
      }),
      { numRuns: 1000 },
    );
  });

  test('of any method and path is refused in good order', () => {
    const part = fc.oneof(fc.constantFrom('v2', 'models', 'pair', 'versions', '1.0.0', 'infer', 'ready', 'repository', '%'), fc.string());
    const path = fc.array(part, { maxLength: 7 }).map((parts) => `/${parts.join('/')}`);
    fc.assert(
      fc.property(fc.constantFrom('GET', 'POST', 'PUT', 'DELETE', 'OPTIONS', ''), path, (method, path) => {
        fc.pre(!path.includes('repository/models'));
        expectRefusal(path, { method });
      }),
      { numRuns: 500 },
    );
  });
});
