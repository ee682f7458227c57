import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Bundle } from '../../../agent/bundles/bundle.ts';
import { BundleStore, type Vet } from '../../../agent/bundles/store.ts';
import type { VetReport } from '../../../agent/bundles/vet-report.ts';
import { ENGINE } from '../../../agent/infer/session.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { tinyBundle } from './tiny-onnx.ts';

function reportOf(bundle: Bundle, inlineBudgetMicros: number): VetReport {
  return {
    format: 'setpoint.vet.v1',
    bundleId: bundle.bundleId,
    engine: ENGINE,
    lane: 'inline',
    isUnbounded: false,
    inlineBudgetMicros,
    isBatchable: false,
    runMicros: { p50: 1, p99: 2, max: 3 },
    runs: 200,
    loadMillis: 1,
    peakMemoryBytes: 1,
    goldenCases: 1,
    goldenMaxDifference: 0,
    vettedAtMillis: 1,
  };
}

function newStore(): { store: BundleStore; folder: string; vetted: () => number; vet: Vet } {
  let count = 0;
  const vet: Vet = async (bundle, { inlineBudgetMicros = 300 }) => {
    count += 1;
    return reportOf(bundle, inlineBudgetMicros);
  };
  const folder = mkdtempSync(join(tmpdir(), 'setpoint-test-'));
  return { store: new BundleStore(folder, vet), folder, vetted: () => count, vet };
}

describe('BundleStore', () => {
  test('keeps a bundle under its id, and opens it verified', async () => {
    const { store, folder } = newStore();
    const bundle = tinyBundle();
    const stored = await store.install(bundle);
    expect(stored.folder).toBe(join(folder, 'bundles', bundle.bundleId));
    expect(stored.report).toBeNull();
    expect(readdirSync(stored.folder).sort()).toEqual(['golden.json', 'manifest.json', 'model.onnx']);
    expect(store.get(bundle.bundleId).bundle.manifest).toEqual(bundle.manifest);
    expect(store.list()).toEqual([{ bundleId: bundle.bundleId, name: 'tiny', version: '1', isVetted: false }]);
    expect((await store.install(bundle)).folder).toBe(stored.folder);
  });

  test('vets once for an engine and a budget, also when two ask at once, and remembers it', async () => {
    const { store, folder, vetted, vet } = newStore();
    const { bundle } = await store.install(tinyBundle());
    const both = await Promise.all([store.vet(bundle.bundleId), store.vet(bundle.bundleId)]);
    expect(both[0]).toEqual(both[1]);
    expect(vetted()).toBe(1);
    const again = new BundleStore(folder, vet);
    expect(await again.vet(bundle.bundleId)).toEqual(both[0]);
    expect(again.get(bundle.bundleId).report).toEqual(both[0]);
    expect(vetted()).toBe(1);
    await again.vet(bundle.bundleId, { inlineBudgetMicros: 100 });
    expect(vetted()).toBe(2);
    writeFileSync(join(folder, 'bundles', `${bundle.bundleId}.vet.json`), '{broken');
    await again.vet(bundle.bundleId);
    expect(vetted()).toBe(3);
  });

  test('replaces a damaged bundle when it is installed again', async () => {
    const { store } = newStore();
    const { folder, bundle } = await store.install(tinyBundle());
    writeFileSync(join(folder, 'model.onnx'), 'damaged');
    expect(() => store.get(bundle.bundleId)).toThrow(SetpointError);
    await store.install(tinyBundle());
    expect(store.get(bundle.bundleId).bundle.bundleId).toBe(bundle.bundleId);
  });

  test('refuses a folder that holds another bundle than its name says', async () => {
    const { store, folder } = newStore();
    const { bundle } = await store.install(tinyBundle());
    const other = 'a'.repeat(64);
    renameSync(join(folder, 'bundles', bundle.bundleId), join(folder, 'bundles', other));
    expect(() => store.get(other)).toThrow(`its manifest has SHA-256 ${bundle.bundleId}`);
  });

  test('removes a bundle with its report, and what a crash left half written', async () => {
    const { store, folder } = newStore();
    const { bundle } = await store.install(tinyBundle());
    await store.vet(bundle.bundleId);
    store.remove(bundle.bundleId);
    store.remove(bundle.bundleId);
    expect(readdirSync(join(folder, 'bundles'))).toEqual([]);
    mkdirSync(join(folder, 'bundles', '.setpoint-0123456789abcdef.tmp'));
    expect(new BundleStore(folder).list()).toEqual([]);
    expect(existsSync(join(folder, 'bundles', '.setpoint-0123456789abcdef.tmp'))).toBe(false);
  });

  test('takes only ids, so that no path leads out of it', () => {
    const { store } = newStore();
    for (const id of ['../x', '', 'A'.repeat(64), `${'a'.repeat(64)}/..`]) {
      expect(() => store.get(id)).toThrow('an id is 64 lower-case hexadecimal digits');
      expect(() => store.remove(id)).toThrow('an id is 64');
    }
    expect(() => store.get('b'.repeat(64))).toThrow('there is none');
  });
});
