import { parseArgs } from 'node:util';

const COMMANDS = ['latency', 'throughput', 'peers', 'durability', 'store', 'check'] as const;
export type Command = (typeof COMMANDS)[number];

export interface BenchOptions {
  readonly command: Command;
  readonly quick: boolean;
  readonly rounds: number;
  readonly durationMillis: number;
  readonly warmupMillis: number;
  /** Open-loop rates, requests a second. */
  readonly ratesPerSecond: readonly number[];
  /** WebSocket connections that the requests in flight are spread over, one table for each. */
  readonly connections: readonly number[];
  /** Requests in flight of the throughput bench, over all connections. */
  readonly inFlight: readonly number[];
  /** Servers on one core and clients on another, where the machine can. */
  readonly isPinned: boolean;
  readonly store: StoreBenchOptions;
  readonly jsonFile: string | null;
}

interface StoreBenchOptions {
  /** Decisions a second while the store takes them over. */
  readonly ratePerSecond: number;
  readonly durationMillis: number;
  /** How long the store process is held up, at 5,000 decisions a second, before it may drain. */
  readonly holdMillis: number;
  /** How long the store is kept at its cap. */
  readonly soakMillis: number;
}

export type Parsed =
  | { readonly kind: 'run'; readonly options: BenchOptions }
  | { readonly kind: 'help' }
  | { readonly kind: 'wrong'; readonly message: string };

/** 7 rounds of 2 s outlive the second-long hiccups of a shared machine; 3 of 0.4 s only show that everything works. */
const FULL = { rounds: 7, durationMillis: 2000, warmupMillis: 500 } as const;
const QUICK = { rounds: 3, durationMillis: 400, warmupMillis: 150 } as const;

/** Half a minute shows garbage collections, checkpoints and commits of every size; an hour of soak shows leaks. */
const FULL_STORE = { durationMillis: 30_000, holdMillis: 10_000, soakMillis: 60_000 } as const;
const QUICK_STORE = { durationMillis: 5000, holdMillis: 3000, soakMillis: 15_000 } as const;

/** 5% above the budget, which could otherwise be met by luck alone. */
const STORE_RATE_PER_SECOND = 21_000;

/** The budgets are written for these. */
export const BUDGET_RATE_PER_SECOND = 5000;
/** 256 controllers, each with the one request that a controller has: it asks about the wafer it has in hand. */
export const BUDGET_IN_FLIGHT = 256;
export const BUDGET_CONNECTIONS = 256;

export const HELP = `usage: npm run bench -- <command> [options]

  latency      closed loop and open loop against the echo floor, and the agent's own service time
  throughput   saturated, 1/64/256 requests in flight, against the echo floor
  peers        the same model behind Fastify, ws + msgpackr and gRPC, and the agent's HTTP door
  durability   journal only, journal and store, and a sync before each answer, against each other and the echo floor
  store        decisions a second into the store while serving, what it drains at most, and a soak at its cap
  check        all five, then the verdict on every budget of bench/budgets.json; exit code 1 unless all are met

  --quick              CI-sized: ${QUICK.rounds} rounds of ${QUICK.durationMillis} ms; shows that it works, proves no number
  --rounds N           rounds, each contender once a round in rotated order (${FULL.rounds})
  --duration MS        measured time of a contender in a round (${FULL.durationMillis})
                       store: time under load, once (${FULL_STORE.durationMillis})
  --warmup MS          unmeasured time before it (${FULL.warmupMillis})
  --rate N[,N...]      open-loop requests a second (${BUDGET_RATE_PER_SECOND}); store: one number (${STORE_RATE_PER_SECOND})
  --soak SECONDS       time of the soak, store only (${FULL_STORE.soakMillis / 1000})
  --in-flight N[,N...] requests in flight of throughput (1,64,${BUDGET_IN_FLIGHT})
  --connections N[,N...] WebSocket connections they are spread over, throughput only (1,64,${BUDGET_CONNECTIONS})
  --pinned             servers on one core, clients on another (Linux with taskset)
  --json FILE          write the same numbers as JSON
  --help               this text

bench/README.md tells how to read the tables.
`;

const OPTION_TYPES = {
  quick: { type: 'boolean' },
  rounds: { type: 'string' },
  duration: { type: 'string' },
  warmup: { type: 'string' },
  rate: { type: 'string' },
  'in-flight': { type: 'string' },
  connections: { type: 'string' },
  soak: { type: 'string' },
  pinned: { type: 'boolean' },
  json: { type: 'string' },
  help: { type: 'boolean', short: 'h' },
} as const;

/** Largest numbers that make sense; a typing error must not start a run of days. */
const LIMITS = { rounds: 1000, millis: 600_000, soakSeconds: 604_800, rate: 1_000_000, inFlight: 1024, connections: 256 } as const;

/** Reads the arguments after `bench/main.ts`. Nothing is guessed: what is not understood is `wrong`. */
export function parseOptions(args: readonly string[]): Parsed {
  try {
    const { values, positionals } = parseArgs({ args: [...args], options: OPTION_TYPES, allowPositionals: true, strict: true });
    if (values.help === true) return { kind: 'help' };
    const preset = values.quick === true ? QUICK : FULL;
    const given = command(positionals);
    const durationMillis = count('duration', values.duration, LIMITS.millis);
    const ratesPerSecond = counts('rate', values.rate, LIMITS.rate);
    const options: BenchOptions = {
      command: given,
      quick: values.quick === true,
      rounds: count('rounds', values.rounds, LIMITS.rounds) ?? preset.rounds,
      durationMillis: durationMillis ?? preset.durationMillis,
      warmupMillis: count('warmup', values.warmup, LIMITS.millis) ?? preset.warmupMillis,
      ratesPerSecond: ratesPerSecond ?? [BUDGET_RATE_PER_SECOND],
      inFlight: counts('in-flight', values['in-flight'], LIMITS.inFlight) ?? [1, 64, BUDGET_IN_FLIGHT],
      connections: counts('connections', values.connections, LIMITS.connections) ?? [1, 64, BUDGET_CONNECTIONS],
      isPinned: values.pinned === true,
      // In `check`, rate and duration are those of the rounds.
      store: storeOptions(values.quick === true, values.soak, given === 'store' ? { durationMillis, ratesPerSecond } : {}),
      jsonFile: values.json ?? null,
    };
    return { kind: 'run', options };
  } catch (thrown) {
    return { kind: 'wrong', message: thrown instanceof Error ? thrown.message : String(thrown) };
  }
}

function storeOptions(
  quick: boolean,
  soak: string | undefined,
  given: { readonly durationMillis?: number | null; readonly ratesPerSecond?: readonly number[] | null },
): StoreBenchOptions {
  const preset = quick ? QUICK_STORE : FULL_STORE;
  const [ratePerSecond = STORE_RATE_PER_SECOND, surplus] = given.ratesPerSecond ?? [];
  if (surplus !== undefined) throw new Error('Cannot use --rate with more than one number: store runs at one rate');
  const soakSeconds = count('soak', soak, LIMITS.soakSeconds);
  return {
    ratePerSecond,
    durationMillis: given.durationMillis ?? preset.durationMillis,
    holdMillis: preset.holdMillis,
    soakMillis: soakSeconds === null ? preset.soakMillis : soakSeconds * 1000,
  };
}

function command(positionals: readonly string[]): Command {
  const [given, surplus] = positionals;
  if (surplus !== undefined) throw new Error(`Unexpected argument '${surplus}': one command is allowed`);
  const found = COMMANDS.find((one) => one === given);
  if (found === undefined) {
    throw new Error(given === undefined ? `A command is missing: ${COMMANDS.join(', ')}` : `Unknown command '${given}'`);
  }
  return found;
}

function count(option: string, text: string | undefined, limit: number): number | null {
  if (text === undefined) return null;
  const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN;
  if (value >= 1 && value <= limit) return value;
  throw new Error(`Cannot use --${option} ${text}: a whole number from 1 to ${limit} is allowed`);
}

function counts(option: string, text: string | undefined, limit: number): number[] | null {
  if (text === undefined) return null;
  return text.split(',').map((one) => count(option, one, limit) ?? Number.NaN);
}
