import { TIME_FORM } from './times.ts';

/** What `setpoint-agent audit --help` prints. */
export const AUDIT_USAGE = `Usage: setpoint-agent audit (--config FILE | --data-dir DIR) <question> [options]
       setpoint-agent audit verify (--config FILE | --data-dir DIR) [options]
       setpoint-agent audit checkpoint (--config FILE | --data-dir DIR) [options]
       setpoint-agent audit salvage --store DIR --output FILE [--force]

Reads what an agent decided and was told, from its store and from the journal that is not stored yet. The agent may run.

Questions:
  --substrate ID                    its decisions and observations
  --bundle ID                       the decisions of a bundle; the first 8 or more digits of its id are enough
  --decision STREAM/SEQUENCE        one record, as a decision names itself
  --from TIME and/or --to TIME      everything in that time, both ends included; also narrows the first two
      TIME is ${TIME_FORM}; a date as --to is its whole day

  --format text|jsonl|csv           default text; features and outputs are in jsonl only
  --output FILE                     written whole or not at all; refuses to replace a file without --force

audit verify: was anything changed, removed, or put in another order
  --checkpoint FILE                 a checkpoint that was kept elsewhere
  --key FILE                        the agent's public key that was kept elsewhere (default: the data directory's)
  --json                            the report as one JSON object

audit checkpoint: the newest signed checkpoint, to keep elsewhere
  --key FILE, --output FILE, --force  as above

audit salvage: what a store that was set aside as damaged still holds whole, as JSON Lines

Exit code: 0 answered (also with nothing, which is said), or sound; 1 error (with a remedy), or findings; 2 wrong usage
`;
