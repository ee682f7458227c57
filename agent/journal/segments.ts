import { join } from 'node:path';
import { type Files, SYSTEM_FILES } from './files.ts';

/** A file of a stream. The one with the highest first sequence is the current one; the others are finished. */
export interface Segment {
  readonly stream: number;
  readonly firstSequence: number;
  readonly path: string;
  readonly bytes: number;
}

const SEGMENT_NAME = /^stream-(\d{1,10})-(\d{16})\.journal$/;

/** Sixteen digits hold every number that can be given, and let names sort as their numbers do. */
export function segmentPath(directory: string, stream: number, firstSequence: number): string {
  return join(directory, `stream-${stream}-${String(firstSequence).padStart(16, '0')}.journal`);
}

/**
 * Every segment in a folder, by stream and then in the order of its numbers; none when there is no folder. The store may
 * delete finished ones at any time: one that vanished meanwhile is left out.
 */
export function listSegments(directory: string, files: Files = SYSTEM_FILES): Segment[] {
  const segments: Segment[] = [];
  for (const name of files.list(directory)) {
    const [, stream, firstSequence] = SEGMENT_NAME.exec(name) ?? [];
    if (stream === undefined || firstSequence === undefined) continue;
    const path = join(directory, name);
    const bytes = files.bytes(path);
    if (bytes !== null) segments.push({ stream: Number(stream), firstSequence: Number(firstSequence), path, bytes });
  }
  return segments.sort((one, other) => one.stream - other.stream || one.firstSequence - other.firstSequence);
}
