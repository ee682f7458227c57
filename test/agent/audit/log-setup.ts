import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { loadOrCreateAgentKey } from '../../../agent/audit/agent-key.ts';
import { createCheckpoint } from '../../../agent/audit/checkpoint.ts';
import { runAudit } from '../../../agent/audit/commands.ts';
import type { LogRecord } from '../../../agent/audit/row.ts';
import {
  encodeFileHeader,
  encodeRecord,
  FILE_HEADER_BYTES,
  RecordBuffer,
  type RecordKind,
  recordStride,
} from '../../../agent/journal/record.ts';
import { checkpointFile } from '../../../agent/store/checkpoint-keeper.ts';
import { storeDirectory } from '../../../agent/store/quarantine.ts';
import { type StoreHead, StoreWriter } from '../../../agent/store/writer.ts';
import type { SigningKey } from '../../../protocol/envelope.ts';
import { T0 } from './rows.ts';

/** A data directory as an agent and its store process leave it. */

export const AGENT_ID = 'agent-7';
export const EPOCH = 0x1234n;
export const LOG = 0x0123456789abcdefn;

export function recordBytes({ sequence, kind, timeMicros, request, reply }: LogRecord): Uint8Array {
  const buffer = new RecordBuffer(recordStride(request, reply));
  encodeRecord(buffer, 0, sequence, kind as RecordKind, timeMicros, request, reply);
  return buffer.bytes;
}

export interface SegmentOptions {
  readonly stream?: number;
  readonly epoch?: bigint;
  readonly first: number;
}

export function segmentPath(dataDirectory: string, stream: number, first: number): string {
  return join(dataDirectory, 'journal', `stream-${stream}-${String(first).padStart(16, '0')}.journal`);
}

/** Writes a file of the journal; returns the offset behind each record. */
export function writeSegment(
  dataDirectory: string,
  records: readonly LogRecord[],
  { stream = 0, epoch = EPOCH, first }: SegmentOptions,
): number[] {
  mkdirSync(join(dataDirectory, 'journal'), { recursive: true });
  const parts = [encodeFileHeader({ stream, epoch, firstSequence: first }), ...records.map(recordBytes)];
  writeFileSync(segmentPath(dataDirectory, stream, first), Buffer.concat(parts));
  let offset = FILE_HEADER_BYTES;
  return records.map((record) => (offset += recordStride(record.request, record.reply)));
}

export function openWriter(dataDirectory: string, previous: StoreHead | null = null, log = LOG): StoreWriter {
  mkdirSync(storeDirectory(dataDirectory), { recursive: true });
  return StoreWriter.open(storeDirectory(dataDirectory), { newLog: () => log, nowMicros: () => T0, previous });
}

/** Stores records of a stream as the store process does, at a position behind them. */
export async function store(
  writer: StoreWriter,
  records: readonly LogRecord[],
  {
    stream = 0,
    epoch = EPOCH,
    segment = 1,
    offset = FILE_HEADER_BYTES,
  }: { stream?: number; epoch?: bigint; segment?: number; offset?: number } = {},
): Promise<void> {
  await writer.append(records, { stream, epoch, segment, offset, lastSequence: records.at(-1)!.sequence });
}

/** Signs the head and keeps the line in both places. */
export async function addCheckpoint(
  dataDirectory: string,
  writer: StoreWriter,
  timeMillis = T0 / 1000,
  key?: SigningKey,
): Promise<Uint8Array> {
  const line = createCheckpoint(writer.head, { agentId: AGENT_ID, timeMillis }, key ?? loadOrCreateAgentKey(dataDirectory));
  mkdirSync(join(dataDirectory, 'audit'), { recursive: true });
  appendFileSync(checkpointFile(dataDirectory), line);
  await writer.putCheckpoint(writer.head.index, line);
  return line;
}

export interface Ran {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

/** Runs `setpoint-agent audit` for a data directory. */
export async function audit(dataDirectory: string, ...args: readonly string[]): Promise<Ran> {
  const type = args[0] === 'verify' || args[0] === 'checkpoint' ? [args[0]] : [];
  return await run([...type, '--data-dir', dataDirectory, ...args.slice(type.length)]);
}

export async function run(args: readonly string[], environment: Readonly<Record<string, string>> = {}): Promise<Ran> {
  const chunks: Buffer[] = [];
  const output = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      chunks.push(Buffer.from(chunk));
      done();
    },
  });
  let errors = '';
  const code = await runAudit(args, { output, writeError: (text) => void (errors += text), environment });
  return { code, output: Buffer.concat(chunks).toString('utf8'), errors };
}

export function linesOfJson(output: string): Record<string, unknown>[] {
  return output
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
