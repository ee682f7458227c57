import { generateKeyPairSync } from 'node:crypto';
import { closeSync, existsSync, fstatSync, fsyncSync, linkSync, mkdirSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import {
  type SigningKey,
  signingKeyFromPem,
  type VerificationKey,
  verificationKeyFromPem,
  verificationKeyToPem,
} from '../../protocol/envelope.ts';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { replaceFile, systemCode, temporaryBeside } from '../bundles/disk.ts';
import { syncDirectory } from '../store/disk-space.ts';

/** The agent's own key: it signs what this agent states about its log. Whoever has it can state anything in its name. */
const MODE_OF_OTHERS = 0o077;

function privatePath(dataDirectory: string): string {
  return join(dataDirectory, 'keys', 'agent.pem');
}

/** The file that names the agent to others; an operator keeps a copy of it elsewhere. */
export function publicKeyPath(dataDirectory: string): string {
  return join(dataDirectory, 'keys', 'agent.pub.pem');
}

/**
 * The key in `<dataDir>/keys/agent.pem`, made at the first call. The public key beside it is written again when it is missing
 * or another one.
 * @throws SetpointError invalid_config for a file that is no such key, that others can read, or that is gone while its
 * public key is still there: a new key would make every earlier statement look like somebody else's
 */
export function loadOrCreateAgentKey(dataDirectory: string): SigningKey {
  const path = privatePath(dataDirectory);
  if (!existsSync(path)) {
    refuseLostKey(dataDirectory);
    create(dataDirectory);
  }
  const key = signingKeyFromPem(readPrivate(path), path);
  const publicPem = verificationKeyToPem(key.verification);
  const publicPath = publicKeyPath(dataDirectory);
  if (readText(publicPath) !== publicPem) replaceFile(publicPath, Buffer.from(publicPem));
  return key;
}

/**
 * The public key that the data directory names.
 * @throws SetpointError not_found when there is none, invalid_config when it may not be used
 */
export function loadAgentPublicKey(path: string): VerificationKey {
  const pem = readText(path);
  if (pem === null) {
    throw new SetpointError('not_found', `Cannot check signatures: there is no file ${path}`, {
      remedy: 'give the agent public key with --key FILE; the agent writes it when it first starts',
    });
  }
  return verificationKeyFromPem(pem, path);
}

function refuseLostKey(dataDirectory: string): void {
  const publicPath = publicKeyPath(dataDirectory);
  if (!existsSync(publicPath)) return;
  throw new SetpointError('invalid_config', `Cannot sign: ${privatePath(dataDirectory)} is gone, and ${publicPath} is still there`, {
    field: privatePath(dataDirectory),
    remedy: 'put the private key back; to go on with a new key, move the public key to where auditors find it, and start again',
  });
}

/** Whole or absent: the file gets its name only when it is complete and on the disk; of two processes one gives it. */
function create(dataDirectory: string): void {
  const path = privatePath(dataDirectory);
  const folder = join(dataDirectory, 'keys');
  try {
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const temporary = temporaryBeside(path);
    try {
      writePrivate(temporary, generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }).toString());
      linkSync(temporary, path);
    } finally {
      rmSync(temporary, { force: true });
    }
    syncDirectory(folder);
  } catch (cause) {
    if (systemCode(cause) === 'EEXIST') return;
    throw new SetpointError('invalid_config', `Cannot make the key ${path}: ${messageOf(cause)}`, {
      field: path,
      remedy: 'check the data directory, its permissions and the free space',
      cause,
    });
  }
}

function writePrivate(path: string, text: string): void {
  const descriptor = openSync(path, 'wx', 0o600);
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.byteLength;) at += writeSync(descriptor, bytes, at);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function readPrivate(path: string): string {
  let descriptor: number;
  try {
    descriptor = openSync(path, 'r');
  } catch (cause) {
    throw new SetpointError('invalid_config', `Cannot read the key ${path}: ${messageOf(cause)}`, {
      field: path,
      remedy: 'let the account of the agent, and no other, read it',
      cause,
    });
  }
  try {
    const mode = fstatSync(descriptor).mode & 0o777;
    // Windows keeps permissions elsewhere; its modes say nothing.
    if (process.platform !== 'win32' && (mode & MODE_OF_OTHERS) !== 0) {
      throw new SetpointError('invalid_config', `Cannot use the key ${path}: others can read it (mode ${mode.toString(8)})`, {
        field: path,
        remedy: `run chmod 600 ${path}; if others may have read it, make a new key`,
      });
    }
    return readFileSync(descriptor, 'utf8');
  } finally {
    closeSync(descriptor);
  }
}

function readText(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (systemCode(cause) === 'ENOENT') return null;
    throw new SetpointError('invalid_config', `Cannot read ${path}: ${messageOf(cause)}`, { field: path, cause });
  }
}
