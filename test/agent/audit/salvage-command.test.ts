import { closeSync, existsSync, openSync, readFileSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { temporaryDirectory } from '../../support/agent.ts';
import { LAST, makeStore } from '../store/damaged-store.ts';
import { run } from './log-setup.ts';

/** The begun event, the records, and the event of the drop. */
const ENTRIES = LAST + 2;

interface Line {
  readonly index: number;
  readonly kind: string;
}

function linesOf(path: string): Line[] {
  return readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
}

test('audit salvage writes every entry of a sound store, in order, and says that none is lost', async () => {
  const directory = temporaryDirectory();
  const store = join(directory, 'store.damaged');
  await makeStore(store);
  const output = join(directory, 'salvaged.jsonl');
  expect(await run(['salvage', '--store', store, '--output', output])).toMatchObject({
    code: 0,
    errors: `${ENTRIES} entries salvaged, none is lost\n`,
  });
  expect(linesOf(output).map(({ index }) => index)).toEqual(Array.from({ length: ENTRIES }, (_, at) => at + 1));
});

test('audit salvage names what a damaged store does not give any more', { timeout: 60_000 }, async () => {
  const directory = temporaryDirectory();
  const store = join(directory, 'store.damaged');
  await makeStore(store);
  const file = join(store, 'data.mdb');
  const descriptor = openSync(file, 'r+');
  writeSync(descriptor, new Uint8Array(8192).fill(0xa5), 0, 8192, Math.floor(statSync(file).size / 8192) * 4096);
  closeSync(descriptor);
  const output = join(directory, 'salvaged.jsonl');
  const { code, errors } = await run(['salvage', '--store', store, '--output', output]);
  expect(code).toBe(0);
  const taken = Number(/^(\d+) entries salvaged/.exec(errors)?.[1]);
  const lines = linesOf(output);
  expect(lines).toHaveLength(taken);
  const missing = ENTRIES - taken;
  expect(errors.includes('cannot be read')).toBe(missing > 0);
});

test('audit salvage of what is no store, or without a place to write to, changes nothing and says what to do', async () => {
  const directory = temporaryDirectory();
  const output = join(directory, 'salvaged.jsonl');
  expect(await run(['salvage', '--store', directory, '--output', output])).toMatchObject({
    code: 1,
    errors: expect.stringContaining('remedy: give the folder that the alert store_set_aside named'),
  });
  expect(await run(['salvage', '--store', directory])).toMatchObject({
    code: 2,
    errors: expect.stringContaining('--output FILE is required'),
  });
  expect(existsSync(output)).toBe(false);
});
