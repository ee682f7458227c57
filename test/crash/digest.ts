import { hash } from 'node:crypto';

/** 48 bits of SHA-256, which a number holds: enough to tell any two frames of a run apart, and 8 bytes instead of 300. */
export function digestOf(bytes: Uint8Array): number {
  return hash('sha256', bytes, 'buffer').readUIntBE(0, 6);
}
