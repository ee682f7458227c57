import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { FromStore, StoreStatus, ToStore } from '../../../agent/store/messages.ts';
import type { StoreSettings } from '../../../agent/store/settings.ts';

/**
 * Stands in for the store process. What it does at its n-th start is the n-th word of the file `script` in its data
 * directory (the last word for all further starts); what it was told goes to the file `told`.
 */
const settings = JSON.parse(process.argv[2] ?? '{}') as StoreSettings;
const directory = settings.dataDirectory;
const startsFile = join(directory, 'starts');
const starts = existsSync(startsFile) ? readFileSync(startsFile, 'utf8').length : 0;
appendFileSync(startsFile, '.');
const words = readFileSync(join(directory, 'script'), 'utf8').split(' ');
const word = words[Math.min(starts, words.length - 1)] ?? '';

const STATUS: StoreStatus = {
  state: 'draining',
  entries: 7,
  headIndex: 7,
  lagBytes: 0,
  fileBytes: 1,
  usedBytes: 1,
  freeBytes: 1,
  lastCommitMillis: null,
  commitPendingMillis: 0,
  dropped: { telemetry: 0, records: 0, lost: 0 },
};

function send(message: FromStore): void {
  process.send?.(message);
}

function beat(status: Partial<StoreStatus>): void {
  send({ type: 'status', status: { ...STATUS, ...status } });
}

process.on('message', (message: ToStore) => {
  appendFileSync(join(directory, 'told'), `${JSON.stringify(message)}\n`);
  if (message.type === 'stop' && word !== 'deaf') process.exit(0);
});
process.on('disconnect', () => process.exit(0));

if (/^\d+$/.test(word)) {
  process.stderr.write(`I end with ${word}\n`);
  process.exit(Number(word));
}
if (word.startsWith('SIG')) process.kill(process.pid, word);
send({ type: 'ready', states: { starts } });
beat(word === 'progress' ? { lastCommitMillis: 1 } : {});
if (word === 'progress') setTimeout(() => process.kill(process.pid, 'SIGBUS'), 50);
const since = performance.now();
if (word !== 'silent') {
  setInterval(() => beat(word === 'stuck' ? { commitPendingMillis: performance.now() - since } : {}), 20);
}
setInterval(() => {}, 1000);
