import { expect, test } from 'vitest';
import { segmentPath } from '../../../agent/journal/segments.ts';
import { DIRECTORY, Setup } from './journal-setup.ts';

const SEGMENT_BYTES = 1000;
const PATH = segmentPath(DIRECTORY, 0, 1);

/** What kill -9 leaves in the middle of a write: the kernel ends it at a page. */
function tornContent(...sizes: readonly number[]): Map<string, Uint8Array> {
  const before = new Setup({ segmentBytes: SEGMENT_BYTES });
  before.turn(...sizes);
  const content = new Map(before.disk.content());
  content.set(PATH, Buffer.concat([content.get(PATH)!, content.get(PATH)!.subarray(32, 72)]));
  return content;
}

test.each([
  ['goes on behind it', [100], [1]],
  ['begins a new segment, because this one is large enough', [900, 100], [1, 3]],
] as const)('a torn end is cut off when the journal opens and %s', (_, sizes, segments) => {
  const { contents } = new Setup({ segmentBytes: SEGMENT_BYTES }, tornContent(...sizes));
  expect(contents).toMatchObject({ segments, gaps: [], tails: segments.map(() => 'clean') });
});

test('a torn end that cannot be cut off does not keep a new segment from being begun', () => {
  const setup = new Setup({ segmentBytes: SEGMENT_BYTES }, tornContent(900, 100), (disk) => {
    disk.fault = (action, path) => (action === 'truncate' && path === PATH ? new Error('EIO') : null);
  });
  expect(setup.journal.isFailing).toBe(false);
  expect(setup.contents).toMatchObject({ segments: [1, 3], sequences: [1, 2], tails: ['torn', 'clean'] });
});
