import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';

/** The rules of the house, as code. Each says what to do instead. */

const root = resolve(import.meta.dirname, '..');

interface Source {
  readonly path: string;
  readonly text: string;
  /** Imported specifiers, with whether only types are imported. */
  readonly imports: readonly { readonly specifier: string; readonly isTypeOnly: boolean }[];
}

function sourcesOf(folder: string): Source[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
    .map((entry) => {
      const path = relative(root, join(entry.parentPath, entry.name));
      const text = readFileSync(join(root, path), 'utf8');
      return { path, text, imports: importsOf(text) };
    });
}

function importsOf(text: string): Source['imports'] {
  const found = text.matchAll(/^\s*(?:import|export)\s+(type\s)?(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]/gm);
  const dynamic = text.matchAll(/(?:import\(|require\(|createRequire\([^)]*\)\()\s*['"]([^'"]+)['"]/g);
  return [
    ...[...found].map((match) => ({ specifier: match[2] as string, isTypeOnly: match[1] !== undefined })),
    ...[...dynamic].map((match) => ({ specifier: match[1] as string, isTypeOnly: false })),
  ];
}

/** The top folder a relative import leads to, null for packages. */
function target(source: Source, specifier: string): string | null {
  if (!specifier.startsWith('.')) return null;
  return relative(root, resolve(root, dirname(source.path), specifier));
}

const folders = ['protocol', 'agent', 'bench', 'test'] as const;
const all = folders.flatMap(sourcesOf);
const inFolder = (folder: string): Source[] => all.filter((source) => source.path.startsWith(`${folder}/`));

/** Violations as readable lines, so that a failure says what to change. */
function violations(sources: readonly Source[], isWrong: (path: string, specifier: string, source: Source) => boolean): string[] {
  return sources.flatMap((source) =>
    source.imports
      .filter(({ specifier }) => isWrong(target(source, specifier) ?? specifier, specifier, source))
      .map(({ specifier }) => `${source.path} imports ${specifier}`),
  );
}

/** Packages that one file per side may import: everything else goes through that file. */
const DOORS: readonly (readonly [string, RegExp, readonly string[]])[] = [
  ['uWebSockets.js', /^uWebSockets\.js/, ['agent/serve/door.ts', 'bench/floor-server.ts']],
  ['onnxruntime-node', /^onnxruntime/, ['agent/infer/session.ts', 'bench/peers/model.ts']],
  ['piscina', /^piscina/, ['agent/infer/heavy-process.ts']],
  ['lmdb', /^lmdb/, ['agent/store/database.ts']],
  ['msgpackr', /^msgpackr/, ['protocol/codec.ts', 'bench/peers/ws-codec.ts']],
];

/** Pure files: decisions without clock, randomness, files or sockets. */
const PURE = [
  /^protocol\/(frame-parts|scan|decode|decode-server|encode|fields|frames|frame-error|tensors|datatype|limits|errors|backoff)\.ts$/,
  /^agent\/guard\//,
  /^agent\/http\/(?!routes)/,
  /^agent\/journal\/(record|crc32c|gap)\.ts$/,
  /^agent\/store\/(entry|keys|retention|drain-plan)\.ts$/,
  /^agent\/bundles\/(onnx-|protobuf-reader|tensor-)/,
  /^agent\/infer\/tensor\.ts$/,
  /^agent\/serve\/(alert-gate|inputs|lifetime-counts|runner)\.ts$/,
];
const IMPURE_USES =
  /\bDate\.now\(|\bMath\.random\(|\bnew Date\(\)|\bperformance\.now\(|\bsetTimeout\(|\bsetInterval\(|\bprocess\.|\bawait\b/;

describe('the house', () => {
  test('has files to check in every folder', () => {
    for (const folder of folders) expect(inFolder(folder).length, folder).toBeGreaterThan(3);
    expect(all.reduce((sum, source) => sum + source.imports.length, 0)).toBeGreaterThan(200);
  });

  test('protocol imports nothing of ours', () => {
    expect(violations(inFolder('protocol'), (path) => /^(agent|hub|bench|test)\//.test(path))).toEqual([]);
  });

  test('agent imports neither hub nor bench nor test', () => {
    expect(violations(inFolder('agent'), (path) => /^(hub|bench|test)\//.test(path))).toEqual([]);
  });

  test('bench imports nothing of test', () => {
    expect(violations(inFolder('bench'), (path) => path.startsWith('test/'))).toEqual([]);
  });

  test.each(DOORS)('%s is imported by one file per side', (_name, pattern, doors) => {
    const outside = [...inFolder('protocol'), ...inFolder('agent'), ...inFolder('bench')].filter((source) => !doors.includes(source.path));
    expect(violations(outside, (_path, specifier) => pattern.test(specifier))).toEqual([]);
    expect(all.some((source) => doors.includes(source.path) && source.imports.some(({ specifier }) => pattern.test(specifier)))).toBe(true);
  });

  test('decisions are pure: no clock, randomness, timers, files, sockets or waiting', () => {
    const pure = all.filter((source) => PURE.some((pattern) => pattern.test(source.path)));
    expect(pure.length).toBeGreaterThan(25);
    expect(violations(pure, (path) => path.startsWith('node:'))).toEqual([]);
    const uses = pure.flatMap((source) => {
      const code = source.text.replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*|'[^'\n]*'|`[^`]*`/g, '');
      return IMPURE_USES.test(code) ? [`${source.path} uses ${IMPURE_USES.exec(code)?.[0]}`] : [];
    });
    expect(uses).toEqual([]);
  });

  test('only composition roots read the environment, install signal handlers or exit', () => {
    const roots = /^agent\/(main|setpoint)\.ts$|^agent\/(infer|store|audit)\/[a-z]+-process\.ts$|^agent\/bundles\/vet-child\.ts$/;
    const offenders = inFolder('agent')
      .filter((source) => !roots.test(source.path))
      .filter((source) => /process\.(exit\(|on\(|once\(|argv)/.test(source.text));
    expect(offenders.map((source) => source.path)).toEqual([]);
  });

  test('there are no barrels', () => {
    expect(all.filter((source) => /\/(index|mod)\.ts$/.test(source.path)).map((source) => source.path)).toEqual([]);
  });

  test('every folder has a README that is not empty', () => {
    const withCode = new Set(all.filter((source) => !source.path.startsWith('test/')).map((source) => dirname(source.path)));
    const without = [...withCode].filter((folder) => !readdirSync(join(root, folder)).includes('README.md') && folder !== 'bench/peers');
    expect(without).toEqual([]);
  });
});
