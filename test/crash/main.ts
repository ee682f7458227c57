import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeMachine, machineText } from '../../bench/machine.ts';
import { renderTable, type Table } from '../../bench/table.ts';
import { type CrashOptions, HELP, parseOptions } from './options.ts';
import { type CrashReport, type Round, runCrash } from './run.ts';

/** `npm run test:crash`. */

const EXIT = { ok: 0, failed: 1, usage: 2 } as const;
/** Lines where nobody watches. */
const QUIET_EVERY = 10;

function say(text: string): void {
  process.stdout.write(`${text}\n`);
}

function sayRound({ round, kill, answered, millis, evidence }: Round, rounds: number): void {
  const findings = evidence === null ? 0 : evidence.missing + evidence.duplicated + evidence.wrong + evidence.holes;
  if (!process.stdout.isTTY && round % QUIET_EVERY !== 0 && round !== rounds && findings === 0) return;
  const checked =
    evidence === null
      ? ''
      : `, ${evidence.records} records: ${evidence.missing} missing, ${evidence.duplicated} twice, ${evidence.wrong} wrong`;
  say(
    `round ${String(round).padStart(4)}  ${kill.padEnd(5)}  ${String(answered).padStart(5)} answered  ${millis.toFixed(0).padStart(5)} ms${checked}`,
  );
}

function tableOf(options: CrashOptions, report: CrashReport): Table {
  const { evidence, chain, kills } = report;
  return {
    title: `crash: ${report.rounds} rounds, ${kills.serve} agents, ${kills.store} stores and ${kills.both} times both killed`,
    columns: [
      { key: 'rounds', label: 'rounds' },
      { key: 'answered', label: 'answered' },
      { key: 'missing', label: 'missing' },
      { key: 'duplicated', label: 'duplicated' },
      { key: 'wrong', label: 'wrong' },
      { key: 'holes', label: 'holes' },
      { key: 'storeRestarts', label: 'store restarts' },
      { key: 'deleted', label: 'segments deleted' },
      { key: 'chain', label: chain.isSound ? 'chain verified' : 'chain NOT SOUND' },
      { key: 'seconds', label: 's/round', digits: 2 },
    ],
    rows: [
      {
        rounds: report.rounds,
        answered: report.answered,
        missing: evidence.missing,
        duplicated: evidence.duplicated,
        wrong: evidence.wrong + report.wrongAnswers.length,
        holes: evidence.holes + evidence.statedLost,
        storeRestarts: report.storeRestarts,
        deleted: report.segmentsDeleted,
        chain: chain.entries,
        seconds: report.secondsPerRound,
      },
    ],
    notes: [
      `seed ${options.seed}, ${options.ratePerSecond} requests/s, 2 serving threads, segments of 1 MiB; ${report.sent} sent, ${report.refused} refused, ${report.fallbacks} fallbacks, ${report.checks} checks`,
      ...(options.mutant === null ? [] : [`the agent is broken on purpose: ${options.mutant}`]),
    ],
  };
}

function findingsOf({ evidence, wrongAnswers, troubles, chain }: CrashReport): string[] {
  const verification = chain.isSound ? [] : [`audit verify: ${chain.report}`];
  return [...evidence.examples, ...wrongAnswers.slice(0, 10), ...evidence.oddities.slice(0, 10), ...troubles, ...verification];
}

async function main(): Promise<number> {
  const parsed = parseOptions(process.argv.slice(2));
  if (parsed.kind === 'help') {
    say(HELP);
    return EXIT.ok;
  }
  if (parsed.kind === 'wrong') {
    process.stderr.write(`error: ${parsed.message}\n\n${HELP}`);
    return EXIT.usage;
  }
  if (process.platform !== 'linux') {
    process.stderr.write('error: Cannot run: processes are found in /proc, which only Linux has\n');
    return EXIT.usage;
  }
  const { options } = parsed;
  const machine = describeMachine();
  say(machineText(machine));
  const directory = mkdtempSync(join(tmpdir(), 'setpoint-crash-'));
  const interruption = new AbortController();
  const stop = (signal: string): void => interruption.abort(new Error(`stopped by ${signal}`));
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  let isRemoved = !options.isKept;
  try {
    const { rounds, kill, seed, ratePerSecond, mutant } = options;
    const settings = { rounds, kill, seed, ratePerSecond, mutant, directory, interruption: interruption.signal };
    const report = await runCrash(settings, (round) => sayRound(round, rounds));
    const findings = findingsOf(report);
    say(`\n${renderTable(tableOf(options, report))}`);
    for (const finding of findings) say(`  FOUND ${finding}`);
    say(report.isOk ? '\nnothing was lost' : '\nFAILED');
    if (options.jsonFile !== null) writeFileSync(options.jsonFile, `${JSON.stringify({ machine, settings: options, report }, null, 2)}\n`);
    // A finding is to be looked into.
    isRemoved &&= report.isOk || mutant !== null;
    return report.isOk ? EXIT.ok : EXIT.failed;
  } catch (error) {
    isRemoved = false;
    process.stderr.write(`error: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
    return EXIT.failed;
  } finally {
    if (isRemoved) rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
    else say(`kept: ${directory}`);
  }
}

process.exitCode = await main();
