import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';

/** The folder of real inputs that lies beside the checkout; it is never part of it. */
const root = resolve(import.meta.dirname, '../../../shared');

/** Whether the real inputs are here. A test that needs them is skipped, with this reason, where they are not. */
export const hasShared = existsSync(resolve(root, 'onnx-cases/index.json'));
if (!hasShared) process.stderr.write('skipped: tests on real data need ../shared beside the checkout\n');

export function sharedPath(...parts: readonly string[]): string {
  return resolve(root, ...parts);
}

export function sharedJson(...parts: readonly string[]): unknown {
  return JSON.parse(readFileSync(sharedPath(...parts), 'utf8'));
}
