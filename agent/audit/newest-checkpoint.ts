import { SetpointError } from '../../protocol/errors.ts';
import { checkpointFile } from '../store/checkpoint-keeper.ts';
import { storeDirectory } from '../store/quarantine.ts';
import { StoreReader } from '../store/reader.ts';
import { loadAgentPublicKey } from './agent-key.ts';
import { type Checkpoint, isSigned, parseCheckpoint } from './checkpoint.ts';
import { linesOf } from './checkpoint-lines.ts';
import type { CheckpointRequest } from './messages.ts';

/**
 * The newest checkpoint that the agent's key has signed, as its line. The file is looked at before the store: it is the one
 * that is written first.
 * @throws SetpointError not_found when there is none
 */
export async function newestCheckpoint({
  dataDirectory,
  keyPath,
}: CheckpointRequest): Promise<{ line: Uint8Array; checkpoint: Checkpoint }> {
  const key = loadAgentPublicKey(keyPath);
  let newest: { line: Uint8Array; checkpoint: Checkpoint } | null = null;
  const look = (line: Uint8Array): void => {
    const checkpoint = parseCheckpoint(line);
    if (checkpoint === null || (newest !== null && checkpoint.timeMillis < newest.checkpoint.timeMillis)) return;
    if (isSigned(checkpoint, key)) newest = { line, checkpoint };
  };
  for (const { bytes } of linesOf(checkpointFile(dataDirectory))) look(bytes);
  const store = StoreReader.open(storeDirectory(dataDirectory));
  try {
    for (const { bytes } of store?.checkpoints() ?? []) look(bytes);
  } finally {
    await store?.close();
  }
  if (newest !== null) return newest;
  throw new SetpointError('not_found', `Cannot find a checkpoint in ${dataDirectory} that key ${key.keyId} has signed`, {
    remedy: 'let the agent run for a minute with records to sign, or give the right public key with --key FILE',
  });
}
