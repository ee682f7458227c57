import { setTimeout as delay } from 'node:timers/promises';
import { Journal } from '../../../agent/journal/journal.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { SetpointError } from '../../../protocol/errors.ts';

/**
 * Runs under a limit on the size of files, where a write stops half-way like on a full disk. Arguments: directory, whether to
 * wait for the recovery ('wait' or 'die'), then the bytes of one request a turn. Prints what became of each turn.
 */
const [directory = '', ending, ...sizes] = process.argv.slice(2);
const episodes: unknown[] = [];
const journal = new Journal({
  directory,
  stream: 0,
  newEpoch: () => 1n,
  onSyncFailure: () => {},
  onRecovered: (episode) => episodes.push(episode),
});
const turns = sizes.map((size) => {
  journal.append(RECORD_KINDS.decision, 1, new Uint8Array(Number(size)).fill(journal.nextSequence), new Uint8Array(0));
  try {
    journal.commit();
    return 'written';
  } catch (error) {
    if (!(error instanceof SetpointError)) throw error;
    return `${error.code}: ${error.message}`;
  }
});
const patienceMillis = ending === 'wait' ? 10_000 : 0;
for (let waited = 0; journal.isFailing && waited < patienceMillis; waited += 20) await delay(20);
process.stdout.write(JSON.stringify({ turns, episodes, nextSequence: journal.nextSequence }), () => {
  if (ending === 'die') process.kill(process.pid, 'SIGKILL');
});
