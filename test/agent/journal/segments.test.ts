import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { listSegments, segmentPath } from '../../../agent/journal/segments.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { SimulatedDisk } from './simulated-disk.ts';

test('listSegments() gives the segments of every stream in the order of their numbers, and nothing else', () => {
  const directory = temporaryDirectory();
  const names = [
    'stream-1-0000000000000001.journal',
    'stream-0-9007199254740991.journal',
    'stream-0-0000000000000900.journal',
    'stream-10-0000000000000005.journal',
    'stream-0-0000000000000900.journal.new',
    'stream-0-0000000000000001.journal.damaged-1f',
    'stream-0.mark',
    'stream-0.journal',
    'stream-0-12.journal',
  ];
  for (const name of names) writeFileSync(join(directory, name), 'x'.repeat(name.length));
  const path = segmentPath(directory, 0, 900);
  expect(path).toBe(join(directory, 'stream-0-0000000000000900.journal'));
  expect(listSegments(directory)[0]).toEqual({ stream: 0, firstSequence: 900, path, bytes: 33 });
  expect(listSegments(directory).map(({ stream, firstSequence }) => [stream, firstSequence])).toEqual([
    [0, 900],
    [0, 9_007_199_254_740_991],
    [1, 1],
    [10, 5],
  ]);
});

test('listSegments() is empty where there is no folder, and where there is nothing', () => {
  const directory = temporaryDirectory();
  mkdirSync(join(directory, 'empty'));
  expect([listSegments(join(directory, 'none')), listSegments(join(directory, 'empty'))]).toEqual([[], []]);
});

test('listSegments() leaves out a segment that is deleted meanwhile', () => {
  class DeletingDisk extends SimulatedDisk {
    override bytes(path: string): number | null {
      return path.endsWith('1.journal') ? null : super.bytes(path);
    }
  }
  const disk = new DeletingDisk(new Map([1, 5].map((first) => [segmentPath('/j', 0, first), new Uint8Array(9)])));
  expect(listSegments('/j', disk).map(({ firstSequence }) => firstSequence)).toEqual([5]);
});
