import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { runLimited } from '../../../agent/bundles/limited-process.ts';
import { scanBytes, vetBundle, type VetOptions } from '../../../agent/bundles/vet.ts';
import { chooseLane, formatVetReport, isCurrent, parseVetReport, type VetReport } from '../../../agent/bundles/vet-report.ts';
import type { Bundle } from '../../../agent/bundles/bundle.ts';
import { trimEngineMessage } from '../../../agent/bundles/engine-message.ts';
import { extremeInputs, encodeTexts, splitRows, stackRows } from '../../../agent/bundles/vet-inputs.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { hasShared, sharedPath } from '../../support/shared.ts';
import { ENDLESS, expanding, FLOAT, floats, INT64, int64s, model, RELU_CASE, tinyBundle, value } from './tiny-onnx.ts';

const spinning = join(mkdtempSync(join(tmpdir(), 'setpoint-test-')), 'spinning.mjs');
writeFileSync(spinning, 'for (;;);');

const MEBIBYTE = 1024 * 1024;

async function refusal(bundle: Bundle, options: Partial<VetOptions> = {}): Promise<string> {
  try {
    await vetBundle(bundle, options);
  } catch (thrown) {
    if (thrown instanceof SetpointError && thrown.code === 'invalid_bundle') return thrown.message;
    throw thrown;
  }
  return 'accepted';
}

const rowsOf2 = [{ name: 'x', datatype: 'FP32', shape: [-1, 2] }];
const twoRows = floats('x', [2, 2], [1, 2, 3, 4]);
const batched = (op: string, wants: number[]): Bundle =>
  tinyBundle({
    model: model({
      nodes: [
        { op, inputs: op === 'Sub' ? ['x', 'mean'] : ['x'], outputs: ['y'] },
        ...(op === 'Sub' ? [{ op: 'ReduceMean', inputs: ['x'], outputs: ['mean'] }] : []),
      ].toReversed(),
      inputs: [value(11, 'x', FLOAT, ['N', 2])],
      outputs: [value(12, 'y', FLOAT, ['N', 2])],
    }),
    cases: [{ inputs: [twoRows], outputs: [floats('y', [2, 2], wants)] }],
    manifest: { inputs: rowsOf2, outputs: [{ name: 'y', datatype: 'FP32', shape: [-1, 2] }] },
  });

describe('vetBundle()', () => {
  test('reports lane, times and memory of a good bundle', async () => {
    const report = await vetBundle(tinyBundle(), { nowMillis: () => 7, inlineBudgetMicros: 1e6 });
    expect(report).toMatchObject({
      lane: 'inline',
      isUnbounded: false,
      isBatchable: false,
      runs: 200,
      goldenCases: 1,
      goldenMaxDifference: 0,
    });
    expect(report.bundleId).toBe(tinyBundle().bundleId);
    expect(report.vettedAtMillis).toBe(7);
    expect(report.runMicros.p50).toBeGreaterThan(0);
    expect(report.runMicros.p99).toBeGreaterThanOrEqual(report.runMicros.p50);
    expect(report.peakMemoryBytes).toBeGreaterThan(30 * MEBIBYTE);
    expect(parseVetReport(formatVetReport(report), 'vet.json')).toEqual(report);
  });

  test('takes rows as independent only when they are', async () => {
    expect((await vetBundle(batched('Relu', [1, 2, 3, 4]))).isBatchable).toBe(true);
    expect((await vetBundle(batched('Sub', [-1.5, -0.5, 0.5, 1.5]))).isBatchable).toBe(false);
  });

  test('ends a model that never returns, at the deadline', async () => {
    const start = performance.now();
    expect(await refusal(tinyBundle({ model: ENDLESS }), { deadlineMillis: 2000 })).toContain(
      'running the golden vectors did not end within the deadline of 2000 ms',
    );
    expect(performance.now() - start).toBeLessThan(10_000);
  });

  test('refuses a model that asks for 12 GB in one piece', async () => {
    const outputs = [{ name: 'y', datatype: 'FP32', shape: [3e9] }];
    expect(await refusal(tinyBundle({ model: expanding(3e9), manifest: { outputs } }))).toContain(
      'it asked for more memory than is allowed',
    );
  });

  test('ends a model that grows beyond the memory limit below what the kernel refuses', async () => {
    const outputs = [{ name: 'y', datatype: 'FP32', shape: [6e7] }];
    expect(await refusal(tinyBundle({ model: expanding(6e7), manifest: { outputs } }), { memoryLimitBytes: 200 * MEBIBYTE })).toContain(
      'running the golden vectors took more than the memory limit of 209715200 bytes',
    );
  });

  test('refuses golden vectors that do not hold, and inputs the model does not have', async () => {
    expect(await refusal(tinyBundle({ cases: [{ ...RELU_CASE, outputs: [floats('y', [1], [2.5])] }] }))).toContain(
      "golden case 0 does not hold: output 'y' is 2 at element 0, 2.5 is expected",
    );
    expect(await refusal(tinyBundle({ cases: [{ ...RELU_CASE, inputs: [floats('z', [1], [2])] }] }))).toContain(
      'golden case 0 gives inputs z, the model takes x',
    );
    expect(await refusal(tinyBundle({ cases: [{ ...RELU_CASE, outputs: [floats('z', [1], [2])] }] }))).toContain("output 'z'");
    expect(await refusal(tinyBundle({ cases: [{ ...RELU_CASE, inputs: [floats('x', [2], [2, 2])] }] }))).toContain(
      'golden case 0 does not run: ',
    );
  });

  test('refuses a manifest that declares other inputs or outputs than the model has', async () => {
    expect(await refusal(tinyBundle({ manifest: { inputs: [{ name: 'x', datatype: 'FP32', shape: [2] }] } }))).toContain(
      "input 0 of the model is 'x' FP32 [1], the manifest declares 'x' FP32 [2]",
    );
    expect(await refusal(tinyBundle({ manifest: { outputs: [{ name: 'y', datatype: 'FP64', shape: [1] }] } }))).toContain(
      'output 0 of the model',
    );
  });

  test('sends a model whose trip count is an input to the heavy lane, and does not run it for ever', async () => {
    const expand = model({
      nodes: [{ op: 'Expand', inputs: ['x', 'n'], outputs: ['y'] }],
      inputs: [value(11, 'x', FLOAT, [1]), value(11, 'n', INT64, [1])],
      outputs: [value(12, 'y', FLOAT, ['N'])],
    });
    const n = { name: 'n', datatype: 'INT64' as const, shape: [1], bytes: new Uint8Array([2, 0, 0, 0, 0, 0, 0, 0]) };
    const report = await vetBundle(
      tinyBundle({
        model: expand,
        cases: [{ inputs: [floats('x', [1], [3]), n], outputs: [floats('y', [2], [3, 3])] }],
        manifest: {
          inputs: [
            { name: 'x', datatype: 'FP32', shape: [1] },
            { name: 'n', datatype: 'INT64', shape: [1] },
          ],
          outputs: [{ name: 'y', datatype: 'FP32', shape: [-1] }],
        },
      }),
    );
    expect(report).toMatchObject({ lane: 'heavy', isUnbounded: true });
  });

  test('scans before it starts a process', async () => {
    const weights = model({ nodes: [], initializers: [int64s('w', [1], [1])], inputs: [], outputs: [] });
    expect(await refusal(tinyBundle({ model: weights }), { deadlineMillis: 1 })).toContain(
      'the model has 0 inputs, 1 to 64 are allowed (and 1 more)',
    );
  });

  test.skipIf(!hasShared)('refuses every negative case with a clear reason, before the engine sees it', () => {
    const reasons: Record<string, string> = {};
    for (const name of readdirSync(sharedPath('onnx-cases/negative'))) {
      try {
        scanBytes(readFileSync(sharedPath('onnx-cases/negative', name, 'model.onnx')), { domains: ['ai.onnx.ml'], externalData: [] }, 'it');
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(SetpointError);
        reasons[name] = (thrown as SetpointError).message;
      }
    }
    expect(reasons).toEqual({
      custom_op_domain:
        'Cannot accept it: operator ai.onnx.contrib:StringUpper (1 times) is of a domain that is not allowed; ai.onnx, ai.onnx.ml are allowed',
      empty_file: 'Cannot read the ONNX file: model at byte 0: it has no graph',
      external_data_traversal:
        'Cannot accept it: external data lies in "../../../../etc/hostname"; no external file is listed in model.externalData',
      opset_from_future: 'Cannot accept it: the model asks for opset 999 of ai.onnx, 26 is the newest supported',
      truncated: 'Cannot read the ONNX file: model at byte 55: field 7 has 31429 bytes, only 15695 are left',
    });
  });
});

describe('runLimited()', () => {
  test.skipIf(process.platform === 'win32')('ends a process that spins also when nobody watches it any more', () => {
    const watcher = `import { runLimited } from ${JSON.stringify(new URL('../../../agent/bundles/limited-process.ts', import.meta.url).href)};
      setTimeout(() => process.kill(process.pid, 'SIGKILL'), 400);
      await runLimited(${JSON.stringify(spinning)}, [], { deadlineMillis: 500, memoryLimitBytes: 1e9, outputBytes: 1000 });`;
    const { signal } = spawnSync(process.execPath, ['--input-type=module', '-e', watcher]);
    expect(signal).toBe('SIGKILL');
    const isSpinning = (): boolean => spawnSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).stdout.includes(spinning);
    expect(isSpinning()).toBe(true);
    const end = Date.now() + 20_000;
    while (isSpinning() && Date.now() < end) spawnSync('sleep', ['0.2']);
    expect(isSpinning()).toBe(false);
  });

  test('says how a process ended and keeps its environment empty of ours', async () => {
    process.env['SETPOINT_TEST_SECRET'] = 'x';
    const script = new URL('../../../test/agent/bundles/environment-child.ts', import.meta.url).pathname;
    const limits = { deadlineMillis: 20_000, memoryLimitBytes: 1024 * MEBIBYTE, outputBytes: 1000 };
    const result = await runLimited(script, [], limits);
    expect(result).toMatchObject({ limit: null, exitCode: 3 });
    expect(JSON.parse(result.output)).not.toContain('SETPOINT_TEST_SECRET');
    expect(JSON.parse(result.output)).toContain('ORT_DISABLE_TELEMETRY');
    expect((await runLimited(script, [], { ...limits, outputBytes: 3 })).limit).toBe('output');
  });
});

describe('chooseLane()', () => {
  test('is inline up to the budget, and never for an unbounded model', () => {
    expect(chooseLane(300, 300, false)).toBe('inline');
    expect(chooseLane(300.1, 300, false)).toBe('heavy');
    expect(chooseLane(1, 300, true)).toBe('heavy');
  });
});

describe('a stored report', () => {
  test('holds for the same bundle, engine and budget', () => {
    const report = { bundleId: 'a', engine: 'e', inlineBudgetMicros: 300 } as VetReport;
    expect(isCurrent(report, 'a', 'e', 300)).toBe(true);
    expect([isCurrent(report, 'b', 'e', 300), isCurrent(report, 'a', 'f', 300), isCurrent(report, 'a', 'e', 200)]).toEqual([
      false,
      false,
      false,
    ]);
  });

  test('is refused when it is damaged', () => {
    expect(() => parseVetReport(new TextEncoder().encode('{"lane":"inline"}'), 'vet.json')).toThrow(
      'Cannot read vet.json: it is not a vet report',
    );
  });
});

describe('trimEngineMessage()', () => {
  test('leaves the sentence and drops the C++ around it', () => {
    const noise =
      'Cannot load the model: /onnxruntime_src/onnxruntime/core/graph/model_load_utils.h:46 void onnxruntime::model_load_utils::ValidateOpsetForDomain(const std::unordered_map<std::__cxx11::basic_string<char>, int>&, bool, int) ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. Opset 27 is under development.\n';
    expect(trimEngineMessage(noise)).toBe('Opset 27 is under development');
    expect(trimEngineMessage('Fatal error: a:b(-1) is not a registered function/op')).toBe('a:b(-1) is not a registered function/op');
    expect(trimEngineMessage('x'.repeat(1000))).toHaveLength(303);
  });
});

describe('made-up inputs', () => {
  test('cover NaN, infinities, the largest numbers, zero and denormals of every float type', () => {
    const half = { name: 'h', datatype: 'FP16' as const, shape: [1], bytes: new Uint8Array(2) };
    const variants = extremeInputs([floats('x', [1], [1]), half], false);
    const first = variants.map(({ inputs: [x] }) => new Float32Array(x!.bytes.slice().buffer)[0]);
    expect(first).toEqual([NaN, Infinity, -Infinity, 3.4028234663852886e38, -3.4028234663852886e38, 0, 1.401298464324817e-45]);
    expect(variants.map(({ inputs: [, h] }) => Buffer.from(h!.bytes).readUInt16LE())).toEqual([
      0x7e00, 0x7c00, 0xfc00, 0x7bff, 0xfbff, 0, 1,
    ]);
  });

  test('leave integers of an unbounded model alone, since they may be trip counts', () => {
    const count = { name: 'n', datatype: 'INT64' as const, shape: [], bytes: new Uint8Array(8) };
    expect(extremeInputs([count], true)).toEqual([]);
    const values = extremeInputs([count], false).map(({ inputs: [n] }) => Buffer.from(n!.bytes).readBigInt64LE());
    expect(values).toEqual([0n, 1n, -1n, -(2n ** 63n), 2n ** 63n - 1n]);
  });

  test('cut rows out of batches and stack them again, texts too', () => {
    const texts = { name: 's', datatype: 'BYTES' as const, shape: [2, 1], bytes: encodeTexts(['abc', '']) };
    const rows = splitRows([twoRows, texts], 8);
    expect(rows).toHaveLength(2);
    expect(rows[1]![0]).toEqual(floats('x', [1, 2], [3, 4]));
    expect(rows[1]![1]!.bytes).toEqual(encodeTexts(['']));
    expect(stackRows(rows)).toEqual([twoRows, texts]);
    expect(splitRows([twoRows, floats('z', [3], [1, 2, 3])], 8)).toEqual([]);
    expect(stackRows([[floats('x', [1, 2], [1, 2])], [floats('x', [1, 1], [1])]])).toBeNull();
  });
});
