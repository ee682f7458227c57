import { existsSync, readdirSync } from 'node:fs';
import { rename } from 'node:fs/promises';
import { join } from 'node:path';
import { Ballast, syncDirectory } from './disk-space.ts';

const STORE_FOLDER = 'store';

/** The folder of the store in a data directory. */
export function storeDirectory(dataDirectory: string): string {
  return join(dataDirectory, STORE_FOLDER);
}

/**
 * Gives a store that cannot be trusted another name, under which nothing touches it again: `store.damaged-<UTC time>`.
 * It is never wiped: what it still holds may be the only copy. Needs no free space. Returns the new path, null when there
 * is no store.
 */
export async function setStoreAside(dataDirectory: string, now: Date): Promise<string | null> {
  const from = storeDirectory(dataDirectory);
  if (!existsSync(from)) return null;
  const stamp = now.toISOString().replace(/[-:]|\.\d+/g, '');
  // Its room is for the store that comes.
  new Ballast(from, 0).remove();
  let aside = `${from}.damaged-${stamp}`;
  for (let copy = 2; existsSync(aside); copy++) aside = `${from}.damaged-${stamp}-${copy}`;
  await rename(from, aside);
  syncDirectory(dataDirectory);
  return aside;
}

/** Names of the stores that were set aside in a data directory, the oldest first. */
export function storesSetAside(dataDirectory: string): string[] {
  return readdirSync(dataDirectory)
    .filter((name) => name.startsWith(`${STORE_FOLDER}.damaged-`))
    .sort();
}
