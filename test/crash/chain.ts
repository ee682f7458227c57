import { execFile } from 'node:child_process';
import { join } from 'node:path';

export interface Chain {
  readonly isSound: boolean;
  readonly entries: number;
  /** What `audit verify` said, when it said that something is wrong. */
  readonly report: string;
}

/** The product's own verdict about its log: `setpoint-agent audit verify`. */
export function verifyChain(root: string, dataDirectory: string): Promise<Chain> {
  const args = [join(root, 'agent/main.ts'), 'audit', 'verify', '--data-dir', dataDirectory, '--json'];
  return new Promise((resolve) => {
    execFile(process.execPath, args, { maxBuffer: 64 * 1024 * 1024 }, (error, stdout, stderr) => {
      const report = parsed(stdout);
      resolve({
        isSound: error === null && report !== null,
        entries: report?.entries ?? 0,
        report: error === null && report !== null ? '' : `${stdout}${stderr}`.trim().slice(0, 4000),
      });
    });
  });
}

function parsed(text: string): { entries: number } | null {
  try {
    return JSON.parse(text) as { entries: number };
  } catch {
    // It broke off; what it said instead is in the report.
    return null;
  }
}
