#!/usr/bin/env node
// Before anything loads ONNX Runtime: from 1.29 on it reports home unless this is set.
process.env['ORT_DISABLE_TELEMETRY'] = '1';

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { messageOf, SetpointError } from '../protocol/errors.ts';
import { runAudit } from './audit/commands.ts';
import { loadConfig, OVERRIDE_NAMES } from './config.ts';
import { createLog } from './log.ts';
import { Agent } from './serve/agent.ts';

const USAGE = `setpoint-agent: answers predict requests of equipment controllers beside the tool

Usage:
  setpoint-agent serve --config FILE    serve until SIGTERM or SIGINT, then drain and exit 0
  setpoint-agent check --config FILE    check the configuration and exit
  setpoint-agent audit ...              what was decided, about which wafer, by which bundle; see audit --help
  setpoint-agent --help | --version

The configuration is a YAML file; agent/README.md describes every key. The smallest one:

  dataDir: ./data
  slots:
    cd/scanner-a/product-x: { bundle: ./bundles/cd-scanner-a }

Environment variables override single keys:
  ${OVERRIDE_NAMES.join('\n  ')}

Exit codes: 0 stopped as asked, 1 could not start or had to stop, 2 wrong usage; those of audit are in audit --help
`;

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;

const software = (JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { version: string }).version;
const log = createLog(
  (line) => process.stderr.write(line),
  () => new Date(),
);

function fail(error: unknown): never {
  process.stderr.write(`error: ${messageOf(error)}\n`);
  if (error instanceof SetpointError) process.stderr.write(`remedy: ${error.remedy}\n`);
  process.exit(EXIT_FAILURE);
}

function usage(problem: string): never {
  process.stderr.write(`error: ${problem}\n\n${USAGE}`);
  process.exit(EXIT_USAGE);
}

async function serve(file: string): Promise<void> {
  const config = loadConfig(file, process.env);
  const agent = await Agent.start({
    config,
    software,
    log,
    onFatal: (error) => {
      log('error', 'agent cannot go on', { message: error.message });
      process.exit(EXIT_FAILURE);
    },
  });
  log('info', 'listening', { agent: config.agentId, host: config.listen.host, port: agent.port, data: config.dataDir, version: software });
  const stop = (signal: string): void => {
    log('info', 'stopping', { signal });
    // Every serving thread has stopped outside any model run by then, so exit() cannot abort the process.
    agent.stop().then(() => {
      log('info', 'stopped');
      process.exit(0);
    }, fail);
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

function parse(): { command: string | undefined; config: string | undefined } {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { config: { type: 'string' }, help: { type: 'boolean', short: 'h' }, version: { type: 'boolean' } },
    });
    if (values.help === true || values.version === true) {
      process.stdout.write(values.help === true ? USAGE : `setpoint-agent ${software}\n`);
      process.exit(0);
    }
    if (positionals.length > 1) usage(`one command is expected, found ${positionals.join(' ')}`);
    return { command: positionals[0], config: values.config };
  } catch (error) {
    return usage(messageOf(error));
  }
}

async function serveOrCheck(): Promise<void> {
  const { command, config } = parse();
  if (command !== 'serve' && command !== 'check') usage(command === undefined ? 'a command is required' : `unknown command '${command}'`);
  if (config === undefined) usage('--config FILE is required');
  try {
    if (command === 'serve') await serve(config);
    else {
      loadConfig(config, process.env);
      process.stdout.write(`${config} is valid\n`);
    }
  } catch (error) {
    fail(error);
  }
}

const [first, ...rest] = process.argv.slice(2);
if (first === 'audit') {
  const writeError = (text: string): void => void process.stderr.write(text);
  process.exitCode = await runAudit(rest, { output: process.stdout, writeError, environment: process.env });
} else await serveOrCheck();
