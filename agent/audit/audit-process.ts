import { statSync, writeSync } from 'node:fs';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { systemCode } from '../bundles/disk.ts';
import { lastCheckpointLines } from '../store/checkpoint-keeper.ts';
import { answer } from './answer.ts';
import { parseCheckpoint } from './checkpoint.ts';
import { CSV_HEADER, csvOf } from './format-csv.ts';
import { jsonlOf } from './format-jsonl.ts';
import { reportJson, reportText } from './format-report.ts';
import { textOf } from './format-text.ts';
import { LogView } from './log-view.ts';
import {
  type AuditJob,
  type AuditMessage,
  type CheckpointRequest,
  MESSAGE_DESCRIPTOR,
  type Question,
  type Verification,
} from './messages.ts';
import { newestCheckpoint } from './newest-checkpoint.ts';
import type { Row } from './row.ts';
import { formatMillis } from './times.ts';
import { verifyLog } from './verify.ts';

/**
 * The reading process: reads the log for `setpoint-agent audit` and writes the answer to standard output, what it has to
 * say about it to descriptor 3. Synchronous throughout: a reader that is slow makes write() wait, and nothing piles up.
 *
 * Argument: AuditJob as JSON.
 */
const OUTPUT = 1;
/** Rows are written when this much has come together, not one by one. */
const BATCH_CHARACTERS = 64 * 1024;
const RETRY_MILLIS = 5;

/** A pipe that cannot take more right now says so on some systems, instead of letting write() wait. */
function writeWhole(descriptor: number, text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.byteLength;) {
    try {
      at += writeSync(descriptor, bytes, at);
    } catch (error) {
      if (systemCode(error) !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, RETRY_MILLIS);
    }
  }
}

function say(message: AuditMessage): void {
  writeWhole(MESSAGE_DESCRIPTOR, `${JSON.stringify(message)}\n`);
}

/** As the configuration says; without one, as the newest checkpoint does. */
function agentIdOf({ agentId, dataDirectory }: Question): string | null {
  if (agentId !== null) return agentId;
  for (const line of lastCheckpointLines(dataDirectory)) {
    const checkpoint = parseCheckpoint(Buffer.from(line));
    if (checkpoint !== null) return checkpoint.agentId;
  }
  return null;
}

async function ask(question: Question): Promise<void> {
  const { format } = question;
  const agentId = agentIdOf(question);
  let batch = format === 'csv' ? CSV_HEADER : '';
  const give = (row: Row): void => {
    batch += format === 'csv' ? csvOf(row, agentId) : format === 'jsonl' ? jsonlOf(row, agentId) : textOf(row);
    if (batch.length < BATCH_CHARACTERS) return;
    writeWhole(OUTPUT, batch);
    batch = '';
  };
  const view = LogView.open(question.dataDirectory);
  try {
    const { summary, warnings } = answer(view, question, give);
    writeWhole(OUTPUT, batch);
    for (const message of warnings) say({ type: 'warning', message });
    say({ type: 'done', summary, isSound: true });
  } finally {
    await view.close();
  }
}

async function verify(job: Verification): Promise<void> {
  const result = await verifyLog(job);
  writeWhole(OUTPUT, job.isJson ? reportJson(result) : reportText(result));
  // The report has said it.
  say({ type: 'done', summary: '', isSound: result.findings.total === 0 });
}

async function giveCheckpoint(job: CheckpointRequest): Promise<void> {
  const { line, checkpoint } = await newestCheckpoint(job);
  writeWhole(OUTPUT, `${Buffer.from(line).toString('utf8').trimEnd()}\n`);
  const summary = `agent ${checkpoint.agentId}, ${checkpoint.index} entries, ${formatMillis(checkpoint.timeMillis)}`;
  say({ type: 'done', summary, isSound: true });
}

async function main(job: AuditJob): Promise<void> {
  if (statSync(job.dataDirectory, { throwIfNoEntry: false })?.isDirectory() !== true) {
    throw new SetpointError('not_found', `Cannot read the log: there is no data directory ${job.dataDirectory}`, {
      remedy: 'check --config or --data-dir',
    });
  }
  if (job.type === 'ask') await ask(job);
  else if (job.type === 'verify') await verify(job);
  else await giveCheckpoint(job);
}

main(JSON.parse(process.argv[2] ?? '{}') as AuditJob).catch((error: unknown) => {
  if (systemCode(error) === 'EPIPE') process.exit(0);
  const { code, message, remedy } = error instanceof SetpointError ? error : new SetpointError('internal', messageOf(error));
  say({ type: 'failed', code, message, remedy });
});
