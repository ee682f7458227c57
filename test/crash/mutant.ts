import { cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Agents that are broken on purpose: a harness that cannot fail proves nothing. The product has no switch for this; a copy
 * of its source is changed, and the change must fit exactly.
 */
interface Mutant {
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

export const MUTANT_NAMES = ['reply-before-journal', 'delete-before-stored'] as const;
export type MutantName = (typeof MUTANT_NAMES)[number];

const MUTANTS: Readonly<Record<MutantName, Mutant>> = {
  /** Replies leave at once, and the records of what they said are written 25 ms later. */
  'reply-before-journal': {
    file: 'agent/serve/turn.ts',
    find: '\n      journal.commit();\n',
    replace: '\n      setTimeout(() => journal.commit(), 25);\n',
  },
  /** The store process deletes every finished segment, also one that it has not read. */
  'delete-before-stored': {
    file: 'agent/store/drain.ts',
    find: 'if (next === undefined || segment.first >= position.segment) return;',
    replace: 'if (next === undefined) return;',
  },
};

/** Writes the source tree at `root` to `to`, with the defect. Packages are the same files. */
export function writeMutant(name: MutantName, root: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const part of ['agent', 'protocol', 'package.json']) cpSync(join(root, part), join(to, part), { recursive: true });
  symlinkSync(join(root, 'node_modules'), join(to, 'node_modules'), 'junction');
  const { file, find, replace } = MUTANTS[name];
  const path = join(to, file);
  const text = readFileSync(path, 'utf8');
  const found = text.split(find).length - 1;
  if (found !== 1) throw new Error(`the mutant does not apply any more: '${find.trim()}' stands ${found} times in ${file}, 1 is expected`);
  writeFileSync(path, text.replace(find, replace));
}
