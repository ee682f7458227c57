import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { RELU } from './bundles/tiny-onnx.ts';

const CLI = join(import.meta.dirname, '../../agent/setpoint.ts');
const folder = mkdtempSync(join(tmpdir(), 'setpoint-test-'));
const at = (...parts: string[]): string => join(folder, ...parts);

function setpoint(...args: string[]): { code: number | null; out: string; error: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], { encoding: 'utf8', timeout: 60_000 });
  return { code: status, out: stdout, error: stderr };
}

writeFileSync(at('m.onnx'), RELU);
writeFileSync(
  at('s.yaml'),
  `name: etch
version: '1'
kind: prediction
features: [{ name: a, min: 0, max: 1 }]
roles: { prediction: { output: y, unit: nm }, reference: { output: y } }
guard: { reliance: { trainingMean: 73.08337537593985, trainingStandardDeviation: 6.653990749912171, maximalErrorFraction: 0.1 } }
fallback: { estimator: none, baselineValue: 1 }
lineage: { trainer: me }
`,
);

describe('setpoint bundle', () => {
  test('creates, inspects, vets, packs and unpacks', () => {
    const created = setpoint(
      'bundle',
      'create',
      '--model',
      at('m.onnx'),
      '--spec',
      at('s.yaml'),
      '-o',
      at('b'),
      '--file',
      at('b.setpoint'),
    );
    expect(created).toMatchObject({ code: 0, error: '' });
    const id = /^bundle\s+([0-9a-f]{64})$/m.exec(created.out)?.[1] ?? 'none';
    expect(created.out).toContain('golden       4 cases from made-up rows, max difference 0');

    const inspected = setpoint('bundle', 'inspect', at('b.setpoint'), '--vet');
    expect(inspected).toMatchObject({ code: 0, error: '' });
    for (const line of [id, 'etch 1 (prediction)', 'x  FP32 [1]', 'RI_T 0.5829', 'prediction = y in nm', 'trainer me', 'Relu 1', ' lane']) {
      expect(inspected.out).toContain(line);
    }
    const json = JSON.parse(setpoint('bundle', 'inspect', at('b'), '--json').out) as {
      bundleId: string;
      relianceThreshold: number;
      vet: unknown;
    };
    expect(json.bundleId).toBe(id);
    expect(json.relianceThreshold).toBeCloseTo(0.5828891338177472, 6);
    expect(json.vet).toBeNull();

    const vetted = JSON.parse(setpoint('bundle', 'vet', at('b'), '--json', '--inline-budget', '1').out) as { lane: string };
    expect(vetted.lane).toBe('heavy');
    expect(setpoint('bundle', 'unpack', at('b.setpoint'), '-o', at('c')).out).toContain(id);
    expect(setpoint('bundle', 'pack', at('c'), '-o', at('c.setpoint')).code).toBe(0);
    expect(readFileSync(at('c.setpoint'))).toEqual(readFileSync(at('b.setpoint')));
  });

  test('ends with 1, an error and a remedy when something is wrong, and never with a stack', () => {
    writeFileSync(at('bad.onnx'), RELU.subarray(0, 40));
    const cases: [string[], string][] = [
      [['bundle', 'vet', at('nothing')], 'there is none'],
      [['bundle', 'create', '--model', at('bad.onnx'), '--spec', at('s.yaml'), '-o', at('d')], 'Cannot read the ONNX file'],
      [['bundle', 'create', '--model', at('m.onnx'), '--spec', at('m.onnx'), '-o', at('d')], 'error: Cannot'],
      [['bundle', 'inspect', at('s.yaml')], 'not a ustar archive'],
      [['bundle', 'pack', folder, '-o', at('e')], 'manifest.json is missing'],
    ];
    for (const [args, expected] of cases) {
      const { code, error } = setpoint(...args);
      expect(error).toContain(expected);
      expect(error).toMatch(/^error: .+\nremedy: .+\n$/);
      expect(code).toBe(1);
    }
  });

  test('prints usage: asked for with 0, wrongly used with 2', () => {
    expect(setpoint('--help')).toMatchObject({ code: 0, error: '' });
    expect(setpoint('bundle', '--help').out).toContain('create --model');
    expect(setpoint('bundle', 'vet', '--help')).toMatchObject({ code: 0, error: '' });
    for (const args of [
      [],
      ['nothing'],
      ['bundle'],
      ['bundle', 'nothing'],
      ['bundle', 'vet'],
      ['bundle', 'vet', 'a', 'b'],
      ['bundle', 'vet', 'a', '--frob'],
    ]) {
      const { code, error, out } = setpoint(...args);
      expect([code, out], args.join(' ')).toEqual([2, '']);
      expect(error).toContain('Usage: setpoint');
      expect(error).not.toContain('    at ');
    }
    expect(setpoint('bundle', 'vet', 'a', '--deadline', '-1').code).toBe(2);
    expect(setpoint('bundle', 'pack', 'a').error).toContain('error: --output is missing');
  });
});
