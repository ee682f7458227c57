import { decodeGap, type Gap } from '../../../agent/journal/gap.ts';
import { type Files, SYSTEM_FILES } from '../../../agent/journal/files.ts';
import { scanJournal } from '../../../agent/journal/reader.ts';
import { RECORD_KINDS } from '../../../agent/journal/record.ts';
import { listSegments } from '../../../agent/journal/segments.ts';

export interface StreamContents {
  /** First sequences of the segments. */
  readonly segments: readonly number[];
  readonly epochs: readonly (bigint | null)[];
  /** Numbers of records that are no gaps. */
  readonly sequences: readonly number[];
  /** Bytes of their requests. */
  readonly sizes: readonly number[];
  readonly gaps: readonly Gap[];
  readonly tails: readonly string[];
}

/** What all segments of a stream hold. A request that is not filled with its number is told by an error. */
export function contentsOf(directory: string, stream = 0, files: Files = SYSTEM_FILES): StreamContents {
  const segments = listSegments(directory, files).filter((segment) => segment.stream === stream);
  const contents = { sequences: [] as number[], sizes: [] as number[], gaps: [] as Gap[] };
  const scans = segments.map(({ path }) =>
    scanJournal(
      path,
      0,
      ({ kind, sequence, request }) => {
        if (kind === RECORD_KINDS.gap) {
          contents.gaps.push(decodeGap(request)!);
          return;
        }
        if (request.some((byte) => byte !== (sequence & 0xff))) throw new Error(`record ${sequence} is wrong`);
        contents.sequences.push(sequence);
        contents.sizes.push(request.byteLength);
      },
      files,
    ),
  );
  return {
    segments: segments.map(({ firstSequence }) => firstSequence),
    epochs: scans.map((scan) => scan?.epoch ?? null),
    tails: scans.map((scan) => scan?.tail ?? 'no journal'),
    ...contents,
  };
}
