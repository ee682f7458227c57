import type { Writable } from 'node:stream';
import { SetpointError } from '../../protocol/errors.ts';
import { type AuditCommand, parseArguments, UsageError } from './arguments.ts';
import { visible } from './escape.ts';
import { OutputFile } from './output.ts';
import { type Reading, runReading } from './reading-process.ts';
import { runSalvage } from './salvage-command.ts';
import { AUDIT_USAGE } from './usage.ts';

/** `setpoint-agent audit`, and what it needs from the process it runs in. */
export interface AuditServices {
  /** Standard output. Its back-pressure holds the reading process up; its EPIPE ends the command quietly. */
  readonly output: Writable;
  readonly writeError: (text: string) => void;
  readonly environment: Readonly<Record<string, string | undefined>>;
}

/** Runs `setpoint-agent audit ...args` and returns its exit code: 0 answered or sound, 1 error or findings, 2 wrong usage. */
export async function runAudit(args: readonly string[], services: AuditServices): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    services.output.write(AUDIT_USAGE);
    return 0;
  }
  try {
    if (args[0] === 'salvage') {
      services.writeError(`${await runSalvage(args.slice(1))}\n`);
      return 0;
    }
    return await run(parseArguments(args, services.environment), services);
  } catch (thrown) {
    if (thrown instanceof UsageError) {
      services.writeError(`error: ${visible(thrown.message)}\n\n${AUDIT_USAGE}`);
      return 2;
    }
    if (!(thrown instanceof SetpointError)) throw thrown;
    services.writeError(`error: ${visible(thrown.message)}\nremedy: ${visible(thrown.remedy)}\n`);
    return 1;
  }
}

async function run({ job, output }: AuditCommand, services: AuditServices): Promise<number> {
  const onWarning = (message: string): void => services.writeError(`warning: ${visible(message)}\n`);
  if (output === null) return told(await runReading(job, services.output, onWarning), services);
  const file = new OutputFile(output.path, output.isForced);
  let reading: Reading;
  try {
    reading = await runReading(job, file, onWarning);
  } catch (error) {
    file.discard();
    throw error;
  }
  file.keep();
  return told(reading, services);
}

function told(reading: Reading, { writeError }: AuditServices): number {
  // Whoever read the answer has what he wanted.
  if (reading.type === 'unread') return 0;
  if (reading.summary !== '') writeError(`${visible(reading.summary)}\n`);
  return reading.isSound ? 0 : 1;
}
