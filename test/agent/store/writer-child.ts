import { writeSync } from 'node:fs';
import { StoreFailedError } from '../../../agent/store/errors.ts';
import { StoreWriter } from '../../../agent/store/writer.ts';
import { decisions, positionAt } from './records.ts';

/**
 * Adds batches of 64 records for ever and drops what is old, saying the last sequence after each commit. Arguments: the folder,
 * how many records to keep (0: all).
 */
const [directory = '', keep = '0'] = process.argv.slice(2);
const writer = StoreWriter.open(directory, { newLog: () => 77n, nowMicros: () => 1, previous: null });

try {
  for (let from = (writer.position(0)?.lastSequence ?? 0) + 1; ; from += 64) {
    await writer.append(decisions(from, from + 63), positionAt(from + 63));
    writeSync(1, `${from + 63}\n`);
    const surplus = keep === '0' ? 0 : writer.usage().entries - Number(keep);
    if (surplus > 0) await writer.dropRecords({ maxRecords: surplus }, 'size');
  }
} catch (error) {
  if (!(error instanceof StoreFailedError)) throw error;
  const again = await writer.append([], positionAt(1)).catch((thrown: unknown) => thrown);
  await writer.close();
  writeSync(1, `failed ${error.code} ${again === error ? 'refused' : 'taken'}\n`);
  process.kill(process.pid, 'SIGKILL');
}
