import { closeSync, existsSync, fsyncSync, linkSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { Writable } from 'node:stream';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { systemCode, temporaryBeside } from '../bundles/disk.ts';
import { syncDirectory } from '../store/disk-space.ts';

/** A file that is either absent (or the old one) or whole: it gets its name when everything is written and on the disk. */
export class OutputFile extends Writable {
  readonly #path: string;
  readonly #isForced: boolean;
  readonly #temporary: string;
  readonly #descriptor: number;

  /** @throws SetpointError invalid_config when the file is there already, or its folder is not */
  constructor(path: string, isForced: boolean) {
    super();
    this.#path = path;
    this.#isForced = isForced;
    if (!isForced && existsSync(path)) throw exists(path, null);
    this.#temporary = temporaryBeside(path);
    try {
      this.#descriptor = openSync(this.#temporary, 'wx', 0o640);
    } catch (cause) {
      throw failed(path, cause);
    }
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    try {
      for (let at = 0; at < chunk.byteLength;) at += writeSync(this.#descriptor, chunk, at);
      done();
    } catch (cause) {
      done(failed(this.#path, cause));
    }
  }

  /** Gives the file its name. Call once, after everything was written. */
  keep(): void {
    try {
      fsyncSync(this.#descriptor);
      closeSync(this.#descriptor);
      // link() and not rename(): of two that began when there was no such file, one is told.
      if (this.#isForced) renameSync(this.#temporary, this.#path);
      else linkSync(this.#temporary, this.#path);
      rmSync(this.#temporary, { force: true });
      syncDirectory(dirname(this.#path));
    } catch (cause) {
      rmSync(this.#temporary, { force: true });
      throw systemCode(cause) === 'EEXIST' ? exists(this.#path, cause) : failed(this.#path, cause);
    }
  }

  discard(): void {
    closeSync(this.#descriptor);
    rmSync(this.#temporary, { force: true });
  }
}

function exists(path: string, cause: unknown): SetpointError {
  return new SetpointError('invalid_config', `Cannot write ${path}: something is already there`, {
    field: path,
    remedy: 'choose another path, or give --force to replace it',
    ...(cause === null ? {} : { cause }),
  });
}

function failed(path: string, cause: unknown): SetpointError {
  const why = systemCode(cause) === 'ENOENT' ? 'its folder does not exist' : messageOf(cause);
  return new SetpointError('invalid_config', `Cannot write ${path}: ${why}`, {
    field: path,
    remedy: 'check the path, its permissions and the free space',
    cause,
  });
}
