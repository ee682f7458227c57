import { createTar, parseTar } from 'nanotar';
import { SetpointError } from '../../protocol/errors.ts';

/**
 * The single-file form of a bundle: an uncompressed ustar archive whose bytes are fixed by its content (manifest first, files
 * in the manifest's order, all times and owners 0). Reading rebuilds it and compares, so that no byte of a header or of the
 * padding is free to differ. Pure.
 */
export interface ArchivedFile {
  readonly path: string;
  readonly bytes: Uint8Array;
}

const BLOCK = 512;
/** The name field of a ustar header. */
const MAX_ARCHIVED_PATH = 100;
/** createTar rounds up to this record, and leaves out the end marker where the files fill it. */
const RECORD = 20 * BLOCK;
const ATTRIBUTES = { mtime: 0, uid: 0, gid: 0, mode: '644' };

/** @throws SetpointError invalid_bundle for a path that the format cannot hold */
export function packFiles(files: readonly ArchivedFile[]): Uint8Array {
  const long = files.find(({ path }) => path.length > MAX_ARCHIVED_PATH);
  if (long !== undefined) {
    throw new SetpointError(
      'invalid_bundle',
      `Cannot pack ${long.path}: its path has ${long.path.length} characters, a single file holds ${MAX_ARCHIVED_PATH}`,
      { field: long.path },
    );
  }
  const used = files.reduce((sum, { bytes }) => sum + BLOCK + Math.ceil(bytes.byteLength / BLOCK) * BLOCK, 0);
  const tar = createTar(files.map(({ path, bytes }) => ({ name: path, data: bytes, attrs: ATTRIBUTES })));
  const archive = new Uint8Array(Math.ceil((used + 2 * BLOCK) / RECORD) * RECORD);
  archive.set(tar.subarray(0, Math.min(tar.byteLength, archive.byteLength)));
  return archive;
}

/** @throws SetpointError invalid_bundle for anything but what packFiles writes, not_ready for a file that is cut short */
export function unpackFiles(archive: Uint8Array, maxFiles: number, source: string): ArchivedFile[] {
  const paths = walkHeaders(archive, maxFiles, source);
  // nanotar reads the whole ArrayBuffer behind a view, and turns sizes it cannot read into endless loops; the walk above
  // has seen to the sizes, the copy sees to the view.
  const parsed = parseTar(archive.byteLength === archive.buffer.byteLength ? archive : archive.slice());
  const files = parsed.map(({ name, data }) => ({ path: name, bytes: data ?? new Uint8Array(0) }));
  if (files.length !== paths || Buffer.compare(packFiles(files), archive) !== 0) {
    refuse(source, 'it is not written as setpoint bundle pack writes it');
  }
  return files;
}

/** Checks type and size of each entry and returns their number. */
function walkHeaders(archive: Uint8Array, maxFiles: number, source: string): number {
  if (archive.byteLength < BLOCK || Buffer.from(archive.buffer, archive.byteOffset + 257, 5).toString('latin1') !== 'ustar') {
    refuse(source, 'it is not a ustar archive');
  }
  let count = 0;
  let at = 0;
  while (at + BLOCK <= archive.byteLength && archive[at] !== 0) {
    count += 1;
    if (count > maxFiles) refuse(source, `it holds more than ${maxFiles} files`);
    const header = Buffer.from(archive.buffer, archive.byteOffset + at, BLOCK);
    const digits = header.toString('latin1', 124, 135);
    if (!/^[0-7]{11}$/.test(digits) || header[156] !== 0x30) refuse(source, `entry ${count} is not a regular file of a plain size`);
    at += BLOCK + Math.ceil(Number.parseInt(digits, 8) / BLOCK) * BLOCK;
  }
  if (at + 2 * BLOCK > archive.byteLength) {
    throw new SetpointError(
      'not_ready',
      `Cannot open ${source}: it is cut short: entry ${count} ends at byte ${at} of ${archive.byteLength}`,
      {
        field: source,
        remedy: 'wait until the copy is complete, or copy it again',
      },
    );
  }
  return count;
}

function refuse(source: string, why: string): never {
  throw new SetpointError('invalid_bundle', `Cannot open ${source}: ${why}`, {
    field: source,
    remedy: 'pack the bundle again with setpoint bundle pack',
  });
}
