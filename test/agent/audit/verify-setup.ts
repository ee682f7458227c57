import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { publicKeyPath } from '../../../agent/audit/agent-key.ts';
import type { LogRecord } from '../../../agent/audit/row.ts';
import { verifyLog, type VerifyResult } from '../../../agent/audit/verify.ts';
import { checkpointFile } from '../../../agent/store/checkpoint-keeper.ts';
import { StoreDatabase } from '../../../agent/store/database.ts';
import { encodeHead, HEAD_KEY, numberKey } from '../../../agent/store/keys.ts';
import { storeDirectory } from '../../../agent/store/quarantine.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { addCheckpoint, audit, LOG, openWriter, store } from './log-setup.ts';
import { alertRecord, decisionRecord, gapRecord, observationRecord, T0 } from './rows.ts';

/** Logs to verify, and what somebody may do to them behind the agent's back. */

export async function verify(
  dataDirectory: string,
  more: { checkpointPath?: string; agentId?: string; keyPath?: string } = {},
): Promise<VerifyResult> {
  return await verifyLog({
    type: 'verify',
    dataDirectory,
    agentId: more.agentId ?? null,
    keyPath: more.keyPath ?? publicKeyPath(dataDirectory),
    checkpointPath: more.checkpointPath ?? null,
    isJson: false,
  });
}

/** What is behind the writer's back: the pairs of the database as they are. */
export async function tamper(dataDirectory: string, work: (database: StoreDatabase) => void): Promise<void> {
  const database = StoreDatabase.openForWriting(storeDirectory(dataDirectory));
  await database.transaction(() => work(database));
  await database.close();
}

export function entryAt(database: StoreDatabase, index: number): Uint8Array {
  return Uint8Array.from(database.tables.records.get(numberKey(index))!);
}

export type Kind = 'decision' | 'observation' | 'alert' | 'gap';

/** Records of two streams, as an agent with two serving threads makes them. */
export function recordsOf(plan: readonly { kind: Kind; stream: number; gap: number }[]): LogRecord[] {
  const next = [1, 1];
  return plan.map(({ kind, stream, gap }) => {
    const sequence = next[stream]!;
    next[stream] = sequence + (kind === 'gap' ? gap : 1);
    const timeMicros = T0 + sequence;
    if (kind === 'decision') return decisionRecord({ stream, sequence, timeMicros });
    if (kind === 'observation') return observationRecord(sequence, {}, stream, timeMicros);
    if (kind === 'alert') return alertRecord(sequence, 'reliance_low', 'cd/x', stream, timeMicros);
    return gapRecord({ from: sequence, to: sequence + gap - 1 }, stream, timeMicros);
  });
}

/** Entry 1 is the store's own; record n (from 0) is entry n + 2. */
export async function storeAll(
  dataDirectory: string,
  records: readonly LogRecord[],
  checkpointEvery = Number.POSITIVE_INFINITY,
): Promise<void> {
  const writer = openWriter(dataDirectory);
  for (const [at, record] of records.entries()) {
    await store(writer, [record], { stream: record.stream! });
    if ((at + 1) % checkpointEvery === 0) await addCheckpoint(dataDirectory, writer, T0 / 1000 + at);
  }
  await addCheckpoint(dataDirectory, writer, T0 / 1000 + records.length);
  await writer.close();
}

export function nameOf(record: LogRecord): string {
  if (record.kind !== 4) return `${record.stream}/${record.sequence}`;
  const { from, to } = JSON.parse(Buffer.from(record.request).toString()) as { from: number; to: number };
  return from === to ? `${record.stream}/${to}` : `${record.stream}/${from}..${to}`;
}

export const twenty = Array.from({ length: 20 }, () => ({ kind: 'decision' as const, stream: 0, gap: 1 }));
/** Removes the entries behind an index, with everything in the database that knows of them. */
export async function cutOff(dataDirectory: string, last: number): Promise<void> {
  await tamper(dataDirectory, (database) => {
    const { records, telemetry, checkpoints, meta } = database.tables;
    for (let index = last + 1; records.get(numberKey(index)) !== null; index++) {
      records.remove(numberKey(index));
      telemetry.remove(numberKey(index));
      checkpoints.remove(numberKey(index));
    }
    const link = entryAt(database, last).slice(0, 32);
    meta.put(HEAD_KEY, encodeHead(HEAD_KEY, { log: LOG, index: last, link }));
    for (const key of [...meta.keys()].filter((one) => Buffer.from(one).toString().startsWith('position/'))) meta.remove(key);
  });
}

export function cutCheckpoints(dataDirectory: string, last: number): void {
  const path = checkpointFile(dataDirectory);
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  writeFileSync(
    path,
    lines
      .filter((line) => Number((JSON.parse(line) as { body: string }).body.split('\n')[3]) <= last)
      .map((line) => `${line}\n`)
      .join(''),
  );
}

export async function keepCheckpoint(dataDirectory: string): Promise<string> {
  const { output } = await audit(dataDirectory, 'checkpoint');
  const path = join(temporaryDirectory(), 'kept.json');
  writeFileSync(path, output);
  return path;
}
