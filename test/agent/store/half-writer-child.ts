import { StoreDatabase } from '../../../agent/store/database.ts';
import { stateKey } from '../../../agent/store/keys.ts';
import { StoreWriter } from '../../../agent/store/writer.ts';

/** Writes one value in a transaction that then throws. Argument: the folder. */
const [directory = ''] = process.argv.slice(2);
await StoreWriter.open(directory, { newLog: () => 77n, nowMicros: () => 1, previous: null }).close();
const database = StoreDatabase.openForWriting(directory);
await database.transaction(() => {
  database.tables.meta.put(stateKey('half'), new Uint8Array(4));
  throw new Error('half-way');
});
