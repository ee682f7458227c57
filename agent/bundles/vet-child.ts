import { readFileSync, writeSync } from 'node:fs';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { openSession, type Session } from '../infer/session.ts';
import { isMemoryFailure, trimEngineMessage } from './engine-message.ts';
import { formatGolden, parseGolden } from './golden.ts';
import { checkBatch, checkDeclaration, checkGolden, computeOutputs, measureRuns, runExtremes } from './vet-checks.ts';
import { decodeVetRequest, type VetMessage, type VetRequest, type VetStage } from './vet-protocol.ts';

/**
 * The vet process: loads a model that nobody trusts yet and says what it did. It may hang, grow or crash at any line that
 * touches the session; the parent reads from the last stage announced where that was. Reads the request from standard input.
 */
const OUTPUT = 1;

/** Written at once, before the thread may block for ever inside the engine. */
function say(message: VetMessage): void {
  const bytes = Buffer.from(`${JSON.stringify(message)}\n`);
  let at = 0;
  while (at < bytes.byteLength) at += writeSync(OUTPUT, bytes, at);
}

function announce(stage: VetStage, detail?: string): void {
  say(detail === undefined ? { stage } : { stage, detail });
}

function vet(session: Session, request: VetRequest, loadMillis: number): void {
  const { header } = request;
  announce('declaration');
  checkDeclaration(session, header);
  announce('golden');
  const cases = parseGolden(request.golden, 'golden vectors');
  const goldenMaxDifference = checkGolden(session, cases, header);
  announce('extremes');
  const [first] = cases;
  if (first === undefined) throw new SetpointError('invalid_bundle', 'there are no golden vectors');
  runExtremes(session, first, header.isUnbounded, (label) => announce('extremes', label));
  announce('batch');
  const batch = checkBatch(session, cases, header);
  announce('timing');
  const timing = measureRuns(session, batch.row ?? first.inputs, header.inlineBudgetMicros);
  say({
    measured: {
      isBatchable: batch.isBatchable,
      ...timing,
      loadMillis,
      // Node gives kibibytes on every platform.
      peakMemoryBytes: process.resourceUsage().maxRSS * 1024,
      goldenCases: cases.length,
      goldenMaxDifference,
    },
  });
}

function compute(session: Session, request: VetRequest): void {
  announce('run');
  const cases = parseGolden(request.golden, 'input rows', false);
  say({ golden: new TextDecoder().decode(formatGolden(computeOutputs(session, cases))) });
}

function main(): void {
  try {
    const request = decodeVetRequest(readFileSync(0));
    announce('load');
    const start = performance.now();
    const session = openSession(request.model, request.external);
    const loadMillis = performance.now() - start;
    if (request.header.mode === 'vet') vet(session, request, loadMillis);
    else compute(session, request);
  } catch (thrown) {
    const message = trimEngineMessage(messageOf(thrown));
    say({ refused: isMemoryFailure(message) ? `it asked for more memory than is allowed: ${message}` : message });
  }
}

main();
// Without this an engine thread that is still at work would keep the process.
process.exit(0);
