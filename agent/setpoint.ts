#!/usr/bin/env node
import { runSetpoint } from './bundles/commands.ts';

/** The operator's command line on the agent's side. */
process.exitCode = await runSetpoint(process.argv.slice(2), {
  out: (text) => void process.stdout.write(text),
  error: (text) => void process.stderr.write(text),
});
