import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Files } from './files.ts';
import { decodeMark, encodeMark, type Mark, MARK_FILE_BYTES, MARK_SLOT_BYTES, MARK_SLOT_DISTANCE } from './mark.ts';

/** The file of a stream's mark, by its number. */
export function markPath(directory: string, stream: number): string {
  return join(directory, `stream-${stream}.mark`);
}

/** Tells this run of the machine from the ones before and after; null where the system has no such thing. */
export function readBootId(): string | null {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    // Not Linux: without it every start that does not follow a clean stop is taken for one after a power cut.
    return null;
  }
}

/**
 * A small file beside the segments that is allocated once and then overwritten in place, so that it can be written when
 * the disk is full. Two slots are written in turn: while one is written the other one holds.
 */
export class MarkFile {
  readonly #files: Files;
  readonly #descriptor: number;
  readonly #slot = new Uint8Array(MARK_SLOT_BYTES);
  #counter: number;
  #given = 0;
  #syncedGiven = 0;
  #isDirty = false;

  private constructor(files: Files, descriptor: number, counter: number) {
    this.#files = files;
    this.#descriptor = descriptor;
    this.#counter = counter;
  }

  /** What the mark of a stream says: the newer of its two slots that can be read; null when there is none. */
  static read(files: Files, path: string): { readonly counter: number; readonly mark: Mark } | null {
    if (files.bytes(path) === null) return null;
    const descriptor = files.open(path, 'r');
    try {
      const bytes = new Uint8Array(MARK_FILE_BYTES);
      const length = files.read(descriptor, bytes, 0, MARK_FILE_BYTES, 0);
      const [first, second] = [0, MARK_SLOT_DISTANCE].map((at) => decodeMark(bytes.subarray(at, Math.min(at + MARK_SLOT_BYTES, length))));
      if (first === null || first === undefined) return second ?? null;
      return second === null || second === undefined || first.counter > second.counter ? first : second;
    } finally {
      files.close(descriptor);
    }
  }

  /** Opens the mark for writing. A missing or unusable one is made anew and says `initial`. */
  static open(files: Files, directory: string, initial: Mark): MarkFile {
    const path = markPath(directory, initial.stream);
    const found = files.bytes(path) === MARK_FILE_BYTES ? MarkFile.read(files, path) : null;
    if (found === null) create(files, directory, initial);
    return new MarkFile(files, files.open(path, 'r+'), found?.counter ?? 1);
  }

  /** Hands the mark to the operating system. On a file system that writes elsewhere (btrfs, ZFS) even this needs room. */
  write(mark: Mark): void {
    encodeMark(this.#slot, this.#counter + 1, mark);
    const position = ((this.#counter + 1) % 2) * MARK_SLOT_DISTANCE;
    const written = this.#files.write(this.#descriptor, this.#slot, 0, MARK_SLOT_BYTES, position);
    if (written !== MARK_SLOT_BYTES) throw new Error(`only ${written} of ${MARK_SLOT_BYTES} bytes were written`);
    this.#counter += 1;
    this.#given = mark.given;
    this.#isDirty = true;
  }

  /** What the last write of this run said. */
  get given(): number {
    return this.#given;
  }

  /** The highest number given that the disk knows of. */
  get syncedGiven(): number {
    return this.#syncedGiven;
  }

  get isDirty(): boolean {
    return this.#isDirty;
  }

  sync(): void {
    this.#files.sync(this.#descriptor);
    this.#isDirty = false;
    this.#syncedGiven = this.#given;
  }

  /** In the background; one that fails leaves the mark dirty. Called at once when it is not. */
  syncLater(done: () => void): void {
    if (!this.#isDirty) {
      done();
      return;
    }
    const given = this.#given;
    this.#isDirty = false;
    this.#files.syncLater(this.#descriptor, (error) => {
      if (error === null) this.#syncedGiven = given;
      else this.#isDirty = true;
      done();
    });
  }

  close(): void {
    this.#files.close(this.#descriptor);
  }
}

/** Whole under its name, or not there. Its zeros are written, not skipped: a hole would need room later. */
function create(files: Files, directory: string, initial: Mark): void {
  const path = markPath(directory, initial.stream);
  const bytes = new Uint8Array(MARK_FILE_BYTES);
  encodeMark(bytes.subarray(MARK_SLOT_DISTANCE), 1, initial);
  const draft = `${path}.new`;
  files.remove(draft);
  const descriptor = files.open(draft, 'wx');
  try {
    for (let at = 0; at < bytes.byteLength;) at += files.write(descriptor, bytes, at, bytes.byteLength - at, at);
    files.sync(descriptor);
  } finally {
    files.close(descriptor);
  }
  files.rename(draft, path);
  files.syncFolder(directory);
}
