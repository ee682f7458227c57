import { Journal } from '../../../agent/journal/journal.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { SetpointError } from '../../../protocol/errors.ts';

/**
 * Runs under a limit on the size of files, where a write stops half-way like on a full disk. Arguments: directory, then the
 * bytes of one request a turn. Prints what became of each turn.
 */
const [directory = '', ...sizes] = process.argv.slice(2);
const journal = new Journal({ directory, stream: 0, newEpoch: () => 1n, onSyncFailure: () => {} });
const turns = sizes.map((size) => {
  journal.append(RECORD_KINDS.decision, 1, new Uint8Array(Number(size)).fill(7), new Uint8Array(0));
  try {
    journal.commit();
    return 'written';
  } catch (error) {
    if (!(error instanceof SetpointError)) throw error;
    return `${error.code}: ${error.message}`;
  }
});
process.stdout.write(JSON.stringify({ turns, offset: journal.offset, nextSequence: journal.nextSequence }));
