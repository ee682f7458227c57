import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Checkpoint, createCheckpoint, isSigned, parseCheckpoint } from '../../../agent/audit/checkpoint.ts';
import { signingKeyFromPem } from '../../../protocol/envelope.ts';
import { SetpointError } from '../../../protocol/errors.ts';

function keyOf(byte: string): ReturnType<typeof signingKeyFromPem> {
  const der = Buffer.from(`302e020100300506032b657004220420${byte.repeat(32)}`, 'hex');
  return signingKeyFromPem(`-----BEGIN PRIVATE KEY-----\n${der.toString('base64')}\n-----END PRIVATE KEY-----\n`, 'agent.pem');
}

const key = keyOf('07');
const head = { log: 0x0123456789abcdefn, index: 1041, link: Uint8Array.from({ length: 32 }, (_, at) => at) };
const origin = { agentId: 'agent-7', timeMillis: Date.UTC(2026, 10, 22, 10, 15, 0, 250) };
const line = createCheckpoint(head, origin, key);
const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8');

const BODY = `setpoint.checkpoint.v1
agent-7
0123456789abcdef
1041
000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
2026-11-22T10:15:00.250Z
`;

describe('createCheckpoint()', () => {
  test('writes these bytes', () => {
    const { body, keyId, signature } = JSON.parse(text(line)) as Record<string, string>;
    expect(body).toBe(BODY);
    expect(keyId).toBe(key.verification.keyId);
    // From an implementation of RFC 8032 in plain arithmetic: Ed25519 has one signature for a key and a body.
    expect(text(line)).toBe(`${JSON.stringify({ body: BODY, keyId, signature })}\n`);
    expect(signature).toBe('1FD2HFl9iOSaf6nqUQVkoQqPcXWeDBPiXAF9aHb8ARAEXcdbcaiuhac4RZAgtQFt1jQxu011s7mSIuAqHEdUDA==');
  });

  test.each(['', 'two\nlines', 'a\u0000', 'a\u2028b', '\ud800', 'tab\t', 'del\u007f'])('refuses the agent id %j', (agentId) => {
    expect(() => createCheckpoint(head, { ...origin, agentId }, key)).toThrow(SetpointError);
  });

  test('whatever it states, parseCheckpoint() reads the same and its key vouches for it', () => {
    const agentIds = fc.string({ minLength: 1, maxLength: 64, unit: 'grapheme' }).filter((id) => !/[\p{Cc}\p{Cs}\u2028\u2029]/u.test(id));
    fc.assert(
      fc.property(
        agentIds,
        fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
        fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
        fc.uint8Array({ minLength: 32, maxLength: 32 }),
        fc.integer({ min: 0, max: 253_402_300_799_999 }),
        (agentId, log, index, link, timeMillis) => {
          const parsed = parseCheckpoint(createCheckpoint({ log, index, link }, { agentId, timeMillis }, key));
          expect(parsed).toMatchObject({ agentId, log, index, timeMillis });
          expect(Buffer.from(parsed!.link).equals(link)).toBe(true);
          expect(isSigned(parsed!, key.verification)).toBe(true);
        },
      ),
    );
  });
});

describe('parseCheckpoint()', () => {
  test('takes a line with and without its line feed', () => {
    expect(parseCheckpoint(line)).toEqual(parseCheckpoint(line.subarray(0, -1)));
    expect(parseCheckpoint(line)).toMatchObject({ ...origin, log: head.log, index: 1041 });
  });

  test('no change of a byte passes as the same statement', () => {
    for (let at = 0; at < line.byteLength; at++) {
      for (const flip of [1, 0x20, 0x80]) {
        const changed = Uint8Array.from(line);
        changed[at]! ^= flip;
        const parsed = parseCheckpoint(changed);
        expect(parsed !== null && isSigned(parsed, key.verification), `byte ${at} ^ ${flip}`).toBe(false);
      }
    }
  });

  test.each([
    ['a second line feed', (good: string) => `${good}\n`],
    ['a space', (good: string) => good.replace(',', ', ')],
    [
      'another order of keys',
      (good: string) => JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(good) as object).toReversed())),
    ],
    ['a key too many', (good: string) => good.replace('}', ',"more":1}')],
    ['a key twice', (good: string) => good.replace('{', '{"body":"x",')],
    ['an escape that JSON does not need', (good: string) => good.replace('agent-7', '\\u0061gent-7')],
    ['a signature in another form of base64', (good: string) => good.replace(/==/, '')],
    ['a carriage return', (good: string) => good.replaceAll('\\n', '\\r\\n')],
    ['a leading zero', (good: string) => good.replace('\\n1041', '\\n01041')],
    ['index 0', (good: string) => good.replace('\\n1041', '\\n0')],
    ['an index beyond 2^53', (good: string) => good.replace('\\n1041', '\\n9007199254740993')],
    ['digits in capitals', (good: string) => good.replace('abcdef', 'ABCDEF')],
    ['a time without its milliseconds', (good: string) => good.replace('.250Z', 'Z')],
    ['a day that does not exist', (good: string) => good.replace('11-22T', '02-30T')],
    ['another format', (good: string) => good.replace('checkpoint.v1', 'checkpoint.v2')],
    ['a byte order mark', (good: string) => `\ufeff${good}`],
    ['a line cut short', (good: string) => good.slice(0, 100)],
    ['nothing', () => ''],
    ['null', () => 'null'],
    ['a number', () => '5'],
    ['a long line', (good: string) => `${good}${' '.repeat(5000)}`],
  ])('refuses %s', (_name, change) => {
    const changed = change(text(line));
    expect(changed).not.toBe(text(line));
    expect(parseCheckpoint(Buffer.from(changed))).toBeNull();
  });

  test('refuses bytes that are not UTF-8', () => {
    expect(parseCheckpoint(Buffer.concat([line.subarray(0, 12), Buffer.of(0xff), line.subarray(12)]))).toBeNull();
  });

  test('never throws', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array(),
          fc.json().map((json) => Buffer.from(json)),
        ),
        (bytes) => void parseCheckpoint(bytes),
      ),
    );
  });
});

describe('isSigned()', () => {
  const checkpoint = parseCheckpoint(line) as Checkpoint;

  test('only by the key that the line names', () => {
    const other = keyOf('08');
    expect(isSigned(checkpoint, key.verification)).toBe(true);
    expect(isSigned(checkpoint, other.verification)).toBe(false);
    // The right signature under the name of another key, and the other way round.
    expect(isSigned({ ...checkpoint, keyId: other.verification.keyId }, key.verification)).toBe(false);
    expect(isSigned({ ...checkpoint, keyId: other.verification.keyId }, other.verification)).toBe(false);
  });
});
