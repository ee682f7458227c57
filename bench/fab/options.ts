/** What `npm start` was asked to do. */
export interface StartOptions {
  /** Run this long, then stop; null runs until Ctrl-C. */
  readonly seconds: number | null;
  readonly port: number;
  /** Predictions per second over all tools. */
  readonly rate: number;
  readonly seed: number;
}

export type ParsedOptions =
  | { readonly kind: 'run'; readonly options: StartOptions }
  | { readonly kind: 'help' }
  | { readonly kind: 'wrong'; readonly message: string };

const DEFAULTS: StartOptions = { seconds: null, port: 7433, rate: 300, seed: 1 };

export const USAGE = `Usage: npm start -- [options]

Starts an agent with the four bundles of the simulated fab, lets the fab's controllers ask it for predictions and
corrections, and shows what happens, until Ctrl-C.

  --seconds N  stop after N seconds
  --port P     port of the agent (default ${DEFAULTS.port}; another free port when it is taken)
  --rate R     predictions per second over all tools (default ${DEFAULTS.rate})
  --seed S     seed of the simulated fab (default ${DEFAULTS.seed})
  --help       show this text
`;

type Check = (value: number) => string | null;

const NUMBERS: Readonly<Record<string, { readonly key: keyof StartOptions; readonly check: Check }>> = {
  '--seconds': { key: 'seconds', check: (value) => (value > 0 && value <= 1e6 ? null : 'a number of seconds above 0, up to 1000000') },
  '--port': {
    key: 'port',
    check: (value) => (Number.isInteger(value) && value >= 1 && value <= 65_535 ? null : 'a whole number from 1 to 65535'),
  },
  '--rate': { key: 'rate', check: (value) => (value > 0 && value <= 100_000 ? null : 'a number above 0, up to 100000') },
  '--seed': {
    key: 'seed',
    check: (value) => (Number.isInteger(value) && value >= 0 && value < 2 ** 32 ? null : 'a whole number from 0 to 4294967295'),
  },
};

/** Reads the arguments after the script's name, `--name value` or `--name=value`. */
export function parseOptions(given: readonly string[]): ParsedOptions {
  let options = DEFAULTS;
  for (let at = 0; at < given.length; at++) {
    const argument = given[at] ?? '';
    if (argument === '--help' || argument === '-h') return { kind: 'help' };
    const equals = argument.indexOf('=');
    const name = equals < 0 ? argument : argument.slice(0, equals);
    const known = Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : undefined;
    if (known === undefined) return { kind: 'wrong', message: `Cannot start: ${JSON.stringify(argument)} is not an option` };
    const text = equals < 0 ? given[++at] : argument.slice(equals + 1);
    const value = text === undefined || text.trim() === '' ? Number.NaN : Number(text);
    const allowed = known.check(value);
    if (allowed !== null) {
      return {
        kind: 'wrong',
        message: `Cannot start: ${name}: value found is ${text === undefined ? 'nothing' : JSON.stringify(text)}, ${allowed} is allowed`,
      };
    }
    options = { ...options, [known.key]: value };
  }
  return { kind: 'run', options };
}
