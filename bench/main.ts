import { readFileSync, writeFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { type BenchReport, modelAloneTable } from './bench-report.ts';
import { allMet, type Budgets, machineFactor, parseBudgets, verdictTable } from './budgets.ts';
import { Arena } from './contenders.ts';
import { runDurability } from './durability.ts';
import { runLatency } from './latency.ts';
import { describeMachine, machineText } from './machine.ts';
import { type BenchOptions, type Command, HELP, parseOptions } from './options.ts';
import { CORES, canPin } from './processor-pin.ts';
import { runPeers } from './peers.ts';
import { ModelAlone } from './rounds.ts';
import { runStore } from './store.ts';
import { renderTable, type Table } from './table.ts';
import { runThroughput } from './throughput.ts';

/** `npm run bench`: parses the command line, runs benches, prints tables, judges budgets. */

const EXIT = { met: 0, missed: 1, usage: 2, interrupted: 130 } as const;

type Bench = (arena: Arena, options: BenchOptions, compute: ModelAlone) => Promise<BenchReport>;

const BENCHES: Readonly<Record<Exclude<Command, 'check'>, Bench>> = {
  latency: runLatency,
  throughput: runThroughput,
  peers: runPeers,
  durability: runDurability,
  store: runStore,
};

function benchesOf(command: Command): readonly Bench[] {
  return command === 'check' ? Object.values(BENCHES) : [BENCHES[command]];
}

/** Each bench has servers of its own, so that none inherits the other's connections, caches or garbage. */
async function runBench(bench: Bench, options: BenchOptions, compute: ModelAlone): Promise<BenchReport> {
  const arena = new Arena(options.isPinned && canPin());
  const stop = (): void => {
    arena.stop().then(
      () => process.exit(EXIT.interrupted),
      () => process.exit(EXIT.interrupted),
    );
  };
  process.once('SIGINT', stop);
  process.once('SIGTERM', stop);
  try {
    return await bench(arena, options, compute);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    await arena.stop();
  }
}

function print(table: Table): void {
  console.log(`\n${renderTable(table)}`);
}

function settingsText(options: BenchOptions): string {
  const note = options.quick ? ' (quick: shows that it works, proves no number)' : '';
  const cores = options.isPinned && canPin() ? `servers on core ${CORES.server}, clients on core ${CORES.client}` : 'not pinned to cores';
  return `settings: ${options.command}, ${paceText(options)}, ${cores}${note}`;
}

/** What is repeated in rounds, and the store bench, which is not. */
function paceText({ command, rounds, durationMillis, warmupMillis, store }: BenchOptions): string {
  const inRounds = `${rounds} rounds, ${durationMillis} ms each after ${warmupMillis} ms of warm-up`;
  const { ratePerSecond, holdMillis, soakMillis } = store;
  const inStore = `store: ${ratePerSecond}/s for ${store.durationMillis} ms, held up for ${holdMillis} ms, soak of ${soakMillis} ms`;
  if (command === 'store') return inStore;
  return command === 'check' ? `${inRounds}; ${inStore}` : inRounds;
}

async function runCommand(options: BenchOptions, budgets: Budgets): Promise<number> {
  const machine = describeMachine();
  console.log(`${machineText(machine)}\n${settingsText(options)}`);
  const compute = new ModelAlone();
  const tables: Table[] = [];
  const measures: Record<string, number | null> = {};
  for (const bench of benchesOf(options.command)) {
    const report = await runBench(bench, options, compute);
    report.tables.forEach(print);
    tables.push(...report.tables);
    Object.assign(measures, report.measures);
  }
  const factor = machineFactor(
    budgets,
    compute.loop.median(({ latencyMicros }) => latencyMicros?.p50 ?? null),
  );
  const judged = budgets.budgets.filter(({ bench }) => options.command === 'check' || bench === options.command);
  const closing = [modelAloneTable(compute, factor), verdictTable({ ...budgets, budgets: judged }, measures, factor)];
  closing.forEach(print);
  tables.push(...closing);
  if (options.jsonFile !== null) {
    writeFileSync(
      options.jsonFile,
      `${JSON.stringify({ machine, settings: options, machineFactor: factor, measures, tables }, null, 2)}\n`,
    );
  }
  return options.command !== 'check' || allMet(budgets, measures) ? EXIT.met : EXIT.missed;
}

const parsed = parseOptions(process.argv.slice(2));
if (parsed.kind === 'help') {
  console.log(HELP);
} else if (parsed.kind === 'wrong') {
  console.error(`${parsed.message}\n\n${HELP}`);
  process.exitCode = EXIT.usage;
} else {
  const budgets = parseBudgets(readFileSync(resolve(import.meta.dirname, 'budgets.json'), 'utf8'));
  try {
    process.exitCode = await runCommand(parsed.options, budgets);
  } catch (thrown) {
    console.error(thrown instanceof Error ? thrown.message : thrown);
    process.exitCode = EXIT.missed;
  }
}
