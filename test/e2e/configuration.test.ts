import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { freePort, startAgent, temporaryDirectory, waitFor } from '../support/agent.ts';
import { goldenFeatures, shippedBundle } from '../support/models.ts';
import { asDecision, openController, predictFrame } from '../support/raw-socket.ts';

/** What the command line and the configuration file may hold, through the real program. */

const AGENT = resolve(import.meta.dirname, '../../agent/main.ts');
const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const SLOT = 'cd/scanner-a/product-x';

interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly error: string;
}

/** Runs the agent's program to its end, without npm and with nothing of this process's environment but `environment`. */
async function run(args: readonly string[], environment: Readonly<Record<string, string>> = {}, directory = '/'): Promise<Ended> {
  const child = spawn(process.execPath, [AGENT, ...args], { cwd: directory, env: environment, stdio: ['ignore', 'pipe', 'pipe'] });
  let out = '';
  let error = '';
  child.stdout.on('data', (chunk: Buffer) => {
    out += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    error += chunk.toString();
  });
  // A configuration that is accepted by mistake would serve for ever.
  const timer = setTimeout(() => child.kill('SIGKILL'), 20_000);
  const code = await new Promise<number | null>((ended) => {
    child.once('close', (exitCode) => ended(exitCode));
  });
  clearTimeout(timer);
  return { code, out, error };
}

/** Four at a time: a start takes half a second. */
async function forEach<Item>(items: readonly Item[], act: (item: Item) => Promise<void>): Promise<void> {
  const waiting = [...items];
  const worker = async (): Promise<void> => {
    for (let item = waiting.shift(); item !== undefined; item = waiting.shift()) await act(item);
  };
  await Promise.all(Array.from({ length: 4 }, worker));
}

describe('a wrong configuration', () => {
  const SECRET = 'not-for-the-log-123';
  /** What the file says, and what the message must name: the key, the value found and what is allowed. */
  const wrong: Record<string, { yaml: string; names: readonly RegExp[] }> = {
    'no YAML': { yaml: 'dataDir: [\n', names: [/it is not YAML/] },
    'a key twice': { yaml: 'dataDir: a\ndataDir: b\n', names: [/it is not YAML/, /unique/] },
    'a list': { yaml: '- dataDir: x\n', names: [/\(top level\)/, /expected object/, /found is a list/] },
    'nothing at all': { yaml: '', names: [/dataDir/, /expected string/, /found is nothing/] },
    'an unknown key': { yaml: 'dataDir: x\nlisten: { portt: 7433 }\n', names: [/listen\.portt/, /no such key/] },
    'a misspelt key that holds a secret': {
      yaml: `dataDir: x\ncontrollerTokn: ${SECRET}\n`,
      names: [/controllerTokn/, /no such key/],
    },
    'a text for a number': { yaml: 'dataDir: x\nthreads: many\n', names: [/threads/, /expected number/, /"many"/] },
    'a fraction for a whole number': { yaml: 'dataDir: x\nthreads: 1.5\n', names: [/threads/, /expected int/, /1\.5/] },
    'a number for a text': { yaml: 'dataDir: 7\n', names: [/dataDir/, /expected string/, /found is 7/] },
    'a port that is none': { yaml: 'dataDir: x\nlisten: { port: 65536 }\n', names: [/listen\.port/, /65536/, /<=65535/] },
    'no time to answer': { yaml: 'dataDir: x\ndefaultDeadlineMicros: 0\n', names: [/defaultDeadlineMicros/, /found is 0/, />=1/] },
    'a deadline of hours': { yaml: 'dataDir: x\ndefaultDeadlineMicros: 60000001\n', names: [/60000001/, /<=60000000/] },
    'too little memory': { yaml: 'dataDir: x\nheavy: { memoryLimitMebibytes: 1 }\n', names: [/heavy\.memoryLimitMebibytes/, />=64/] },
    'a short token': { yaml: 'dataDir: x\ncontrollerToken: hunter2\n', names: [/controllerToken/, />=16/] },
    'a slot with a space': { yaml: 'dataDir: x\nslots: { "cd scanner": { bundle: b } }\n', names: [/cd scanner/, /letters, digits/] },
    'a slot that climbs': { yaml: 'dataDir: x\nslots: { "../etc": { bundle: b } }\n', names: [/\.\.\/etc/, /letters, digits/] },
    'a slot without a bundle': { yaml: 'dataDir: x\nslots: { cd: {} }\n', names: [/slots\.cd\.bundle/, /expected string/] },
    'a slot that is a path': { yaml: 'dataDir: x\nslots: { cd: ./bundle }\n', names: [/slots\.cd/, /expected object/, /\.\/bundle/] },
  };

  test('ends both commands with 1, says what is wrong, and starts nothing', async () => {
    const directory = temporaryDirectory();
    await forEach(Object.entries(wrong), async ([name, { yaml, names }]) => {
      const file = join(directory, `${name}.yaml`);
      writeFileSync(file, yaml);
      const command = name.length % 2 === 0 ? 'check' : 'serve';
      const { code, out, error } = await run([command, '--config', file]);
      expect(code, `${command}: ${name}: ${error}`).toBe(1);
      for (const part of [...names, /^error: Cannot /, /^remedy: /m]) expect(error, name).toMatch(part);
      expect(error, name).not.toContain(SECRET);
      expect(error, name).not.toContain('hunter2');
      expect(error, name).not.toContain('    at ');
      expect(out).toBe('');
    });
    expect(readdirSync(directory).filter((name) => !name.endsWith('.yaml'))).toEqual([]);
  });

  test('is told of a file that is missing, or a folder', async () => {
    const directory = temporaryDirectory();
    for (const path of [join(directory, 'none.yaml'), directory]) {
      const { code, error } = await run(['check', '--config', path]);
      expect(code).toBe(1);
      expect(error).toMatch(/^error: Cannot read the configuration: (ENOENT|EISDIR)/);
      expect(error).toContain('--config');
    }
  });

  test('in the environment is named by its key, with the value of the environment', async () => {
    const directory = temporaryDirectory();
    const file = join(directory, 'agent.yaml');
    writeFileSync(file, 'dataDir: x\nlisten: { port: 7433 }\n');
    const cases: readonly (readonly [Record<string, string>, RegExp])[] = [
      [{ SETPOINT_LISTEN_PORT: '70000' }, /listen\.port: .*<=65535.*: value found is 70000/],
      [{ SETPOINT_LISTEN_PORT: 'http' }, /listen\.port: .*expected number.*: value found is "http"/],
      [{ SETPOINT_THREADS: '-1' }, /threads: .*>=0.*: value found is -1/],
      [{ SETPOINT_CONTROLLER_TOKEN: SECRET.slice(0, 9) }, /controllerToken: .*>=16/],
    ];
    await forEach(cases, async ([environment, message]) => {
      const { code, error } = await run(['check', '--config', file], environment);
      expect(code).toBe(1);
      expect(error).toMatch(message);
      expect(error).not.toContain(SECRET.slice(0, 9));
    });
  });
});

describe('the command line', () => {
  const file = 'agent.yaml';
  const prepared = (): string => {
    const directory = temporaryDirectory();
    writeFileSync(join(directory, file), 'dataDir: ./data\n');
    return directory;
  };

  test('explains itself, tells its version, and checks a configuration without starting', async () => {
    const directory = prepared();
    const { version } = JSON.parse(readFileSync(resolve(import.meta.dirname, '../../package.json'), 'utf8')) as { version: string };
    const help = await run(['--help']);
    expect(help).toMatchObject({ code: 0, error: '' });
    for (const word of ['serve', 'check', '--config', 'SETPOINT_LISTEN_PORT', 'Exit codes']) expect(help.out).toContain(word);
    expect((await run(['-h'])).out).toBe(help.out);
    expect(await run(['--version'])).toEqual({ code: 0, out: `setpoint-agent ${version}\n`, error: '' });
    expect(await run(['check', '--config', file], {}, directory)).toEqual({ code: 0, out: `${file} is valid\n`, error: '' });
    expect(existsSync(join(directory, 'data'))).toBe(false);
  });

  test('ends with 2 and the usage when it is wrong', async () => {
    const directory = prepared();
    const cases: readonly (readonly [string[], RegExp])[] = [
      [[], /a command is required/],
      [['start', '--config', file], /unknown command 'start'/],
      [['serve'], /--config FILE is required/],
      [['serve', '--config'], /--config/],
      [['serve', '--config', file, '--port', '80'], /--port/],
      [['serve', 'check', '--config', file], /one command is expected, found serve check/],
    ];
    await forEach(cases, async ([args, problem]) => {
      const { code, out, error } = await run(args, {}, directory);
      expect(code, args.join(' ')).toBe(2);
      expect(error).toMatch(problem);
      expect(error).toContain('Usage:');
      expect(out).toBe('');
    });
  });
});

test('the environment overrides the file, and an agent started directly serves with it', async () => {
  const port = await freePort();
  const directory = temporaryDirectory();
  const elsewhere = join(directory, 'elsewhere');
  mkdirSync(elsewhere);
  const token = '1234567890123456789';
  const agent = await startAgent({
    slots: { [SLOT]: BUNDLE },
    until: 'none',
    environment: {
      SETPOINT_AGENT_ID: '0042',
      SETPOINT_DATA_DIR: elsewhere,
      SETPOINT_LISTEN_PORT: String(port),
      SETPOINT_CONTROLLER_TOKEN: token,
      SETPOINT_DEFAULT_DEADLINE_MICROS: '1234567',
      SETPOINT_MAX_CONNECTIONS: '2',
      // An empty variable is one that is not set.
      SETPOINT_LISTEN_HOST: '',
    },
  });
  await waitFor(
    async () => {
      try {
        return (await fetch(`http://127.0.0.1:${port}/v2/health/ready`)).status === 200;
      } catch {
        return false;
      }
    },
    30_000,
    () => agent.log(),
  );
  const controller = await openController(port, token);
  expect(asDecision(await controller.ask(predictFrame(1, SLOT, goldenFeatures(BUNDLE)))).action).toBe('model');
  expect(readdirSync(elsewhere)).toContain('journal');
  expect(existsSync(agent.dataDir)).toBe(false);
  expect(agent.log()).toContain('agent=0042');
  expect(agent.log()).not.toContain(token);
  expect((await agent.stop('SIGINT')).code).toBe(0);
});
