import { readFileSync } from 'node:fs';

/** Reads vitest's JSON report and closes CI with one plain line. What CI must run may not be skipped. */
interface Report {
  readonly numPassedTests: number;
  readonly numFailedTests: number;
  readonly numPendingTests: number;
  readonly numTodoTests: number;
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

const report = JSON.parse(readFileSync(process.argv[2] ?? '', 'utf8')) as Report;
const skipped = report.numPendingTests + report.numTodoTests;
const brokenFiles = report.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0);
for (const file of report.testResults) {
  for (const test of file.assertionResults) {
    if (test.status !== 'passed') process.stdout.write(`${test.status}: ${file.name}: ${test.fullName}\n`);
  }
}
for (const file of brokenFiles) process.stdout.write(`failed to run: ${file.name}\n`);
const failed = report.numFailedTests + brokenFiles.length;
if (failed > 0 || skipped > 0 || report.numPassedTests === 0) process.exitCode = 1;
process.stdout.write(`${report.numPassedTests} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`);
