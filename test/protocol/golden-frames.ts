import { readFileSync } from 'node:fs';
import type { ClientFrame, ServerFrame } from '../../protocol/frames.ts';

export interface GoldenFrame {
  readonly name: string;
  readonly from: 'client' | 'server';
  readonly frame: ClientFrame | ServerFrame;
  readonly bytes: Uint8Array;
}

function bytesFrom(hex: string): Uint8Array {
  return Uint8Array.from(Buffer.from(hex, 'hex'));
}

/** The table in test/golden/frames.json, with every `{ "hex": … }` as bytes. */
export const GOLDEN_FRAMES: readonly GoldenFrame[] = readTable();

function readTable(): GoldenFrame[] {
  const text = readFileSync(new URL('../golden/frames.json', import.meta.url), 'utf8');
  const rows = JSON.parse(text, (_key, value: unknown) => {
    const isBytes = typeof value === 'object' && value !== null && Object.keys(value).join() === 'hex';
    return isBytes ? bytesFrom((value as { hex: string }).hex) : value;
  }) as (Omit<GoldenFrame, 'bytes'> & { hex: string })[];
  return rows.map(({ name, from, frame, hex }) => ({ name, from, frame, bytes: bytesFrom(hex) }));
}

/** The position after the MessagePack value at `at`; knows the forms that the golden frames use. */
export function valueEnd(bytes: Uint8Array, at: number): number {
  const first = bytes[at]!;
  if (first >= 0x90 && first <= 0x9f) {
    let end = at + 1;
    for (let index = 0; index < (first & 0x0f); index += 1) end = valueEnd(bytes, end);
    return end;
  }
  if (first < 0x80 || first === 0xc0 || first === 0xc2 || first === 0xc3) return at + 1;
  if (first >= 0xa0 && first <= 0xbf) return at + 1 + (first & 0x1f);
  if (first === 0xc4 || first === 0xd9) return at + 2 + bytes[at + 1]!;
  const width = { 0xcb: 8, 0xcc: 1, 0xcd: 2, 0xce: 4, 0xcf: 8 }[first];
  if (width === undefined) throw new Error(`no golden frame has used 0x${first.toString(16)} so far`);
  return at + 1 + width;
}
