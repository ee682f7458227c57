import { describe, expect, test } from 'vitest';
import { SetpointError } from '../../../protocol/errors.ts';
import { route } from '../../../agent/http/routes.ts';
import type { InferenceResult } from '../../../agent/http/services.ts';
import { FakeServices, headerOf, jsonOf, MODELS, send, sendAll } from './fake-services.ts';

const services = new FakeServices();
const post = (path: string, sent: object = {}) => send(services, path, { method: 'POST', ...sent });

describe('health', () => {
  test('live is 200 while the agent is live and 503 with an error when it is not', () => {
    expect(send(services, '/v2/health/live').status).toBe(200);
    expect(jsonOf(send(services, '/v2/health/live'))).toEqual({ live: true });
    const dead = new FakeServices();
    dead.live = false;
    expect(send(dead, '/v2/health/live').status).toBe(503);
    expect(jsonOf(send(dead, '/v2/health/live'))).toMatchObject({ live: false, error: expect.stringContaining('not live') });
  });

  test('ready is 200 with the detail when every model is ready, else 503 with the detail and an error', () => {
    expect(jsonOf(send(services, '/v2/health/ready'))).toEqual({ live: true, ready: true, detail: { store: 'down' } });
    const waking = new FakeServices();
    waking.ready = false;
    const reply = send(waking, '/v2/health/ready');
    expect(reply.status).toBe(503);
    expect(jsonOf(reply)).toMatchObject({ live: true, ready: false, detail: { store: 'down' }, error: expect.any(String) });
  });

  test('a model is ready with 200, not ready with 503 and unknown with 404', () => {
    expect(jsonOf(send(services, '/v2/models/pair/ready'))).toEqual({ name: 'pair', ready: true });
    expect(jsonOf(send(services, '/v2/models/pair/versions/0.9.0/ready'))).toEqual({ name: 'pair', ready: true });
    const asleep = send(services, '/v2/models/asleep/ready');
    expect([asleep.status, jsonOf(asleep).ready, typeof jsonOf(asleep).error]).toEqual([503, false, 'string']);
    expect(send(services, '/v2/models/nobody/ready').status).toBe(404);
    expect(send(services, '/v2/models/pair/versions/7/ready').status).toBe(404);
  });
});

describe('metadata', () => {
  test('the server gives its name, version and extensions at /v2 and /v2/', () => {
    const want = { name: 'setpoint', version: '0.1.0', extensions: ['binary_tensor_data', 'model_repository', 'statistics'] };
    expect(jsonOf(send(services, '/v2'))).toEqual(want);
    expect(jsonOf(send(services, '/v2/'))).toEqual(want);
  });

  test('a model gives versions, platform and tensors, and properties only where it has some', () => {
    expect(jsonOf(send(services, '/v2/models/cd/scanner-a/product-x'))).toEqual({
      name: 'cd/scanner-a/product-x',
      versions: ['1.0.0', '0.9.0'],
      platform: 'onnx_onnxv1',
      inputs: [{ name: 'features', datatype: 'FP32', shape: [-1, 3] }],
      outputs: [{ name: 'features', datatype: 'FP32', shape: [-1, 3] }],
    });
    expect(jsonOf(send(services, '/v2/models/asleep/versions/1.0.0')).properties).toEqual({ unit: 'nm' });
  });

  test('an unknown model or version is 404 with an error that names it', () => {
    const model = send(services, '/v2/models/nobody');
    expect([model.status, jsonOf(model).error]).toEqual([404, expect.stringContaining('"nobody"')]);
    const version = send(services, '/v2/models/pair/versions/7');
    expect([version.status, jsonOf(version).error]).toEqual([404, expect.stringMatching(/"7".*"1\.0\.0", "0\.9\.0"/)]);
  });

  test('metrics are Prometheus text', () => {
    const reply = send(services, '/metrics');
    expect([reply.status, reply.body]).toEqual([200, 'setpoint_decisions_total 3\n']);
    expect(headerOf(reply, 'content-type')).toBe('text/plain; version=0.0.4; charset=utf-8');
  });
});

describe('statistics', () => {
  test('are given for all models, one model and one version, with the names of the extension', () => {
    const names = (path: string) =>
      jsonOf(send(services, path)).model_stats.map((one: { name: string; version: string }) => `${one.name} ${one.version}`);
    expect(names('/v2/models/stats')).toEqual(['pair 1.0.0', 'pair 0.9.0', 'cube 1.0.0']);
    expect(names('/v2/models/pair/stats')).toEqual(['pair 1.0.0', 'pair 0.9.0']);
    expect(names('/v2/models/pair/versions/0.9.0/stats')).toEqual(['pair 0.9.0']);
    expect(jsonOf(send(services, '/v2/models/pair/stats')).model_stats[0]).toEqual({
      name: 'pair',
      version: '1.0.0',
      last_inference: 1_700_000_000_000,
      inference_count: 64,
      execution_count: 2,
      inference_stats: {
        success: { count: 3, ns: 900 },
        fail: { count: 0, ns: 0 },
        queue: { count: 0, ns: 0 },
        compute_input: { count: 0, ns: 0 },
        compute_infer: { count: 2, ns: 500 },
        compute_output: { count: 0, ns: 0 },
        cache_hit: { count: 0, ns: 0 },
        cache_miss: { count: 0, ns: 0 },
      },
      batch_stats: [
        { batch_size: 32, compute_input: { count: 0, ns: 0 }, compute_infer: { count: 2, ns: 500 }, compute_output: { count: 0, ns: 0 } },
      ],
    });
  });

  test('of an unknown model are 404', () => {
    expect(send(services, '/v2/models/nobody/stats').status).toBe(404);
  });
});

describe('methods and paths', () => {
  test.each(['/', '/v1', '/v2/nothing', '/v2/models', '/v2/models/', '/v2/repository/models/pair', '/v2/repository/models//load', ''])(
    '%j is not there: 404 with an error',
    (path) => {
      const reply = send(services, path);
      expect([reply.status, typeof jsonOf(reply).error]).toEqual([404, 'string']);
    },
  );

  test.each(['/v2', '/v2/health/live', '/metrics', '/v2/models/pair', '/v2/models/pair/ready', '/v2/models/stats'])(
    'POST %s is 405 and allows GET and HEAD',
    (path) => {
      const reply = post(path);
      expect([reply.status, headerOf(reply, 'allow'), typeof jsonOf(reply).error]).toEqual([405, 'GET, HEAD', 'string']);
    },
  );

  test.each(['/v2/models/pair/infer', '/v2/repository/index', '/v2/repository/models/pair/load'])(
    'GET %s is 405 and allows POST',
    (path) => {
      const reply = send(services, path);
      expect([reply.status, headerOf(reply, 'allow')]).toEqual([405, 'POST']);
    },
  );

  test('HEAD is answered as GET is, without the body', () => {
    for (const path of ['/v2/health/ready', '/v2/models/pair', '/v2/models/nobody', '/v2/nothing']) {
      const get = send(services, path);
      expect(send(services, path, { method: 'HEAD' })).toEqual({ ...get, body: '' });
    }
  });

  test('broken percent-encoding is 400', () => {
    expect(send(services, '/v2/models/%E0%A4%A/ready').status).toBe(400);
  });

  test('a defect of the agent is 500 with an error, not a throw', () => {
    const broken = new FakeServices();
    broken.metricsText = () => {
      throw new TypeError('counter is undefined');
    };
    const reply = send(broken, '/metrics');
    expect([reply.status, jsonOf(reply).error]).toEqual([500, expect.stringContaining('counter is undefined')]);
  });
});

describe('repository', () => {
  test('the index lists each version with its state, from anywhere, with or without a body', () => {
    const all = jsonOf(post('/v2/repository/index'));
    expect(all).toHaveLength(MODELS.length * 2);
    expect(all).toContainEqual({ name: 'pair', version: '0.9.0', state: 'READY', reason: '' });
    expect(all).toContainEqual({ name: 'asleep', version: '1.0.0', state: 'UNAVAILABLE', reason: 'not ready' });
    expect(jsonOf(post('/v2/repository/index', { body: { ready: true } }))).toHaveLength(MODELS.length * 2 - 2);
    expect(post('/v2/repository/index', { body: { ready: 'yes' } }).status).toBe(400);
    expect(post('/v2/repository/index', { body: '[' }).status).toBe(400);
  });

  async function change(path: string, sent: object = {}) {
    const own = new FakeServices();
    const replies = sendAll(own, path, { method: 'POST', isLoopback: true, ...sent });
    await new Promise(setImmediate);
    expect(replies).toHaveLength(1);
    return { status: replies[0]!.status, loads: own.loads };
  }

  test('load and unload reach the model, by an encoded or plain name', async () => {
    expect(await change('/v2/repository/models/cd/scanner-a/product-x/load')).toEqual({
      status: 200,
      loads: ['load cd/scanner-a/product-x'],
    });
    expect(await change('/v2/repository/models/cd%2Fscanner-a%2Fproduct-x/unload')).toEqual({
      status: 200,
      loads: ['unload cd/scanner-a/product-x'],
    });
    expect(await change('/v2/repository/models/pair/unload', { body: { parameters: { unload_dependents: true } } })).toMatchObject({
      status: 200,
    });
  });

  test('load of an unknown model is 404', async () => {
    expect((await change('/v2/repository/models/nobody/load')).status).toBe(404);
  });

  test('load and unload are refused from another machine and from a web page', async () => {
    for (const action of ['load', 'unload']) {
      expect(await change(`/v2/repository/models/pair/${action}`, { isLoopback: false })).toEqual({ status: 403, loads: [] });
      expect(await change(`/v2/repository/models/pair/${action}`, { headers: { origin: 'https://example.com' } })).toEqual({
        status: 403,
        loads: [],
      });
    }
  });

  test('load with a configuration or a file in the request is 501: only signed bundles are loaded', async () => {
    expect(await change('/v2/repository/models/pair/load', { body: { parameters: { config: '{}' } } })).toEqual({ status: 501, loads: [] });
    expect(await change('/v2/repository/models/pair/load', { body: { parameters: { 'file:1/model.onnx': 'AAAA' } } })).toEqual({
      status: 501,
      loads: [],
    });
  });
});

describe('the answer to an inference', () => {
  const body = { inputs: [{ name: 'x', shape: [1], datatype: 'FP32', data: [1] }] };
  const path = '/v2/models/echo/FP32/infer';

  test.each([
    ['not_ready', 503],
    ['overloaded', 503],
    ['unknown_slot', 404],
    ['unknown_version', 404],
    ['invalid_field', 400],
    ['journal_failed', 503],
    ['internal', 500],
  ] as const)('has the status of the error code: %s is %i', (code, status) => {
    const failing = new FakeServices();
    failing.outcome = () => new SetpointError(code, 'Cannot predict: because', { remedy: 'do this' });
    const reply = send(failing, path, { method: 'POST', body });
    expect([reply.status, jsonOf(reply)]).toEqual([status, { error: 'Cannot predict: because; do this' }]);
  });

  test('may come later, once', () => {
    const late = new FakeServices();
    let done: (outcome: InferenceResult | SetpointError) => void = () => undefined;
    late.infer = (_job, given) => {
      done = given;
    };
    const replies = sendAll(late, path, { method: 'POST', body });
    expect(replies).toHaveLength(0);
    done({ outputs: [], version: '1', parameters: {} });
    expect(() => done({ outputs: [], version: '1', parameters: {} })).toThrow('infer answers once');
    expect(replies.map((reply) => reply.status)).toEqual([200]);
  });

  test('is 500 when infer itself throws', () => {
    const broken = new FakeServices();
    broken.infer = () => {
      throw new Error('no session');
    };
    expect(send(broken, path, { method: 'POST', body }).status).toBe(500);
  });

  test('is 500 when an output has not the bytes of its shape', () => {
    const broken = new FakeServices();
    broken.outcome = () => ({
      outputs: [{ name: 'x', datatype: 'FP32', shape: [2], bytes: new Uint8Array(4) }],
      version: '1',
      parameters: {},
    });
    expect(send(broken, path, { method: 'POST', body }).status).toBe(500);
  });

  test('is not given again when the socket fails while it is sent', () => {
    let calls = 0;
    const request = { method: 'POST', path, query: '', headers: () => '', body: Buffer.from(JSON.stringify(body)), isLoopback: false };
    const respond = () => {
      calls++;
      throw new Error('socket is gone');
    };
    expect(() => route(request, services, respond)).toThrow('socket is gone');
    expect(calls).toBe(1);
  });
});
