import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Observation } from '../../../agent/guard/estimator.ts';
import type { EstimatorParameters } from '../../../agent/guard/policy.ts';
import { EstimatorStore } from '../../../agent/serve/estimator-store.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { policyOf } from '../guard/guarded-manifest.ts';

const NOW = 1_795_000_000_000;

const EWMA = policyOf({
  kind: 'prediction',
  roles: { prediction: { output: 'y' } },
  fallback: { estimator: 'ewma', lambda: 0.5, baselineValue: 1 },
});
const NONE = policyOf({ kind: 'prediction', roles: { prediction: { output: 'y' } }, fallback: { estimator: 'none', baselineValue: 1 } });

function observation(number: number, value: number): Observation {
  return { measurementId: `m-${number}`, processMillis: NOW - 10_000 + number, runNumber: number, value, appliedInput: null };
}

function learn(
  store: EstimatorStore,
  key: string,
  given: Observation,
  parameters: EstimatorParameters = EWMA,
): ReturnType<EstimatorStore['learn']> {
  return store.learn('etch', key, given, parameters, NOW, () => {
    throw new Error('nothing has to go');
  });
}

function pathIn(directory: string): string {
  return join(directory, 'estimators.json');
}

function reloaded(path: string): EstimatorStore {
  const store = new EstimatorStore(path);
  expect(store.load()).toEqual([]);
  return store;
}

describe('learn()', () => {
  test('gives outcome, estimate and state, and keeps the state', () => {
    const store = new EstimatorStore(pathIn(temporaryDirectory()));
    expect(learn(store, 'k', observation(1, 70))).toMatchObject({ outcome: 'applied', estimate: 70, state: { current: { count: 1 } } });
    const second = learn(store, 'k', observation(2, 72));
    expect([second.outcome, second.estimate]).toEqual(['applied', 71]);
    expect([...store.entries]).toEqual([{ slot: 'etch', key: 'k', state: second.state }]);
  });

  test('says duplicate, and changes nothing, for a measurement that it knows', () => {
    const store = new EstimatorStore(pathIn(temporaryDirectory()));
    const first = learn(store, 'k', observation(1, 70));
    expect(learn(store, 'k', observation(1, 90))).toEqual({ outcome: 'duplicate', estimate: 70, state: first.state });
  });

  test('records what a slot without an estimator cannot learn, without an entry', () => {
    const store = new EstimatorStore(pathIn(temporaryDirectory()));
    expect(learn(store, 'k', observation(1, 70), NONE)).toEqual({ outcome: 'recorded', estimate: null, state: undefined });
    expect([...store.entries]).toEqual([]);
  });

  test('keeps control threads apart', () => {
    const store = new EstimatorStore(pathIn(temporaryDirectory()));
    learn(store, 'a', observation(1, 70));
    learn(store, 'b', observation(1, 90));
    expect([...store.entries].map(({ key, state }) => [key, state.current.intercept])).toEqual([
      ['a', 70],
      ['b', 90],
    ]);
  });

  test('lets the thread that is longest without news go when there are too many', () => {
    const store = new EstimatorStore(pathIn(temporaryDirectory()));
    for (let index = 0; index < 10_000; index++) learn(store, `k${index}`, observation(1, 70));
    // The oldest has news again; the second oldest has to go.
    learn(store, 'k0', observation(2, 70));
    const evicted: string[] = [];
    const add = (key: string): void =>
      void store.learn('etch', key, observation(1, 70), EWMA, NOW, (slot, gone) => evicted.push(`${slot} ${gone}`));
    add('new 1');
    add('new 2');
    expect(evicted).toEqual(['etch k1', 'etch k2']);
    const keys = [...store.entries].map(({ key }) => key);
    expect([keys.length, keys.includes('k0'), keys.includes('k1'), keys.at(-1)]).toEqual([10_000, true, false, 'new 2']);
  });
});

describe('a snapshot', () => {
  test('brings states and positions back', () => {
    const path = pathIn(temporaryDirectory());
    const store = new EstimatorStore(path);
    learn(store, 'a', observation(1, 70));
    learn(store, 'b', observation(1, 90));
    store.reached(0, 17);
    store.reached(2, 2 ** 40);
    store.save([]);
    const again = reloaded(path);
    expect([...again.entries]).toEqual([...store.entries]);
    expect([0, 1, 2].map((stream) => again.position(stream))).toEqual([17, 0, 2 ** 40]);
    expect(learn(again, 'a', observation(1, 70)).outcome).toBe('duplicate');
    expect(learn(again, 'a', observation(2, 72)).estimate).toBe(71);
  });

  test('is written only when something changed, and leaves no draft behind', () => {
    const directory = temporaryDirectory();
    const store = new EstimatorStore(pathIn(directory));
    store.save([]);
    expect(readdirSync(directory)).toEqual([]);
    learn(store, 'a', observation(1, 70));
    store.save([]);
    expect(readdirSync(directory)).toEqual(['estimators.json']);
    writeFileSync(pathIn(directory), 'touched');
    store.save([]);
    expect(readFileSync(pathIn(directory), 'utf8')).toBe('touched');
    learn(store, 'a', observation(1, 70));
    store.save([]);
    expect(readFileSync(pathIn(directory), 'utf8')).toBe('touched');
    store.reached(0, 1);
    store.save([]);
    expect(readFileSync(pathIn(directory), 'utf8')).not.toBe('touched');
  });

  test('keeps observations that no slot could learn yet', () => {
    const path = pathIn(temporaryDirectory());
    const store = new EstimatorStore(path);
    const waiting = [{ slot: 'etch', frame: 'AQID', timeMillis: 5 }];
    store.changed();
    expect(JSON.parse(store.save(waiting) ?? '')).toMatchObject({ waiting });
    expect(new EstimatorStore(path).load()).toEqual(waiting);
  });

  test('is nothing to load at the first start', () => {
    const store = new EstimatorStore(pathIn(temporaryDirectory()));
    expect([store.load(), [...store.entries], store.position(0)]).toEqual([null, [], 0]);
  });

  const valid = {
    format: 'setpoint.estimators.v1',
    positions: [{ stream: 0, sequence: 9 }],
    threads: [] as unknown[],
    waiting: [] as unknown[],
  };

  test.each([
    ['is empty', ''],
    ['is cut short', JSON.stringify(valid).slice(0, -3)],
    ['is of another format', JSON.stringify({ ...valid, format: 'setpoint.estimators.v9' })],
    ['has no positions', JSON.stringify({ ...valid, positions: undefined })],
    ['has nothing that waits', JSON.stringify({ ...valid, waiting: undefined })],
    ['has no threads', JSON.stringify({ ...valid, threads: {} })],
    ['holds a state that cannot be', JSON.stringify({ ...valid, threads: [{ slot: 'etch', key: 'k', state: { base: 1 } }] })],
    ['is null', 'null'],
  ])('that %s is set aside and told of, and nothing of it is used', (_name, text) => {
    const directory = temporaryDirectory();
    writeFileSync(pathIn(directory), text);
    const store = new EstimatorStore(pathIn(directory));
    expect(() => store.load()).toThrow(/^Cannot read the estimators: .+: they are learnt again from what was kept$/);
    expect([[...store.entries], store.position(0)]).toEqual([[], 0]);
    expect(existsSync(pathIn(directory))).toBe(false);
    expect(readFileSync(`${pathIn(directory)}.damaged`, 'utf8')).toBe(text);
    learn(store, 'a', observation(1, 70));
    store.save([]);
    expect([...reloaded(pathIn(directory)).entries]).toHaveLength(1);
  });
});
