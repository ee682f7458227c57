import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildBundle } from './bundles.ts';
import { bundleFolder, TOOLS } from './tools.ts';

/** `node bench/fab/make-bundles.ts`: writes bench/bundles/<slot>/ anew. Equal sources give equal bytes. */
const root = join(import.meta.dirname, '../bundles');
for (const spec of TOOLS) {
  const folder = join(root, bundleFolder(spec.slot));
  const { bundleId, files } = buildBundle(spec);
  mkdirSync(folder, { recursive: true });
  for (const [name, bytes] of files) writeFileSync(join(folder, name), bytes);
  process.stdout.write(`${bundleId.slice(0, 12)} ${spec.slot}\n`);
}
