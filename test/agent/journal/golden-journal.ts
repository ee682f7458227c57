import { readFileSync } from 'node:fs';
import type { Mark } from '../../../agent/journal/mark.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';

/** A journal file with its header and records, byte by byte, from test/golden/journal.json. */

interface GoldenRecord {
  readonly name: string;
  readonly kind: keyof typeof RECORD_KINDS;
  readonly sequence: number;
  readonly timeMicros: number;
  readonly request: string;
  readonly reply: string;
  readonly hex: string;
}

interface GoldenJournal {
  readonly header: { readonly stream: number; readonly epoch: string; readonly firstSequence: number; readonly hex: string };
  readonly records: readonly GoldenRecord[];
  readonly mark: Mark & { readonly counter: number; readonly hex: string };
}

export function bytesOf(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

export function hexOf(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}

const table = JSON.parse(readFileSync(new URL('../../golden/journal.json', import.meta.url), 'utf8')) as GoldenJournal;

/** A slot of a mark. */
export const GOLDEN_MARK = table.mark;

export const GOLDEN_HEADER = { ...table.header, epoch: BigInt(table.header.epoch) };

export const GOLDEN_RECORDS = table.records.map((record) => ({
  ...record,
  kind: RECORD_KINDS[record.kind],
  request: bytesOf(record.request),
  reply: bytesOf(record.reply),
}));

/** The whole file. */
export const GOLDEN_FILE = bytesOf([table.header.hex, ...table.records.map((record) => record.hex)].join(''));
