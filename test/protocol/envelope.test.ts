import { createPublicKey, generateKeyPairSync, verify as verifyBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  KEY_BYTES,
  preAuthenticationEncoding,
  sign,
  signingKeyFromPem,
  verificationKey,
  verificationKeyFromPem,
  verificationKeyToPem,
  verify,
} from '../../protocol/envelope.ts';
import { SetpointError } from '../../protocol/errors.ts';

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

/** PKCS8 of an Ed25519 seed: RFC 8410. */
function pemOfSeed(seed: string): string {
  const der = Buffer.from(`302e020100300506032b657004220420${seed}`, 'hex');
  return `-----BEGIN PRIVATE KEY-----\n${der.toString('base64')}\n-----END PRIVATE KEY-----\n`;
}

/** RFC 8032, 7.1, TEST 1. */
const SEED = '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60';
const PUBLIC = 'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a';
const key = signingKeyFromPem(pemOfSeed(SEED), 'agent.pem');

describe('preAuthenticationEncoding()', () => {
  test('is that of the DSSE specification', () => {
    expect(Buffer.from(preAuthenticationEncoding('http://example.com/HelloWorld', text('hello world'))).toString()).toBe(
      'DSSEv1 29 http://example.com/HelloWorld 11 hello world',
    );
  });

  test('counts bytes, not characters, and takes any body', () => {
    expect(hexOf(preAuthenticationEncoding('ä', Uint8Array.of(0, 255)))).toBe(`${hexOf(text('DSSEv1 2 ä 2 '))}00ff`);
    expect(Buffer.from(preAuthenticationEncoding('', new Uint8Array(0))).toString()).toBe('DSSEv1 0  0 ');
  });

  test('is different for every pair of type and body', () => {
    const pair = fc.tuple(fc.string({ maxLength: 6 }), fc.uint8Array({ maxLength: 6 }));
    fc.assert(
      fc.property(pair, pair, ([type, body], [otherType, otherBody]) => {
        const isSame = type === otherType && hexOf(body) === hexOf(otherBody);
        expect(hexOf(preAuthenticationEncoding(type, body)) === hexOf(preAuthenticationEncoding(otherType, otherBody))).toBe(isSame);
      }),
    );
  });
});

describe('sign() and verify()', () => {
  test('the key of RFC 8032 has its public key, and the SHA-256 of it as its id', () => {
    expect(hexOf(key.verification.raw)).toBe(PUBLIC);
    expect(key.verification.keyId).toBe('21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9');
  });

  test('the signature of a type and a body is this one', () => {
    const signature = sign('setpoint.example.v1', text('hello\n'), key);
    expect(hexOf(signature)).toBe(
      // From an implementation of RFC 8032 in plain arithmetic.
      '56a1ca945ce38757f305ef8f0b8f3d6f5209626b2ca442986924239c805e5ce61c73becb2c9390f853468ba221d6049ecf8c1f4c99ea859a113d631c5aaf4304',
    );
    expect(verify('setpoint.example.v1', text('hello\n'), signature, key.verification)).toBe(true);
  });

  test('another type, body, key, or any changed byte of the signature is refused', () => {
    const body = text('hello\n');
    const signature = sign('setpoint.example.v1', body, key);
    const other = signingKeyFromPem(pemOfSeed('01'.repeat(32)), 'other.pem');
    expect(verify('setpoint.example.v2', body, signature, key.verification)).toBe(false);
    expect(verify('setpoint.example.v1', text('hello'), signature, key.verification)).toBe(false);
    expect(verify('setpoint.example.v1', body, signature, other.verification)).toBe(false);
    for (let at = 0; at < signature.byteLength; at++) {
      const changed = signature.slice();
      changed[at]! ^= 1;
      expect(verify('setpoint.example.v1', body, changed, key.verification), `byte ${at}`).toBe(false);
    }
    expect(verify('setpoint.example.v1', body, signature.subarray(0, 63), key.verification)).toBe(false);
    expect(verify('setpoint.example.v1', body, Buffer.concat([signature, Buffer.of(0)]), key.verification)).toBe(false);
  });

  test('S + L is refused: a signature has one form', () => {
    const signature = sign('t', text('b'), key);
    const order = 2n ** 252n + 27742317777372353535851937790883648493n;
    let s = BigInt(`0x${hexOf(signature.slice(32).toReversed())}`) + order;
    const malleable = signature.slice();
    for (let at = 32; at < 64; at++, s >>= 8n) malleable[at] = Number(s & 255n);
    expect(verify('t', text('b'), malleable, key.verification)).toBe(false);
  });
});

/** Every encoding of the 8 points of small order that a lax reader takes: y, y + p where it fits, both signs. */
const p = 2n ** 255n - 19n;
const d = (-121665n * inverse(121666n)) % p;

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (let square = ((base % p) + p) % p; exponent > 0n; exponent >>= 1n, square = (square * square) % p) {
    if (exponent & 1n) result = (result * square) % p;
  }
  return result;
}

function inverse(value: bigint): bigint {
  return power(value, p - 2n);
}

function encodings(y: bigint): Uint8Array[] {
  return [0n, 1n].map((sign) => {
    let rest = y | (sign << 255n);
    return Uint8Array.from({ length: KEY_BYTES }, () => {
      const byte = Number(rest & 255n);
      rest >>= 8n;
      return byte;
    });
  });
}

/** Doubling of the y coordinate: y(2P) = (y^2 + x^2) / (1 - d x^2 y^2), with x^2 from the curve. */
function doubled(y: bigint): bigint {
  const x2 = (((y * y - 1n) % p) * inverse((((d * y * y) % p) + 1n + p) % p)) % p;
  const numerator = (((y * y + x2) % p) + p) % p;
  const denominator = (((1n - ((d * x2) % p) * ((y * y) % p)) % p) + p) % p;
  return (numerator * inverse(denominator)) % p;
}

const ORDER_8 = [
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
];
const smallOrderY = [0n, 1n, p - 1n, ...ORDER_8.map((hex) => BigInt(`0x${hexOf(Buffer.from(hex, 'hex').toReversed())}`))];

describe('verificationKey()', () => {
  test('the table of small orders is complete: 8 points, each the identity when doubled three times', () => {
    for (const y of smallOrderY) expect(doubled(doubled(doubled(y))), y.toString(16)).toBe(1n);
    // x is 0 for y = 1 and y = -1, which leaves one point each; the others are two.
    expect(smallOrderY.reduce((points, y) => points + (y === 1n || y === p - 1n ? 1 : 2), 0)).toBe(8);
  });

  test.each(smallOrderY.flatMap(encodings).map((raw) => [hexOf(raw), raw]))('refuses the point of small order %s', (_hex, raw) => {
    expect(() => verificationKey(raw, 'k')).toThrow(/small order/);
  });

  test('refuses every y that is not below 2^255 - 19', () => {
    for (let y = p; y < 2n ** 255n; y++) {
      for (const raw of encodings(y)) expect(() => verificationKey(raw, 'k'), hexOf(raw)).toThrow(/not canonical/);
    }
    expect(() => verificationKey(encodings(p - 2n)[0]!, 'k')).not.toThrow();
  });

  test('without the checks anyone could sign: Node takes R = identity, S = 0 under the identity as a key', () => {
    const forged = new Uint8Array(64);
    forged[0] = 1;
    for (const raw of [...encodings(1n), ...encodings(p + 1n)]) {
      const x = Buffer.from(raw).toString('base64url');
      const unchecked = createPublicKey({ key: { kty: 'OKP', crv: 'Ed25519', x }, format: 'jwk' });
      // When this fails, Node has learnt to refuse such keys; the checks stay for the versions that have not.
      expect(verifyBytes(null, preAuthenticationEncoding('t', text('anything')), unchecked, forged)).toBe(true);
      const pem = unchecked.export({ type: 'spki', format: 'pem' }).toString();
      expect(() => verificationKeyFromPem(pem, 'k')).toThrow(SetpointError);
    }
  });

  test.each([0, 31, 33, 64])('refuses %i bytes', (length) => {
    expect(() => verificationKey(new Uint8Array(length).fill(5), 'k')).toThrow(/Ed25519 public key has 32/);
  });

  test('neither changes the bytes it was given nor follows later changes of them', () => {
    // A key whose sign bit is set, in a Buffer: its slice() would be the same memory.
    const raw = signingKeyFromPem(pemOfSeed('02'.repeat(32)), 'k').verification.raw;
    expect(raw[31]! & 0x80).toBe(0x80);
    const given = Buffer.from(raw);
    const taken = verificationKey(given, 'k');
    expect(hexOf(given)).toBe(hexOf(raw));
    given.fill(0);
    expect(hexOf(taken.raw)).toBe(hexOf(raw));
  });
});

describe('keys in PEM', () => {
  test('round trip', () => {
    const pem = verificationKeyToPem(key.verification);
    expect(pem).toMatch(/^-----BEGIN PUBLIC KEY-----/);
    expect(verificationKeyFromPem(pem, 'k').keyId).toBe(key.verification.keyId);
  });

  test.each([
    ['an empty file', ''],
    ['text', 'hello'],
    ['an RSA key', generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export({ type: 'spki', format: 'pem' }).toString()],
    ['an X25519 key', generateKeyPairSync('x25519').publicKey.export({ type: 'spki', format: 'pem' }).toString()],
    ['a private key', pemOfSeed(SEED)],
  ])('as a public key, %s is refused', (_name, pem) => {
    const attempt = (): unknown => verificationKeyFromPem(pem, 'agent.pub.pem');
    expect(attempt).toThrow(SetpointError);
    expect(attempt).toThrow(/^Cannot use the key agent\.pub\.pem: /);
  });

  test.each([
    ['a public key', verificationKeyToPem(key.verification)],
    ['an X25519 key', generateKeyPairSync('x25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()],
    ['a key cut short', pemOfSeed(SEED.slice(0, 40))],
  ])('as a private key, %s is refused', (_name, pem) => {
    expect(() => signingKeyFromPem(pem, 'agent.pem')).toThrow(/^Cannot use the key agent\.pem: /);
  });
});
