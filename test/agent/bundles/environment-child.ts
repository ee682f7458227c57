import { writeSync } from 'node:fs';

/** A child for the test of runLimited(): says what environment it has, and ends with a code of its own. */
writeSync(1, JSON.stringify(Object.keys(process.env)));
process.exit(3);
