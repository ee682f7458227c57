import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { salvage, type SalvageResult } from '../store/salvage.ts';
import { UsageError } from './arguments.ts';
import { jsonlOf } from './format-jsonl.ts';
import { OutputFile } from './output.ts';
import { rowOf } from './row.ts';

/**
 * `setpoint-agent audit salvage`: what a store that was set aside still holds whole, as JSON Lines. Returns the summary; the
 * entries that could not be read are named in it.
 * @throws UsageError, SetpointError not_found, invalid_config
 */
export async function runSalvage(args: readonly string[]): Promise<string> {
  const { store, output, isForced } = parse(args);
  if (!existsSync(join(store, 'data.mdb'))) {
    throw new SetpointError('not_found', `Cannot salvage ${store}: it is no store`, {
      field: store,
      remedy: 'give the folder that the alert store_set_aside named, <dataDir>/store.damaged-<time>',
    });
  }
  const file = new OutputFile(output, isForced);
  let failure: Error | null = null;
  file.on('error', (error) => {
    failure = error;
  });
  let result: SalvageResult;
  try {
    result = await salvage(store, async (record) => {
      if (failure !== null) throw failure;
      if (!file.write(jsonlOf(rowOf(record), null))) await once(file, 'drain');
    });
    file.end();
    await once(file, 'finish');
  } catch (error) {
    file.discard();
    throw error;
  }
  file.keep();
  return summaryOf(result);
}

function parse(args: readonly string[]): { store: string; output: string; isForced: boolean } {
  try {
    const options = { store: { type: 'string' }, output: { type: 'string', short: 'o' }, force: { type: 'boolean' } } as const;
    const { values } = parseArgs({ args: [...args], options, strict: true });
    if (values.store === undefined || values.store === '') throw new UsageError('--store DIR is required');
    if (values.output === undefined || values.output === '') throw new UsageError('--output FILE is required');
    return { store: resolve(values.store), output: resolve(values.output), isForced: values.force === true };
  } catch (cause) {
    throw cause instanceof UsageError ? cause : new UsageError(messageOf(cause), { cause });
  }
}

function summaryOf({ taken, lost }: SalvageResult): string {
  const ranges = lost.map(({ from, to }) => (to === null ? `from ${from} on` : from === to ? String(from) : `${from} to ${to}`));
  return `${taken} entries salvaged${ranges.length === 0 ? ', none is lost' : `; entries that cannot be read: ${ranges.join(', ')}`}`;
}
