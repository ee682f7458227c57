import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { startAgent } from '../../bench/agent-server.ts';
import { writeBenchBundle } from '../../bench/bench-bundle.ts';
import { identityOf, isAlive } from '../../bench/processor-time.ts';
import { temporaryDirectory } from '../support/agent.ts';

/** Two processes start, one of them vets a model, and the store drains before they end. */
const TIMEOUT_MILLIS = 60_000;

function slotsIn(folder: string): Record<string, string> {
  const bundle = join(folder, 'bundle');
  writeBenchBundle(bundle, 'mlp');
  return { 'bench/mlp': bundle };
}

test.runIf(process.platform === 'linux')(
  'the agent of the benches has its store, and takes it along when it ends',
  async () => {
    const folder = temporaryDirectory();
    const agent = await startAgent({ folder, slots: slotsIn(folder), settings: {} });
    const store = identityOf(agent.storePid!)!;
    try {
      expect(isAlive(store)).toBe(true);
      expect((await agent.status()).store).toMatchObject({ state: 'draining', processId: store.pid });
      expect(await agent.metric('setpoint_journal_records_total')).toBe(0);
      await agent.settle();
    } finally {
      await agent.stop();
    }
    expect(isAlive(store)).toBe(false);
  },
  TIMEOUT_MILLIS,
);

test.runIf(process.platform === 'linux')(
  'a store process that is stopped, as the drain bench does, does not outlive the agent either',
  async () => {
    const folder = temporaryDirectory();
    const agent = await startAgent({ folder, slots: slotsIn(folder), settings: {} });
    const store = identityOf(agent.storePid!)!;
    process.kill(store.pid, 'SIGSTOP');
    process.kill(agent.pid, 'SIGKILL');
    // Once it is collected, nobody can ask it for its children.
    while (existsSync(`/proc/${agent.pid}`)) await sleep(20);
    await agent.stop();
    expect(isAlive(store)).toBe(false);
  },
  TIMEOUT_MILLIS,
);

test.runIf(process.platform === 'linux')(
  'without a store by configuration there is none to wait for',
  async () => {
    const folder = temporaryDirectory();
    const agent = await startAgent({ folder, slots: slotsIn(folder), settings: { store: { enabled: false } } });
    try {
      expect(agent.storePid).toBeNull();
      expect((await agent.status()).store).toBeNull();
      await agent.settle();
    } finally {
      await agent.stop();
    }
  },
  TIMEOUT_MILLIS,
);
