import { describe, expect, test } from 'vitest';
import { type CrashSettings, runCrash } from '../crash/run.ts';
import { temporaryDirectory } from '../support/agent.ts';

/** A little of `npm run test:crash`: test/crash/README.md tells what is checked. */

function settingsOf(more: Partial<CrashSettings>): CrashSettings {
  return { rounds: 3, kill: 'all', seed: 1, ratePerSecond: 1500, mutant: null, directory: temporaryDirectory(), ...more };
}

describe.runIf(process.platform === 'linux')('nothing that was answered is lost', () => {
  test.each(['serve', 'store', 'both'] as const)('when it is kill -9 for: %s', { timeout: 120_000 }, async (kill) => {
    const report = await runCrash(settingsOf({ kill }), () => {});
    expect(report.troubles).toEqual([]);
    expect(report.evidence).toMatchObject({ missing: 0, duplicated: 0, wrong: 0, holes: 0, statedLost: 0, examples: [], oddities: [] });
    expect(report.chain.report).toBe('');
    expect(report).toMatchObject({ isOk: true, wrongAnswers: [], rounds: 3 });
    expect(report.kills[kill]).toBe(3);
    expect(report.answered).toBeGreaterThan(100);
    expect(report.evidence.records).toBeGreaterThanOrEqual(report.answered);
    expect(report.chain.entries).toBeGreaterThanOrEqual(report.evidence.records - report.evidence.undrained);
  });

  test('and an agent that answers before it writes is found out', { timeout: 120_000 }, async () => {
    const report = await runCrash(settingsOf({ kill: 'serve', mutant: 'reply-before-journal', rounds: 6, isImpatient: true }), () => {});
    expect(report.isOk).toBe(false);
    expect(report.evidence.missing).toBeGreaterThan(0);
    expect(report.evidence.examples[0]).toContain('was answered and is nowhere');
  });
});
