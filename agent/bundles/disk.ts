import { randomBytes } from 'node:crypto';
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  mkdirSync,
  opendirSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { messageOf, SetpointError } from '../../protocol/errors.ts';

/** Bounded reads that follow no link, and writes that are whole or absent after a power loss. */

/** A file of a directory, `path` relative to it with '/'. */
export interface FoundFile {
  readonly path: string;
  readonly size: number;
}

/** Folders inside a bundle nest no deeper than its longest path (255) allows in practice. */
const MAX_FOLDER_DEPTH = 8;

/** Opens with these so that a link or a named pipe can neither redirect nor block the reader. Absent on Windows: 0. */
const READ_FLAGS = constants.O_RDONLY | (constants.O_NOFOLLOW ?? 0) | (constants.O_NONBLOCK ?? 0);

/** The code of a failed system call, as 'ENOENT'. */
export function systemCode(thrown: unknown): string | null {
  if (!(thrown instanceof Error) || !('code' in thrown)) return null;
  return typeof thrown.code === 'string' ? thrown.code : null;
}

/**
 * Reads a regular file of at most `maxBytes`.
 * @throws SetpointError not_found, or invalid_bundle for links, folders, devices and files that are too large
 */
export function readBounded(path: string, maxBytes: number, source: string = path): Uint8Array<ArrayBuffer> {
  let descriptor: number;
  try {
    descriptor = openSync(path, READ_FLAGS);
  } catch (cause) {
    throw openError(source, cause);
  }
  try {
    const stat = fstatSync(descriptor);
    if (!stat.isFile()) refuse(source, 'it is not a regular file');
    if (stat.size > maxBytes) refuse(source, `it has ${stat.size} bytes, ${maxBytes} are allowed`);
    const bytes = new Uint8Array(stat.size);
    let at = 0;
    while (at < bytes.byteLength) {
      const count = readSync(descriptor, bytes, at, bytes.byteLength - at, at);
      if (count === 0) refuse(source, `it became shorter while it was read: ${at} of ${bytes.byteLength} bytes are left`);
      at += count;
    }
    return bytes;
  } finally {
    closeSync(descriptor);
  }
}

function openError(source: string, cause: unknown): SetpointError {
  const code = systemCode(cause);
  if (code === 'ENOENT') {
    return new SetpointError('not_found', `Cannot read ${source}: there is no such file`, { remedy: 'check the path', cause });
  }
  const why = code === 'ELOOP' ? 'it is a symbolic link; only regular files are allowed' : messageOf(cause);
  return new SetpointError('invalid_bundle', `Cannot read ${source}: ${why}`, { field: source, cause });
}

function refuse(source: string, why: string): never {
  throw new SetpointError('invalid_bundle', `Cannot read ${source}: ${why}`, { field: source });
}

/**
 * Every regular file below `folder`, sorted by path.
 * @throws SetpointError invalid_bundle for links, devices, too many files or too deep folders
 */
export function listFiles(folder: string, maxFiles: number): FoundFile[] {
  const files: FoundFile[] = [];
  let entriesLeft = maxFiles * 2;
  const visit = (prefix: string, depth: number): void => {
    if (depth > MAX_FOLDER_DEPTH) refuse(join(folder, prefix), `folders are nested deeper than ${MAX_FOLDER_DEPTH}`);
    const directory = opendirSync(join(folder, prefix));
    try {
      for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
        entriesLeft -= 1;
        if (entriesLeft < 0) refuse(folder, `it holds too many files, ${maxFiles} are allowed`);
        const path = prefix === '' ? entry.name : `${prefix}/${entry.name}`;
        const stat = lstatSync(join(folder, path));
        if (stat.isDirectory()) visit(path, depth + 1);
        else if (stat.isFile()) files.push({ path, size: stat.size });
        else refuse(join(folder, path), `it is ${stat.isSymbolicLink() ? 'a symbolic link' : 'a device'}; only regular files are allowed`);
      }
    } finally {
      directory.closeSync();
    }
  };
  visit('', 0);
  return files.sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** A name beside `path` that nothing else uses, on the same file system. */
export function temporaryBeside(path: string): string {
  const target = resolve(path);
  return join(dirname(target), `.setpoint-${randomBytes(8).toString('hex')}.tmp`);
}

function writeDurably(path: string, bytes: Uint8Array): void {
  const descriptor = openSync(path, 'wx', 0o644);
  try {
    let at = 0;
    while (at < bytes.byteLength) at += writeSync(descriptor, bytes, at, bytes.byteLength - at);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** A rename is durable once the folder that holds the name is. Windows cannot open folders, and needs no such call. */
function syncFolder(path: string): void {
  if (process.platform === 'win32') return;
  const descriptor = openSync(path, 'r');
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Writes a file that is either the old one or the whole new one, whatever happens. */
export function replaceFile(path: string, bytes: Uint8Array): void {
  const temporary = temporaryBeside(path);
  try {
    writeDurably(temporary, bytes);
    renameSync(temporary, path);
  } catch (cause) {
    rmSync(temporary, { force: true });
    throw writeError(path, cause);
  }
  syncFolder(dirname(resolve(path)));
}

/**
 * Writes a folder that is either absent or whole. Fails where `folder` holds anything; the caller looks before.
 * @param files path relative to the folder -> bytes
 */
export function createFolder(folder: string, files: ReadonlyMap<string, Uint8Array>): void {
  const temporary = temporaryBeside(folder);
  try {
    const made = new Set([temporary]);
    mkdirSync(temporary);
    for (const [path, bytes] of files) {
      const target = join(temporary, path);
      if (!existsSync(dirname(target))) mkdirSync(dirname(target), { recursive: true });
      for (let parent = dirname(target); parent !== temporary; parent = dirname(parent)) made.add(parent);
      writeDurably(target, bytes);
    }
    for (const path of made) syncFolder(path);
    renameSync(temporary, folder);
  } catch (cause) {
    rmSync(temporary, { recursive: true, force: true });
    throw writeError(folder, cause);
  }
  syncFolder(dirname(resolve(folder)));
}

function writeError(path: string, cause: unknown): SetpointError {
  const code = systemCode(cause);
  const exists = code === 'ENOTEMPTY' || code === 'EEXIST' || code === 'ENOTDIR';
  const why = exists ? 'something else is already there' : code === 'ENOENT' ? 'its parent folder does not exist' : messageOf(cause);
  return new SetpointError('invalid_config', `Cannot write ${path}: ${why}`, {
    remedy: exists ? 'choose another path, or remove what is there' : 'check the path, its permissions and the free space',
    cause,
  });
}
