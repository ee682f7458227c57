import { writeSync } from 'node:fs';
import { checkStore } from '../../../agent/store/check.ts';
import { StoreDamagedError, StoreFailedError } from '../../../agent/store/errors.ts';
import { type StoredRecord, StoreReader } from '../../../agent/store/reader.ts';
import { StoreWriter } from '../../../agent/store/writer.ts';
import { decisions, observation, positionAt } from './records.ts';
import { DROPPED, isRight, LAST } from './damaged-store.ts';

/**
 * Does with damaged stores what the agent does with one, and says after each step how it went, for the step may kill this
 * process: "<step> <right records> <wrong records> <errors>". Arguments: the folders.
 */
function say(step: string, ...counts: number[]): void {
  writeSync(1, `${[step, ...counts].join(' ')}\n`);
}

async function attempt(step: string, read: (count: (record: StoredRecord | null) => void) => void | Promise<void>): Promise<void> {
  let right = 0;
  let wrong = 0;
  let errors = 0;
  try {
    await read((record) => {
      if (record === null) return;
      if (isRight(record)) right += 1;
      else wrong += 1;
    });
  } catch (error) {
    if (!(error instanceof StoreDamagedError) && !(error instanceof StoreFailedError)) throw error;
    errors = 1;
  }
  say(step, right, wrong, errors);
}

async function live(directory: string): Promise<void> {
  say('store');
  const { findings } = await checkStore(directory);
  say('checked', findings.length);
  const found: StoreReader[] = [];
  await attempt('opened', () => {
    const reader = StoreReader.open(directory);
    if (reader !== null) found.push(reader);
  });
  const [opened] = found;
  if (opened !== undefined) {
    await attempt('between', (count) => {
      for (const record of opened.between(0, Infinity)) count(record);
    });
    await attempt('bySubstrate', (count) => {
      for (let sequence = 1; sequence <= LAST; sequence += 7) {
        for (const record of opened.bySubstrate(`LOT${Math.floor(sequence / 25)}.${sequence % 25}`)) count(record);
      }
    });
    for (let sequence = 1; sequence <= LAST; sequence += 41) await attempt('bySequence', (count) => count(opened.bySequence(0, sequence)));
    await opened.close();
  }
  await attempt('written', async (count) => {
    const writer = StoreWriter.open(directory, { newLog: () => 1n, nowMicros: () => 1, previous: null });
    await writer.append([...decisions(LAST + 1, LAST + 50), observation(LAST + 51, 'W')], positionAt(LAST + 51));
    await writer.dropTelemetry({ maxRecords: DROPPED }, 'size');
    await writer.close();
    const again = StoreReader.open(directory);
    for (let sequence = LAST + 1; sequence <= LAST + 50; sequence += 1) count(again?.bySequence(0, sequence) ?? null);
    await again?.close();
  });
}

for (const directory of process.argv.slice(2)) await live(directory);
