import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { describe, expect, test } from 'vitest';
import { runAudit } from '../../../agent/audit/commands.ts';
import { storeDirectory } from '../../../agent/store/quarantine.ts';
import { temporaryDirectory } from '../../support/agent.ts';
import { AGENT_ID, audit, linesOfJson, openWriter, run, store } from './log-setup.ts';
import { decisionRecord } from './rows.ts';
import { smallLog } from './small-log.ts';

const COMMAND = new URL('../../../test/agent/audit/audit-command.ts', import.meta.url).pathname;

describe('setpoint-agent audit', () => {
  test('answers on standard output, and says on standard error what may be missing and how much it found', async () => {
    const directory = await smallLog();
    const { code, output, errors } = await audit(directory, '--substrate', 'A', '--format', 'jsonl');
    expect(code).toBe(0);
    expect(linesOfJson(output)).toMatchObject([
      { kind: 'decision', agentId: AGENT_ID, stream: 0, sequence: 1, index: 2 },
      { kind: 'observation', sequence: 3 },
      { kind: 'decision', sequence: 10, index: null },
      { kind: 'observation', sequence: 11 },
    ]);
    expect(errors).toMatch(/^warning: records 5 to 8 of stream 0 are lost .*\nwarning: alert .*\n2 decisions, 2 observations\n$/);
  });

  test('of nothing ends with 0 and says so', async () => {
    expect(await audit(await smallLog(), '--substrate', 'nobody')).toMatchObject({
      code: 0,
      output: '',
      errors: expect.stringMatching(/nothing was found\n$/),
    });
  });

  test('takes the data directory and the agent id from the configuration', async () => {
    const directory = await smallLog();
    const file = join(temporaryDirectory(), 'agent.yaml');
    writeFileSync(file, `agentId: from-config\ndataDir: ${directory}\n`);
    const { code, output } = await run(['--config', file, '--decision', '0/12', '--format', 'jsonl']);
    expect(code).toBe(0);
    expect(linesOfJson(output)).toMatchObject([{ agentId: 'from-config', sequence: 12 }]);
    expect(await run(['--config', `${file}.not`, '--decision', '0/12'])).toMatchObject({
      code: 1,
      errors: expect.stringContaining('remedy:'),
    });
  });

  test.each([
    [[], /--config FILE or --data-dir DIR/],
    [['--data-dir', 'd'], /one of --substrate/],
    [['--data-dir', 'd', '--config', 'c', '--substrate', 'A'], /exclude each other/],
    [['--data-dir', 'd', '--substrate', 'A', '--bundle', '0123456789'], /exclude each other/],
    [['--data-dir', 'd', '--substrate', ''], /--substrate is empty/],
    [['--data-dir', 'd', '--bundle', '0123456'], /8 to 64 hexadecimal digits/],
    [['--data-dir', 'd', '--bundle', '0123456x'], /8 to 64 hexadecimal digits/],
    [['--data-dir', 'd', '--decision', '12'], /STREAM\/SEQUENCE/],
    [['--data-dir', 'd', '--decision', '0/9999999999999999'], /STREAM\/SEQUENCE/],
    [['--data-dir', 'd', '--decision', '0/1', '--from', '2026-01-01'], /do not go with it/],
    [['--data-dir', 'd', '--from', 'yesterday'], /--from is 'yesterday'/],
    [['--data-dir', 'd', '--from', '2026-02-02', '--to', '2026-02-01'], /later than/],
    [['--data-dir', 'd', '--substrate', 'A', '--format', 'xml'], /text, jsonl, csv/],
    [['--data-dir', 'd', '--substrate', 'A', '--force'], /--force is for --output/],
    [['--data-dir', 'd', '--substrate', 'A', 'more'], /'more' is not expected/],
    [['--data-dir', 'd', '--nonsense'], /nonsense/],
    [['verify', '--data-dir', 'd', '--substrate', 'A'], /substrate/],
    [['--data-dir', 'd', '--substrate', 'A', '--\u001b[31m'], /\\u001b\[31m/],
  ])('refuses %j with 2 and the usage', async (args, why) => {
    const { code, output, errors } = await run(args);
    expect({ code, output }).toEqual({ code: 2, output: '' });
    expect(errors).toMatch(why);
    expect(errors).toContain('Usage: setpoint-agent audit');
    expect(errors).not.toContain('\u001b');
  });

  test('prints its usage', async () => {
    expect(await run(['--help'])).toMatchObject({ code: 0, output: expect.stringContaining('Usage: setpoint-agent audit') });
  });

  test('says when there is no data directory', async () => {
    expect(await audit(join(temporaryDirectory(), 'nowhere'), '--substrate', 'A')).toMatchObject({
      code: 1,
      errors: expect.stringContaining('there is no data directory'),
    });
  });

  test('prints the newest checkpoint, or says that there is none', async () => {
    const directory = await smallLog();
    const { code, output, errors } = await audit(directory, 'checkpoint');
    expect({ code, lines: output.split('\n').length }).toEqual({ code: 0, lines: 2 });
    expect(JSON.parse(output)).toMatchObject({ body: expect.stringContaining(`\n${AGENT_ID}\n`) });
    expect(errors).toBe(`agent ${AGENT_ID}, 7 entries, 2026-11-22T10:15:00.000Z\n`);
    const empty = temporaryDirectory();
    expect(await run(['checkpoint', '--data-dir', empty, '--key', join(directory, 'keys/agent.pub.pem')])).toMatchObject({
      code: 1,
      errors: expect.stringContaining('Cannot find a checkpoint'),
    });
  });
});

describe('--output', () => {
  test('writes a whole file, and refuses to replace one without --force', async () => {
    const directory = await smallLog();
    const path = join(temporaryDirectory(), 'answer.csv');
    const first = await audit(directory, '--substrate', 'A', '--format', 'csv', '--output', path);
    expect(first).toMatchObject({ code: 0, output: '' });
    const text = readFileSync(path, 'utf8');
    expect(text.split('\r\n')).toHaveLength(6);
    expect(await audit(directory, '--substrate', 'B', '-o', path)).toMatchObject({ code: 1, errors: expect.stringContaining('--force') });
    expect(readFileSync(path, 'utf8')).toBe(text);
    expect(await audit(directory, '--substrate', 'B', '-o', path, '--force')).toMatchObject({ code: 0 });
    expect(readFileSync(path, 'utf8')).toContain('substrate B');
    expect(readdirSync(join(path, '..'))).toEqual(['answer.csv']);
  });

  test('says when its folder does not exist', async () => {
    expect(await audit(await smallLog(), '--substrate', 'A', '-o', '/nowhere/answer')).toMatchObject({
      code: 1,
      errors: expect.stringContaining('its folder does not exist'),
    });
  });

  test.runIf(process.platform === 'linux')('leaves no file when the reading process dies', async () => {
    const directory = await cutShort();
    const folder = temporaryDirectory();
    expect(await audit(directory, '--from', '2026-11-22', '-o', join(folder, 'answer'))).toMatchObject({ code: 1 });
    expect(readdirSync(folder)).toEqual([]);
  });
});

/** A store of 3,000 records whose file has lost its second half: LMDB reads it through a mapping, and SIGBUS ends the process. */
async function cutShort(): Promise<string> {
  const directory = temporaryDirectory();
  const writer = openWriter(directory);
  await store(
    writer,
    Array.from({ length: 3000 }, (_, at) => decisionRecord({ sequence: at + 1 })),
  );
  await writer.close();
  const file = join(storeDirectory(directory), 'data.mdb');
  truncateSync(file, Math.floor(statSync(file).size / 8192) * 4096);
  return directory;
}

describe('the reading process', () => {
  test.runIf(process.platform === 'linux')('that a damaged store ends is told of, with a remedy', async () => {
    const { code, errors } = await audit(await cutShort(), '--from', '2026-11-22');
    expect(code).toBe(1);
    expect(errors).toMatch(/^error: Cannot read the log in .*: the reading process died: it was ended by SIG(BUS|SEGV|ABRT)/m);
    expect(errors).toMatch(/^remedy: .*start the agent/m);
  });

  test('waits for a reader that is slow, and gives it everything', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    const features = { encoding: 'float32' as const, bytes: new Uint8Array(4000).fill(63) };
    await store(
      writer,
      Array.from({ length: 1000 }, (_, at) => decisionRecord({ sequence: at + 1, predict: { features } })),
    );
    await writer.close();
    let taken = 0;
    let lines = 0;
    let atFirst = 0;
    const output = new Writable({
      highWaterMark: 1024,
      write: (chunk: Buffer, _encoding, done) => {
        taken += chunk.byteLength;
        for (const byte of chunk) if (byte === 0x0a) lines += 1;
        if (atFirst > 0) {
          done();
          return;
        }
        atFirst = taken;
        // Long enough for all 10 MB to pile up somewhere, if anything took them.
        setTimeout(() => {
          expect(taken).toBe(atFirst);
          done();
        }, 1500);
      },
    });
    const code = await runAudit(['--data-dir', directory, '--from', '2026-11-22', '--format', 'jsonl'], {
      output,
      writeError: () => {},
      environment: {},
    });
    expect({ code, lines }).toEqual({ code: 0, lines: 1001 });
    expect(atFirst).toBeLessThan(1024 * 1024);
    expect(taken).toBeGreaterThan(5_000_000);
  });

  test.runIf(process.platform !== 'win32')('is ended without a word when the reader has seen enough', async () => {
    const directory = temporaryDirectory();
    const writer = openWriter(directory);
    await store(
      writer,
      Array.from({ length: 3000 }, (_, at) => decisionRecord({ sequence: at + 1 })),
    );
    await writer.close();
    const line = `"${process.execPath}" --disable-warning=ExperimentalWarning "${COMMAND}" --data-dir "${directory}" --from 2026-11-22 --format jsonl; echo "code $?" >&2`;
    const { stdout, stderr } = spawnSync('sh', ['-c', `( ${line} ) | head -n 1`], { encoding: 'utf8' });
    expect(stdout.split('\n')).toHaveLength(2);
    expect(stderr).toBe('code 0\n');
  });

  test('is not given the environment', async () => {
    const directory = await smallLog();
    process.env['NODE_OPTIONS'] = '--no-such-option';
    try {
      expect(await audit(directory, '--substrate', 'A')).toMatchObject({ code: 0 });
    } finally {
      delete process.env['NODE_OPTIONS'];
    }
  });

  test('leaves no lock and no file behind in the data directory', async () => {
    const directory = await smallLog();
    const before = readdirSync(directory, { recursive: true }).map(String).toSorted();
    await audit(directory, '--substrate', 'A');
    expect(readdirSync(directory, { recursive: true }).map(String).toSorted()).toEqual(before);
    mkdirSync(join(directory, 'empty'));
    expect(await audit(join(directory, 'empty'), '--substrate', 'A')).toMatchObject({ code: 0 });
    expect(existsSync(join(directory, 'empty', 'store'))).toBe(false);
  });
});
