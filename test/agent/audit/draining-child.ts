import { appendFileSync, mkdirSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { LogRecord } from '../../../agent/audit/row.ts';
import { encodeFileHeader, FILE_HEADER_BYTES } from '../../../agent/journal/record.ts';
import { openWriter, recordBytes, segmentPath, store } from './log-setup.ts';
import { contextOf, decisionRecord, T0 } from './rows.ts';

/**
 * An agent and its store process in one: writes decisions of two streams to short files of the journal, tells the last number
 * that is "answered", moves the records to the store in small batches, some way behind, and deletes the files that are
 * stored. Runs until its input ends.
 */
const [dataDirectory = ''] = process.argv.slice(2);
const SEGMENT_RECORDS = 20;
const EPOCH = 77n;

interface Waiting {
  readonly record: LogRecord;
  readonly segment: number;
  readonly offset: number;
}

mkdirSync(join(dataDirectory, 'journal'), { recursive: true });
const writer = openWriter(dataDirectory);
const waiting: Waiting[][] = [[], []];
let segment = 0;
const offsets = [0, 0];
const storedSegments = [1, 1];

function write(stream: number, sequence: number): void {
  if (sequence % SEGMENT_RECORDS === 1) {
    segment = sequence;
    offsets[stream] = FILE_HEADER_BYTES;
    appendFileSync(segmentPath(dataDirectory, stream, segment), encodeFileHeader({ stream, epoch: EPOCH, firstSequence: sequence }));
  }
  const predict = { context: contextOf({ substrateId: `W${sequence % 50}` }) };
  const record = decisionRecord({ stream, sequence, timeMicros: T0 + sequence, predict });
  const bytes = recordBytes(record);
  appendFileSync(segmentPath(dataDirectory, stream, segment), bytes);
  offsets[stream]! += bytes.byteLength;
  waiting[stream]!.push({ record, segment, offset: offsets[stream]! });
}

/** A batch is of one file; with the first of the next file the one before is deleted. */
async function drain(stream: number, length: number): Promise<void> {
  const queue = waiting[stream]!;
  const [first] = queue;
  if (first === undefined || length === 0) return;
  const batch = queue.filter((one) => one.segment === first.segment).slice(0, length);
  queue.splice(0, batch.length);
  const { segment: name, offset } = batch.at(-1)!;
  await store(
    writer,
    batch.map(({ record }) => record),
    { stream, epoch: EPOCH, segment: name, offset },
  );
  if (name !== storedSegments[stream]) rmSync(segmentPath(dataDirectory, stream, storedSegments[stream]!));
  storedSegments[stream] = name;
}

const state = { isRunning: true };
process.stdin.on('data', () => {});
process.stdin.on('end', () => {
  state.isRunning = false;
});
for (let sequence = 1; state.isRunning; sequence++) {
  for (const stream of [0, 1]) write(stream, sequence);
  writeSync(1, `${sequence}\n`);
  // From nothing to 30 records behind, and back.
  for (const stream of [0, 1]) await drain(stream, sequence % 60 < 30 ? 0 : 2 + (sequence % 5));
  // Every question reads the whole log: a few hundred records a second are enough of it.
  await new Promise((next) => {
    setTimeout(next, 3);
  });
}
await writer.close();
