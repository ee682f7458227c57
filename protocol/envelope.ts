import { createPrivateKey, createPublicKey, hash, type KeyObject, sign as signBytes, verify as verifyBytes } from 'node:crypto';
import { SetpointError } from './errors.ts';

/**
 * Signatures over exact bytes. What is signed is the DSSE pre-authentication encoding of a type string and a body, so that a
 * signature over one kind of object is worth nothing for another. Ed25519 only: there is no algorithm field to lie in.
 * Never sign or verify bytes that were decoded and encoded again. protocol/README.md, "Signed objects", is the specification.
 */
export const KEY_BYTES = 32;
const SIGNATURE_BYTES = 64;

/** A public key that has passed the checks of this file; made only here. */
export interface VerificationKey {
  /** SHA-256 of the raw key, 64 lower-case hexadecimal digits. */
  readonly keyId: string;
  /** The raw key, RFC 8032. */
  readonly raw: Uint8Array;
  readonly key: KeyObject;
}

export interface SigningKey {
  readonly key: KeyObject;
  readonly verification: VerificationKey;
}

/** 2^255 - 19, little-endian: a y of this or more is a second way to write a smaller one. */
const FIELD_PRIME = Uint8Array.from({ length: KEY_BYTES }, (_, at) => (at === 0 ? 0xed : at === KEY_BYTES - 1 ? 0x7f : 0xff));

/**
 * The y of every point whose order divides 8, little-endian, without the sign bit. Together with both signs they are the 8
 * points, and for y = 1 and y = -1 (where x is 0) two encodings that are not canonical either.
 */
const SMALL_ORDER_Y = [
  '0000000000000000000000000000000000000000000000000000000000000000', // order 4
  '0100000000000000000000000000000000000000000000000000000000000000', // order 1
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f', // order 2
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05', // order 8
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a', // order 8
];

/** "DSSEv1" SP length(type) SP type SP length(body) SP body; lengths are decimal, in bytes. */
export function preAuthenticationEncoding(type: string, body: Uint8Array): Uint8Array {
  const head = `DSSEv1 ${Buffer.byteLength(type)} ${type} ${body.byteLength} `;
  return Buffer.concat([Buffer.from(head), body]);
}

export function sign(type: string, body: Uint8Array, key: SigningKey): Uint8Array {
  return signBytes(null, preAuthenticationEncoding(type, body), key.key);
}

export function verify(type: string, body: Uint8Array, signature: Uint8Array, key: VerificationKey): boolean {
  return signature.byteLength === SIGNATURE_BYTES && verifyBytes(null, preAuthenticationEncoding(type, body), key.key, signature);
}

/**
 * Takes a raw public key. Node verifies any message under a key of small order (with the identity as the key, R = identity
 * and S = 0 sign everything), and takes encodings of a point that are not canonical, so that one key would have two ids.
 * @throws SetpointError invalid_config
 */
export function verificationKey(raw: Uint8Array, source: string): VerificationKey {
  if (raw.byteLength !== KEY_BYTES) throw wrongKey(source, `it has ${raw.byteLength} bytes, an Ed25519 public key has ${KEY_BYTES}`);
  // Copies: slice() of a Buffer would be the caller's own memory.
  const y = Uint8Array.from(raw);
  y[KEY_BYTES - 1] = (y[KEY_BYTES - 1] ?? 0) & 0x7f;
  if (!isBelow(y, FIELD_PRIME)) throw wrongKey(source, 'its encoding is not canonical: y is not below 2^255 - 19');
  if (SMALL_ORDER_Y.includes(Buffer.from(y).toString('hex'))) {
    throw wrongKey(source, 'it is a point of small order, under which anyone can sign');
  }
  const x = Buffer.from(raw).toString('base64url');
  return {
    keyId: hash('sha256', raw),
    raw: Uint8Array.from(raw),
    key: createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' }),
  };
}

/** @throws SetpointError invalid_config for anything but an Ed25519 public key in PEM (SPKI) that may be used */
export function verificationKeyFromPem(pem: string, source: string): VerificationKey {
  // createPublicKey() would also take a private key and derive the public one: a file in the wrong place.
  if (pem.includes('PRIVATE KEY')) throw wrongKey(source, 'it is a private key');
  return verificationKey(
    rawOf(
      parsed(() => createPublicKey({ key: pem, format: 'pem' }), source),
      source,
    ),
    source,
  );
}

/** @throws SetpointError invalid_config for anything but an Ed25519 private key in PEM (PKCS8) */
export function signingKeyFromPem(pem: string, source: string): SigningKey {
  const key = parsed(() => createPrivateKey({ key: pem, format: 'pem' }), source);
  return { key, verification: verificationKey(rawOf(createPublicKey(key), source), source) };
}

/** The public key as PEM (SPKI). */
export function verificationKeyToPem({ key }: VerificationKey): string {
  return key.export({ type: 'spki', format: 'pem' }).toString();
}

function parsed(parse: () => KeyObject, source: string): KeyObject {
  try {
    return parse();
  } catch (cause) {
    // The cause stays in the error only: OpenSSL's message says nothing to an operator, and the text of a key belongs in none.
    throw wrongKey(source, 'it is not a key in PEM', cause);
  }
}

function rawOf(key: KeyObject, source: string): Uint8Array {
  if (key.asymmetricKeyType !== 'ed25519') throw wrongKey(source, `it is a key of type ${key.asymmetricKeyType}, only ed25519 is allowed`);
  // SPKI of Ed25519: 12 bytes that say so, and the raw key (RFC 8410).
  return key.export({ type: 'spki', format: 'der' }).subarray(-KEY_BYTES);
}

/** Whether a < b, both little-endian and of the same length. */
function isBelow(a: Uint8Array, b: Uint8Array): boolean {
  for (let at = a.byteLength - 1; at >= 0; at--) {
    const difference = (a[at] ?? 0) - (b[at] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}

function wrongKey(source: string, why: string, cause?: unknown): SetpointError {
  return new SetpointError('invalid_config', `Cannot use the key ${source}: ${why}`, {
    field: source,
    remedy: 'give an Ed25519 key in PEM, as agent/audit/README.md describes',
    ...(cause === undefined ? {} : { cause }),
  });
}
