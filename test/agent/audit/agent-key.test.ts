import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadAgentPublicKey, loadOrCreateAgentKey, publicKeyPath } from '../../../agent/audit/agent-key.ts';
import { sign, verify } from '../../../protocol/envelope.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { temporaryDirectory } from '../../support/agent.ts';

const isPosix = process.platform !== 'win32';

describe('loadOrCreateAgentKey()', () => {
  test('makes a key that only its owner can read, and its public key beside it', () => {
    const directory = temporaryDirectory();
    const key = loadOrCreateAgentKey(directory);
    expect(readdirSync(join(directory, 'keys')).toSorted()).toEqual(['agent.pem', 'agent.pub.pem']);
    if (isPosix) expect(statSync(join(directory, 'keys/agent.pem')).mode & 0o777).toBe(0o600);
    const known = loadAgentPublicKey(publicKeyPath(directory));
    expect(known.keyId).toBe(key.verification.keyId);
    const body = Buffer.from('body');
    expect(verify('t', body, sign('t', body, key), known)).toBe(true);
  });

  test('gives the same key every time, and another one in another directory', () => {
    const directory = temporaryDirectory();
    const { keyId } = loadOrCreateAgentKey(directory).verification;
    expect(loadOrCreateAgentKey(directory).verification.keyId).toBe(keyId);
    expect(loadOrCreateAgentKey(temporaryDirectory()).verification.keyId).not.toBe(keyId);
  });

  test.runIf(isPosix).each([0o640, 0o604, 0o620])('refuses a private key of mode %o', (mode) => {
    const directory = temporaryDirectory();
    loadOrCreateAgentKey(directory);
    chmodSync(join(directory, 'keys/agent.pem'), mode);
    expect(() => loadOrCreateAgentKey(directory)).toThrow(/others can read it/);
  });

  test('writes a public key again that is missing or another one', () => {
    const directory = temporaryDirectory();
    const { keyId } = loadOrCreateAgentKey(directory).verification;
    const path = publicKeyPath(directory);
    for (const spoil of [() => rmSync(path), () => writeFileSync(path, readFileSync(publicKeyPath(otherDirectory()), 'utf8'))]) {
      spoil();
      loadOrCreateAgentKey(directory);
      expect(loadAgentPublicKey(path).keyId).toBe(keyId);
    }
  });

  test("makes no second key when the first one is gone: earlier statements would look like somebody else's", () => {
    const directory = temporaryDirectory();
    loadOrCreateAgentKey(directory);
    rmSync(join(directory, 'keys/agent.pem'));
    expect(() => loadOrCreateAgentKey(directory)).toThrow(/agent\.pem is gone/);
    expect(existsSync(join(directory, 'keys/agent.pem'))).toBe(false);
  });

  test('refuses what is no key, and says which file', () => {
    const directory = temporaryDirectory();
    mkdirSync(join(directory, 'keys'));
    writeFileSync(join(directory, 'keys/agent.pem'), 'hello', { mode: 0o600 });
    expect(() => loadOrCreateAgentKey(directory)).toThrow(/keys\/agent\.pem: it is not a key in PEM/);
  });

  test('of processes that start at once, all get the same key', async () => {
    const directory = temporaryDirectory();
    const file = resolve(import.meta.dirname, '../../../agent/audit/agent-key.ts');
    const script = `import { loadOrCreateAgentKey } from ${JSON.stringify(file)};
      while (Date.now() < ${Date.now() + 1500});
      process.stdout.write(loadOrCreateAgentKey(${JSON.stringify(directory)}).verification.keyId);`;
    const ids = await Promise.all(Array.from({ length: 4 }, () => outputOf(script)));
    expect(new Set(ids)).toEqual(new Set([loadOrCreateAgentKey(directory).verification.keyId]));
    expect(readdirSync(join(directory, 'keys')).toSorted()).toEqual(['agent.pem', 'agent.pub.pem']);
  });
});

describe('loadAgentPublicKey()', () => {
  test('says what to do when there is none', () => {
    const attempt = (): unknown => loadAgentPublicKey('/nowhere/agent.pub.pem');
    expect(attempt).toThrow(SetpointError);
    expect(attempt).toThrow(/there is no file \/nowhere\/agent\.pub\.pem/);
  });
});

function otherDirectory(): string {
  const directory = temporaryDirectory();
  loadOrCreateAgentKey(directory);
  return directory;
}

async function outputOf(script: string): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  await new Promise((ended) => {
    child.once('close', ended);
  });
  return output;
}
