import { parseArgs, type ParseArgsConfig } from 'node:util';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { openBundle, packBundle, writeBundle } from './bundle.ts';
import { createBundle } from './create.ts';
import { formatInspection, formatLines, inspectBundle, vetLines } from './inspect.ts';
import { readOnnxModel } from './onnx-model.ts';
import { BUNDLE_USAGE, USAGE } from './usage.ts';
import { VET_DEFAULTS, vetBundle } from './vet.ts';

/** The commands of `setpoint bundle`. They write through `Terminal` and return the exit code: 0, 1 operating error, 2 usage. */
export interface Terminal {
  out(text: string): void;
  error(text: string): void;
}

class UsageError extends Error {}

type Values = Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>;

interface Command {
  readonly options: NonNullable<ParseArgsConfig['options']>;
  /** Names of the positional arguments, all required. */
  readonly takes: readonly string[];
  run(values: Values, positionals: readonly string[], terminal: Terminal): Promise<void>;
}

const text = { type: 'string' } as const;
const flag = { type: 'boolean' } as const;
const vetOptions = { 'inline-budget': text, deadline: text, 'memory-limit': text };

const COMMANDS: Readonly<Record<string, Command>> = {
  create: {
    options: {
      model: text,
      spec: text,
      output: { ...text, short: 'o' },
      golden: text,
      rows: text,
      external: { ...text, multiple: true },
      file: text,
    },
    takes: [],
    run: runCreate,
  },
  inspect: { options: { json: flag, vet: flag, ...vetOptions }, takes: ['PATH'], run: runInspect },
  vet: { options: { json: flag, ...vetOptions }, takes: ['PATH'], run: runVet },
  pack: { options: { output: { ...text, short: 'o' } }, takes: ['DIR'], run: runPack },
  unpack: { options: { output: { ...text, short: 'o' } }, takes: ['FILE'], run: runUnpack },
};

/** Runs `setpoint ...args` and returns its exit code. Only programmer errors escape. */
export async function runSetpoint(args: readonly string[], terminal: Terminal): Promise<number> {
  const [group, name, ...rest] = args;
  if (group === undefined || group === '--help' || group === '-h') {
    terminal[group === undefined ? 'error' : 'out'](USAGE);
    return group === undefined ? 2 : 0;
  }
  try {
    if (group !== 'bundle') throw new UsageError(`unknown command '${group}'`);
    if (name === '--help' || name === '-h' || rest.includes('--help') || rest.includes('-h')) {
      terminal.out(BUNDLE_USAGE);
      return 0;
    }
    const command = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (command === undefined) throw new UsageError(name === undefined ? 'a command is missing' : `unknown command 'bundle ${name}'`);
    const { values, positionals } = readArguments(command, rest);
    await command.run(values, positionals, terminal);
    return 0;
  } catch (thrown) {
    return report(thrown, terminal, group === 'bundle' ? BUNDLE_USAGE : USAGE);
  }
}

function report(thrown: unknown, terminal: Terminal, usage: string): number {
  if (thrown instanceof UsageError) {
    terminal.error(`error: ${thrown.message}\n\n${usage}`);
    return 2;
  }
  if (!(thrown instanceof SetpointError)) throw thrown;
  terminal.error(`error: ${thrown.message}\nremedy: ${thrown.remedy}\n`);
  return 1;
}

function readArguments(command: Command, args: readonly string[]): { values: Values; positionals: readonly string[] } {
  let parsed: { values: Values; positionals: string[] };
  try {
    parsed = parseArgs({ args: [...args], options: command.options, allowPositionals: true, strict: true });
  } catch (cause) {
    throw new UsageError(messageOf(cause), { cause });
  }
  if (parsed.positionals.length !== command.takes.length) {
    throw new UsageError(`${command.takes.join(' ') || 'no argument'} is expected, ${parsed.positionals.length} arguments are given`);
  }
  return parsed;
}

function required(values: Values, name: string): string {
  const value = optionalText(values, name);
  if (value === null) throw new UsageError(`--${name} is missing`);
  return value;
}

function optionalText(values: Values, name: string): string | null {
  const value = values[name];
  return typeof value === 'string' ? value : null;
}

function positiveNumber(values: Values, name: string, otherwise: number): number {
  const value = optionalText(values, name);
  if (value === null) return otherwise;
  const number = Number(value);
  if (!Number.isFinite(number) || number <= 0) throw new UsageError(`--${name} is '${value}', a number above 0 is allowed`);
  return number;
}

function vetOptionsOf(values: Values): { inlineBudgetMicros: number; deadlineMillis: number; memoryLimitBytes: number } {
  const mebibyte = 1024 * 1024;
  return {
    inlineBudgetMicros: positiveNumber(values, 'inline-budget', VET_DEFAULTS.inlineBudgetMicros),
    deadlineMillis: positiveNumber(values, 'deadline', VET_DEFAULTS.deadlineMillis),
    memoryLimitBytes: positiveNumber(values, 'memory-limit', VET_DEFAULTS.memoryLimitBytes / mebibyte) * mebibyte,
  };
}

async function runCreate(values: Values, _positionals: readonly string[], terminal: Terminal): Promise<void> {
  const golden = optionalText(values, 'golden');
  const rows = optionalText(values, 'rows');
  if (golden !== null && rows !== null) throw new UsageError('--golden and --rows exclude each other');
  const external = Array.isArray(values['external']) ? values['external'].map(String) : [];
  const output = required(values, 'output');
  const file = optionalText(values, 'file');
  const request = { model: required(values, 'model'), spec: required(values, 'spec'), output, golden, rows, external, file };
  const result = await createBundle(request);
  const { manifest, bundleId } = result.bundle;
  terminal.out(
    formatLines([
      ['bundle', bundleId],
      ['name', `${manifest.name} ${manifest.version} (${manifest.kind})`],
      ['folder', result.wasWritten ? output : `${output} (was already there)`],
      ...(file === null ? [] : [['single file', file] as const]),
      ...manifest.files.map(({ path, size }) => ['file', `${path}  ${size} bytes`] as const),
      ['golden', `${result.goldenCases} cases from ${result.goldenSource}, max difference ${result.goldenMaxDifference}`],
    ]),
  );
}

async function runInspect(values: Values, [path = '']: readonly string[], terminal: Terminal): Promise<void> {
  const bundle = openBundle(path);
  const model = readOnnxModel(bundle.read(bundle.manifest.model.path));
  const vet = values['vet'] === true ? await vetBundle(bundle, vetOptionsOf(values)) : null;
  const inspection = inspectBundle(bundle.bundleId, bundle.manifest, model, vet);
  terminal.out(values['json'] === true ? `${JSON.stringify(inspection, null, 1)}\n` : formatInspection(inspection));
}

async function runVet(values: Values, [path = '']: readonly string[], terminal: Terminal): Promise<void> {
  const report = await vetBundle(openBundle(path), vetOptionsOf(values));
  terminal.out(
    values['json'] === true ? `${JSON.stringify(report, null, 1)}\n` : formatLines([['bundle', report.bundleId], ...vetLines(report)]),
  );
}

async function runPack(values: Values, [path = '']: readonly string[], terminal: Terminal): Promise<void> {
  const output = required(values, 'output');
  const bundle = openBundle(path);
  const wasWritten = packBundle(bundle, output);
  terminal.out(
    formatLines([
      ['bundle', bundle.bundleId],
      ['single file', wasWritten ? output : `${output} (was already there)`],
    ]),
  );
}

async function runUnpack(values: Values, [path = '']: readonly string[], terminal: Terminal): Promise<void> {
  const output = required(values, 'output');
  const bundle = openBundle(path);
  const wasWritten = writeBundle(output, bundle);
  terminal.out(
    formatLines([
      ['bundle', bundle.bundleId],
      ['folder', wasWritten ? output : `${output} (was already there)`],
    ]),
  );
}
