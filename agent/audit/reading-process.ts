import { type ChildProcess, spawn } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { systemCode } from '../bundles/disk.ts';
import { visible } from './escape.ts';
import { type AuditJob, type AuditMessage, MESSAGE_DESCRIPTOR } from './messages.ts';

/**
 * Runs a job in a process of its own: LMDB ends its process on a damaged file (SIGBUS, SIGSEGV, SIGABRT), and the person
 * who asked is to be told so. What the process writes goes straight on; when nobody takes it, the process waits.
 */
const PROCESS_FILE = fileURLToPath(new URL('audit-process.ts', import.meta.url));

/** The end of what the process wrote to standard error is enough to tell why it ended. */
const ERROR_OUTPUT_BYTES = 4096;
const HEAP_MEGABYTES = 512;

/** 'unread': whoever read the answer has stopped reading, as `| head` does. */
export type Reading = Extract<AuditMessage, { type: 'done' }> | { readonly type: 'unread' };

/** @throws SetpointError what the process found wrong, or journal_failed when it was ended by a signal */
export async function runReading(job: AuditJob, output: Writable, onWarning: (message: string) => void): Promise<Reading> {
  const child = start(job);
  const messages = collect(child, onWarning);
  const ended = new Promise<{ code: number | null; signal: string | null; error: Error | null }>((resolve) => {
    child.once('error', (error) => resolve({ code: null, signal: null, error }));
    child.once('close', (code, signal) => resolve({ code, signal, error: null }));
  });
  const broken = await passOn(child, output);
  if (broken !== null) child.kill('SIGKILL');
  const end = await ended;
  if (broken !== null) {
    if (systemCode(broken) === 'EPIPE') return { type: 'unread' };
    throw broken instanceof SetpointError
      ? broken
      : new SetpointError('internal', `Cannot write the answer: ${messageOf(broken)}`, { cause: broken });
  }
  const { last, errorOutput } = messages();
  if (last?.type === 'failed') throw new SetpointError(last.code, last.message, { remedy: last.remedy });
  if (last?.type === 'done' && end.code === 0) return last;
  throw deathOf(job, end, errorOutput);
}

function start(job: AuditJob): ChildProcess {
  const args = [`--max-old-space-size=${HEAP_MEGABYTES}`, '--disable-warning=ExperimentalWarning', PROCESS_FILE, JSON.stringify(job)];
  // Nothing else of the environment: it may hold secrets, and options that change how Node starts. Windows needs this one.
  const systemRoot = process.env['SystemRoot'];
  const env = systemRoot === undefined ? {} : { SystemRoot: systemRoot };
  return spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe', 'pipe'], env, windowsHide: true });
}

/** The failure of the output, or null when everything was taken. The output stays open: it may be the terminal. */
async function passOn(child: ChildProcess, output: Writable): Promise<unknown> {
  try {
    await pipeline(child.stdout as Readable, output, { end: false });
    return null;
  } catch (error) {
    return error;
  }
}

function collect(child: ChildProcess, onWarning: (message: string) => void): () => { last: AuditMessage | null; errorOutput: string } {
  let errorOutput = '';
  let last: AuditMessage | null = null;
  let rest = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    errorOutput = (errorOutput + chunk.toString('utf8')).slice(-ERROR_OUTPUT_BYTES);
  });
  const messages = child.stdio[MESSAGE_DESCRIPTOR] as Readable;
  messages.setEncoding('utf8');
  messages.on('data', (chunk: string) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const message = JSON.parse(line) as AuditMessage;
      if (message.type === 'warning') onWarning(message.message);
      else last = message;
    }
  });
  return () => ({ last, errorOutput });
}

function deathOf(
  job: AuditJob,
  end: { code: number | null; signal: string | null; error: Error | null },
  errorOutput: string,
): SetpointError {
  if (end.error !== null) {
    return new SetpointError('internal', `Cannot start the reading process: ${end.error.message}`, { cause: end.error });
  }
  const how = end.signal === null ? `it ended with code ${end.code}` : `it was ended by ${end.signal}`;
  const said = visible(errorOutput.trim().split('\n').at(-1) ?? '');
  return new SetpointError(
    'journal_failed',
    `Cannot read the log in ${job.dataDirectory}: the reading process died: ${how}${said === '' ? '' : `: ${said}`}`,
    {
      remedy:
        'the store is probably damaged: start the agent, whose store process checks it and sets a damaged one aside; ' +
        'the answer given so far is not complete',
    },
  );
}
