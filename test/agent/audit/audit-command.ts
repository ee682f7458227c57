import { runAudit } from '../../../agent/audit/commands.ts';

/** `setpoint-agent audit` alone, for tests of pipes. */
process.exitCode = await runAudit(process.argv.slice(2), {
  output: process.stdout,
  writeError: (text) => void process.stderr.write(text),
  environment: {},
});
