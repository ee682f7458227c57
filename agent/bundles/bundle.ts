import { createHash } from 'node:crypto';
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { BUNDLE_LIMITS, MANIFEST_FILE, parseManifest, type Manifest } from '../../protocol/manifest.ts';
import { packFiles, unpackFiles, type ArchivedFile } from './archive.ts';
import { createFolder, listFiles, readBounded, replaceFile, systemCode } from './disk.ts';

/**
 * An opened bundle: every file was there with its listed size and SHA-256 when it was opened, and read() checks again, so a
 * file that changes afterwards is an error and never other content.
 */
export interface Bundle {
  /** Where it was opened, for messages. */
  readonly source: string;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  /** SHA-256 of the manifest's bytes, 64 lower-case hexadecimal digits. */
  readonly bundleId: string;
  /** The same, 32 bytes. */
  readonly bundleIdBytes: Uint8Array;
  /** @throws SetpointError invalid_bundle when the file no longer is what the manifest says */
  read(path: string): Uint8Array;
}

/** Largest single-file bundle, bytes: one model at its limit with golden vectors; reading holds it three times in memory. */
const MAX_ARCHIVE_BYTES = BUNDLE_LIMITS.fileBytes + 64 * 1024 * 1024;
/** All files of a bundle together, bytes: the model and its external data at their limit. */
const MAX_BUNDLE_BYTES = 2 * BUNDLE_LIMITS.fileBytes;
/** The listed files and the manifest. */
const MAX_FILES = BUNDLE_LIMITS.files + 1;

export function sha256(bytes: Uint8Array): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/**
 * Opens a bundle folder or a `.setpoint` file and verifies all of it.
 * @throws SetpointError not_found; not_ready when files are missing or short, as while a copy runs; invalid_bundle otherwise
 */
export function openBundle(path: string): Bundle {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (cause) {
    throw new SetpointError(
      'not_found',
      `Cannot open bundle ${path}: ${systemCode(cause) === 'ENOENT' ? 'there is none' : messageOf(cause)}`,
      {
        field: path,
        remedy: 'check the path: a folder made by setpoint bundle create, or a .setpoint file',
        cause,
      },
    );
  }
  return isFolder ? openFolder(path) : openArchive(path);
}

function openFolder(folder: string): Bundle {
  const found = new Map(listFiles(folder, MAX_FILES).map((file) => [file.path, file.size]));
  if (!found.has(MANIFEST_FILE)) throw missing(folder, MANIFEST_FILE);
  const manifestBytes = readBounded(join(folder, MANIFEST_FILE), BUNDLE_LIMITS.manifestBytes);
  const manifest = parseManifest(manifestBytes);
  const bundle = new VerifiedBundle(folder, manifest, manifestBytes, (path, size) => readBounded(join(folder, path), size));
  checkListing(folder, manifest, found);
  for (const file of manifest.files) bundle.read(file.path);
  return bundle;
}

function openArchive(path: string): Bundle {
  const files = unpackFiles(readBounded(path, MAX_ARCHIVE_BYTES), MAX_FILES, path);
  return bundleOf(files, path);
}

function bundleOf(files: readonly ArchivedFile[], source: string): Bundle {
  const byPath = new Map(files.map((file) => [file.path, file.bytes]));
  const manifestBytes = byPath.get(MANIFEST_FILE);
  if (manifestBytes === undefined || files[0]?.path !== MANIFEST_FILE || byPath.size !== files.length) {
    return refuse(source, `${MANIFEST_FILE} must be the first file of the archive, and each file is there once`);
  }
  const manifest = parseManifest(manifestBytes);
  checkListing(source, manifest, new Map(files.map((file) => [file.path, file.bytes.byteLength])));
  if (manifest.files.some((file, index) => files[index + 1]?.path !== file.path)) {
    refuse(source, 'its files are not in the order of the manifest');
  }
  const bundle = new VerifiedBundle(source, manifest, manifestBytes, (path) => byPath.get(path) ?? refuse(source, `${path} is missing`));
  for (const file of manifest.files) bundle.read(file.path);
  return bundle;
}

/** Builds a bundle in memory; the same checks as for one that is opened. */
export function assembleBundle(manifestBytes: Uint8Array, files: ReadonlyMap<string, Uint8Array>, source: string): Bundle {
  const manifest = parseManifest(manifestBytes);
  const listed = manifest.files.map(({ path }) => ({ path, bytes: files.get(path) ?? new Uint8Array(0) }));
  return bundleOf([{ path: MANIFEST_FILE, bytes: manifestBytes }, ...listed], source);
}

function checkListing(source: string, manifest: Manifest, found: ReadonlyMap<string, number>): void {
  const listed = new Set(manifest.files.map(({ path }) => path));
  if (listed.size !== manifest.files.length) refuse(source, 'the manifest lists a file twice');
  if (listed.has(MANIFEST_FILE)) refuse(source, `the manifest lists ${MANIFEST_FILE} itself`);
  for (const path of [manifest.model.path, manifest.golden, ...manifest.model.externalData]) {
    if (!listed.has(path)) refuse(source, `the manifest uses ${path} and does not list it in files`);
  }
  const total = manifest.files.reduce((sum, { size }) => sum + size, 0);
  if (total > MAX_BUNDLE_BYTES) refuse(source, `its files have ${total} bytes, ${MAX_BUNDLE_BYTES} are allowed`);
  for (const path of found.keys()) {
    if (path !== MANIFEST_FILE && !listed.has(path)) refuse(source, `${path} is not listed in the manifest`);
  }
  for (const { path, size } of manifest.files) {
    const bytes = found.get(path);
    if (bytes === undefined) throw missing(source, path);
    if (bytes < size) throw missing(source, path, `has ${bytes} of ${size} bytes`);
    if (bytes > size) refuse(source, `${path} has ${bytes} bytes, the manifest says ${size}`);
  }
}

/** A copy that is still running looks like this; so does one that was broken off. */
function missing(source: string, path: string, state = 'is missing'): SetpointError {
  return new SetpointError('not_ready', `Cannot open bundle ${source}: ${path} ${state}`, {
    field: path,
    remedy: 'wait until the copy is complete, or copy the bundle again',
  });
}

function refuse(source: string, why: string): never {
  throw new SetpointError('invalid_bundle', `Cannot open bundle ${source}: ${why}`, { field: source });
}

class VerifiedBundle implements Bundle {
  readonly source: string;
  readonly manifest: Manifest;
  readonly manifestBytes: Uint8Array;
  readonly bundleId: string;
  readonly bundleIdBytes: Uint8Array;
  readonly #load: (path: string, size: number) => Uint8Array;

  constructor(source: string, manifest: Manifest, manifestBytes: Uint8Array, load: (path: string, size: number) => Uint8Array) {
    this.source = source;
    this.manifest = manifest;
    this.manifestBytes = manifestBytes;
    const id = sha256(manifestBytes);
    this.bundleId = id.toString('hex');
    this.bundleIdBytes = new Uint8Array(id);
    this.#load = load;
  }

  read(path: string): Uint8Array {
    const listed = this.manifest.files.find((file) => file.path === path);
    if (listed === undefined) return refuse(this.source, `${path} is not listed in the manifest`);
    const bytes = this.#load(path, listed.size);
    const found = sha256(bytes).toString('hex');
    if (bytes.byteLength !== listed.size || found !== listed.sha256) {
      refuse(this.source, `${path} has SHA-256 ${found}, the manifest says ${listed.sha256}`);
    }
    return bytes;
  }
}

/** The bundle's files in archive order: the manifest, then as listed. */
function filesOf(bundle: Bundle): ArchivedFile[] {
  return [
    { path: MANIFEST_FILE, bytes: bundle.manifestBytes },
    ...bundle.manifest.files.map(({ path }) => ({ path, bytes: bundle.read(path) })),
  ];
}

/**
 * Writes a bundle as a folder, whole or not at all. Does nothing when the same bundle is already there.
 * @returns whether it was written
 * @throws SetpointError invalid_config when something else is there
 */
export function writeBundle(folder: string, bundle: Bundle): boolean {
  if (existsSync(folder) && !isEmptyFolder(folder)) {
    if (statSync(folder).isDirectory() && openedId(folder) === bundle.bundleId) return false;
    throw occupied(folder);
  }
  createFolder(folder, new Map(filesOf(bundle).map(({ path, bytes }) => [path, bytes])));
  return true;
}

/** As writeBundle, for the single-file form. */
export function packBundle(bundle: Bundle, file: string): boolean {
  if (existsSync(file)) {
    if (statSync(file).isFile() && openedId(file) === bundle.bundleId) return false;
    throw occupied(file);
  }
  replaceFile(file, packFiles(filesOf(bundle)));
  return true;
}

function isEmptyFolder(path: string): boolean {
  return statSync(path).isDirectory() && readdirSync(path).length === 0;
}

/** The id of the whole bundle at `path`, or null where there is something else or a part. */
function openedId(path: string): string | null {
  try {
    return openBundle(path).bundleId;
  } catch (thrown) {
    if (thrown instanceof SetpointError) return null;
    throw thrown;
  }
}

function occupied(path: string): SetpointError {
  return new SetpointError('invalid_config', `Cannot write ${path}: something else is already there, and bundles are never overwritten`, {
    field: path,
    remedy: 'choose another path, or remove what is there',
  });
}
