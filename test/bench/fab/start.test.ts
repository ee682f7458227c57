import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

const script = join(import.meta.dirname, '../../../bench/start.ts');

interface Outcome {
  readonly code: number | string | null | undefined;
  readonly stdout: string;
  readonly stderr: string;
}

function start(...given: readonly string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    execFile(process.execPath, [script, ...given], { timeout: 90_000 }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : error.code, stdout, stderr });
    });
  });
}

describe('npm start', () => {
  test('shows its options with --help and exits 0', async () => {
    const { code, stdout } = await start('--help');
    expect(code).toBe(0);
    expect(stdout).toContain('Usage: npm start');
  });

  test('exits 2 with the usage for an option it does not know', async () => {
    const { code, stdout, stderr } = await start('--fast');
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain('"--fast" is not an option');
    expect(stderr).toContain('Usage: npm start');
  });

  test('plays the fab against a real agent for the seconds asked for, and says what came of it', { timeout: 100_000 }, async () => {
    const { code, stdout, stderr } = await start('--seconds', '3', '--rate', '200');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const predictions = Number(/predictions {4}([\d,]+) in/.exec(stdout)?.[1]?.replaceAll(',', ''));
    expect(predictions).toBeGreaterThan(50);
    expect(stdout).toMatch(/actions {8}model [1-9]/);
    expect(stdout).toMatch(/observations {3}[1-9]\d* recorded, 0 lost/);
    expect(stdout).toMatch(/round trip {5}p50 \d/);
    expect(stdout).toMatch(/service time {3}p50 \d/);
    expect(stdout).toContain('agent          exit code 0');
  });
});
