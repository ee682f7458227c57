import { checkStore } from './check.ts';

/**
 * Checks the store in the folder given as the argument. Ends with 0 for a sound store and 3 for a damaged one, with what was
 * found as JSON on stdout; a store that kills the process is damaged, too.
 */
const EXIT_DAMAGED = 3;

const [directory = ''] = process.argv.slice(2);
const result = await checkStore(directory);
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exitCode = result.findings.length === 0 ? 0 : EXIT_DAMAGED;
