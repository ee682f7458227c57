import type { Files } from './files.ts';
import { decodeRecord, encodeFileHeader, FILE_HEADER_BYTES, type FileHeader } from './record.ts';
import { segmentPath } from './segments.ts';

/**
 * The current segment of a stream, open for writing at its end.
 *
 * It has two descriptors, one of them for background syncs alone: the kernel tells a failed write-back once per open file,
 * so a background sync on the same one could take the error away from the sync that somebody waits for.
 */
export class SegmentFile {
  readonly path: string;
  readonly #files: Files;
  readonly #descriptor: number;
  readonly #syncDescriptor: number;
  #offset: number;
  #lastSequence: number;
  #syncedSequence: number;
  /** There are bytes behind the last whole record. */
  #hasTornTail: boolean;
  #isSyncing = false;
  #isClosed = false;
  #hasFailedSync = false;

  /** @param at its name at this moment; `path` is the one it will have */
  private constructor(files: Files, at: string, path: string, offset: number, lastSequence: number, syncedSequence: number) {
    this.path = path;
    this.#files = files;
    this.#descriptor = files.open(at, 'r+');
    try {
      this.#syncDescriptor = files.open(at, 'r+');
    } catch (error) {
      files.close(this.#descriptor);
      throw error;
    }
    this.#offset = offset;
    this.#lastSequence = lastSequence;
    this.#syncedSequence = syncedSequence;
    this.#hasTornTail = (files.bytes(at) ?? offset) > offset;
  }

  /** Opens a segment behind its last whole record. Nothing in it counts as synced. */
  static open(files: Files, path: string, firstSequence: number, offset: number, lastSequence: number): SegmentFile {
    return new SegmentFile(files, path, path, offset, lastSequence, firstSequence - 1);
  }

  /**
   * Makes a segment that holds `head`, whole and synced under its name: there is no moment at which a crash could leave half
   * of one. The caller syncs the folder before anything relies on the name. When this throws, no such segment was made.
   */
  static create(files: Files, directory: string, header: FileHeader, head: Uint8Array, lastSequence: number): SegmentFile {
    const path = segmentPath(directory, header.stream, header.firstSequence);
    const draft = `${path}.new`;
    const bytes = new Uint8Array(FILE_HEADER_BYTES + head.byteLength);
    bytes.set(encodeFileHeader(header));
    bytes.set(head, FILE_HEADER_BYTES);
    let segment: SegmentFile | null = null;
    try {
      files.remove(draft);
      writeWhole(files, draft, bytes);
      segment = new SegmentFile(files, draft, path, bytes.byteLength, lastSequence, lastSequence);
      files.rename(draft, path);
    } catch (error) {
      segment?.close();
      discard(files, draft);
      throw error;
    }
    return segment;
  }

  /** Where the next record goes. */
  get offset(): number {
    return this.#offset;
  }

  /** The highest number that this file or one before it holds, or states to be lost. */
  get lastSequence(): number {
    return this.#lastSequence;
  }

  /** Pages of this file may be lost, and no later sync of it says anything about them. */
  get hasFailedSync(): boolean {
    return this.#hasFailedSync;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  /** Everything up to this number is on the disk. */
  get syncedSequence(): number {
    return this.#syncedSequence;
  }

  /**
   * Hands whole records to the operating system, the last of them with `lastSequence`. When it throws, the file ends with a
   * whole record again: those of the given ones that got in stay, because a reader may have seen them.
   */
  write(bytes: Uint8Array, length: number, lastSequence: number): void {
    if (this.#hasTornTail) this.cut();
    let written = 0;
    try {
      while (written < length) {
        written += this.#files.write(this.#descriptor, bytes, written, length - written, this.#offset + written);
      }
    } catch (error) {
      this.#keepWhole(bytes.subarray(0, written));
      throw error;
    }
    this.#offset += length;
    this.#lastSequence = lastSequence;
  }

  #keepWhole(written: Uint8Array): void {
    let at = 0;
    for (let record = decodeRecord(written, at); typeof record !== 'string'; record = decodeRecord(written, at)) {
      at += record.stride;
      this.#lastSequence = Math.max(this.#lastSequence, record.sequence);
    }
    this.#offset += at;
    this.#hasTornTail = true;
    try {
      this.cut();
    } catch {
      // The tail stays marked: the next write cuts it first, or fails for the same reason.
    }
  }

  /** Cuts off what stands behind the last whole record. */
  cut(): void {
    if (!this.#hasTornTail) return;
    this.#files.truncate(this.#descriptor, this.#offset);
    this.#hasTornTail = false;
  }

  /** Waits until everything in the file is on the disk. */
  sync(): void {
    const target = this.#lastSequence;
    try {
      this.#files.sync(this.#descriptor);
    } catch (error) {
      this.#hasFailedSync = true;
      throw error;
    }
    this.#syncedSequence = Math.max(this.#syncedSequence, target);
  }

  /** The same in the background, one at a time. */
  syncLater(done: (error: Error | null) => void): void {
    const target = this.#lastSequence;
    this.#isSyncing = true;
    this.#files.syncLater(this.#syncDescriptor, (error) => {
      this.#isSyncing = false;
      if (this.#isClosed) this.#files.close(this.#syncDescriptor);
      if (error !== null) this.#hasFailedSync = true;
      // A success says nothing when the one of the other descriptor was told of lost pages.
      else if (!this.#hasFailedSync) this.#syncedSequence = Math.max(this.#syncedSequence, target);
      done(error);
    });
  }

  /** A descriptor that a background sync still uses is closed behind it: its number could be another file's by then. */
  close(): void {
    this.#isClosed = true;
    this.#files.close(this.#descriptor);
    if (!this.#isSyncing) this.#files.close(this.#syncDescriptor);
  }
}

function writeWhole(files: Files, path: string, bytes: Uint8Array): void {
  const descriptor = files.open(path, 'wx');
  try {
    for (let at = 0; at < bytes.byteLength;) at += files.write(descriptor, bytes, at, bytes.byteLength - at, at);
    files.sync(descriptor);
  } finally {
    files.close(descriptor);
  }
}

function discard(files: Files, path: string): void {
  try {
    files.remove(path);
  } catch {
    // A draft is no segment to any reader; the next attempt removes it, or writes another one.
  }
}
