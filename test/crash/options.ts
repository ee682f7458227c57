import { parseArgs } from 'node:util';
import { MUTANT_NAMES, type MutantName } from './mutant.ts';

/** What is killed at the end of a round: the agent, its store process, or both at once. */
export type Kill = 'serve' | 'store' | 'both';
export const KILLS: readonly Kill[] = ['serve', 'store', 'both'];

export interface CrashOptions {
  readonly rounds: number;
  /** 'all': one of them at random in each round. */
  readonly kill: Kill | 'all';
  readonly seed: number;
  readonly ratePerSecond: number;
  readonly mutant: MutantName | null;
  /** Leaves the data directory where it is. */
  readonly isKept: boolean;
  readonly jsonFile: string | null;
}

export type Parsed =
  | { readonly kind: 'run'; readonly options: CrashOptions }
  | { readonly kind: 'help' }
  | { readonly kind: 'wrong'; readonly message: string };

/** With messages of 1.5 kB these fill a segment of 1 MiB on each of two threads every half second. */
const RATE_PER_SECOND = 3000;
const ROUNDS = 20;
const LIMITS = { rounds: 100_000, rate: 50_000, seed: 2 ** 32 - 1 } as const;

export const HELP = `usage: npm run test:crash -- [options]

Kills an agent, its store process or both under load, again and again, and looks whether anything that was answered is gone.

  --rounds N      kills (${ROUNDS})
  --kill WHAT     ${KILLS.join(', ')} or all: one of them at random (all)
  --seed S        of the moments and the choices (1); the kernel still schedules as it likes
  --rate R        requests a second over all controllers (${RATE_PER_SECOND})
  --mutant NAME   run a copy of the agent that is broken on purpose: ${MUTANT_NAMES.join(', ')}
  --keep          leave the data directory and the agent's log where they are
  --json FILE     write the report as JSON
  --help          this text

Exit code: 0 nothing was lost, 1 something was (or the run broke off), 2 wrong usage. test/crash/README.md tells what is checked.
`;

const OPTION_TYPES = {
  rounds: { type: 'string' },
  kill: { type: 'string' },
  seed: { type: 'string' },
  rate: { type: 'string' },
  mutant: { type: 'string' },
  keep: { type: 'boolean' },
  json: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** Reads the arguments after `test/crash/main.ts`. Nothing is guessed: what is not understood is `wrong`. */
export function parseOptions(args: readonly string[]): Parsed {
  try {
    const { values } = parseArgs({ args: [...args], options: OPTION_TYPES, strict: true });
    if (values.help === true) return { kind: 'help' };
    const options: CrashOptions = {
      rounds: count('rounds', values.rounds, LIMITS.rounds) ?? ROUNDS,
      kill: oneOf('kill', values.kill, [...KILLS, 'all'] as const) ?? 'all',
      seed: count('seed', values.seed, LIMITS.seed) ?? 1,
      ratePerSecond: count('rate', values.rate, LIMITS.rate) ?? RATE_PER_SECOND,
      mutant: oneOf('mutant', values.mutant, MUTANT_NAMES) ?? null,
      isKept: values.keep === true,
      jsonFile: values.json ?? null,
    };
    return { kind: 'run', options };
  } catch (thrown) {
    return { kind: 'wrong', message: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}

function count(name: string, text: string | undefined, max: number): number | null {
  if (text === undefined) return null;
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= max) return value;
  throw new Error(`--${name} takes a whole number from 1 to ${max}, found '${text}'`);
}

function oneOf<Name extends string>(name: string, text: string | undefined, names: readonly Name[]): Name | null {
  if (text === undefined) return null;
  const found = names.find((one) => one === text);
  if (found !== undefined) return found;
  throw new Error(`--${name} is one of ${names.join(', ')}, found '${text}'`);
}
