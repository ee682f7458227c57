import { execFile } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { type DecisionFrame, type PredictFrame, reasonNames } from '../../protocol/frames.ts';
import { type RunningAgent, startAgent, waitFor } from '../support/agent.ts';
import { freeze, storeProcess, waitForAnswers } from '../support/health.ts';
import { Load } from '../support/load.ts';
import { goldenFeatures, shippedBundle } from '../support/models.ts';
import { asDecision, contextOf, openController, predictFrame, startWitness } from '../support/raw-socket.ts';
import { agentDirectory, waitUntilStored } from '../support/stored.ts';

/** `setpoint-agent audit` beside an agent at work, and when it is gone: what controllers were answered, each answer once. */

const BUNDLE = shippedBundle('cd-scanner-a-product-x');
const OTHER_BUNDLE = shippedBundle('cd-scanner-b-product-x');
const SLOT = 'cd/scanner-a/product-x';
const OTHER_SLOT = 'cd/scanner-b/product-x';
const FEATURES = goldenFeatures(BUNDLE);
const OTHER_FEATURES = goldenFeatures(OTHER_BUNDLE);
const UNUSABLE = FEATURES.map((feature, at) => (at === 3 ? Number.NaN : feature));

const CONFIG = { journal: { segmentMebibytes: 1, maxMebibytes: 256 }, store: { checkpointSeconds: 1 } };

/** Substrates that the load asks about in turn. */
const SUBSTRATES = 40;

/** As a controller might write it, to whom nobody said what may break a table. */
const AWKWARD_SUBSTRATE = '=HYPERLINK("x"),\u202e W7\\u0041;\n';

interface Outcome {
  readonly code: number;
  readonly output: string;
  readonly errors: string;
}

const MAIN = resolve(import.meta.dirname, '../../agent/main.ts');

async function audit(agent: RunningAgent, ...args: string[]): Promise<Outcome> {
  const [command, ...options] = args[0] === 'verify' ? args : ['', ...args];
  const whole = [MAIN, 'audit', ...(command === '' ? [] : ['verify']), '--config', join(agent.directory, 'agent.yaml'), ...options];
  return await new Promise((resolveOutcome) => {
    execFile(process.execPath, whole, { maxBuffer: 256 * 1024 * 1024 }, (error, output, errors) => {
      resolveOutcome({ code: error === null ? 0 : Number(error.code), output, errors });
    });
  });
}

/** A question with an answer. */
async function ask(agent: RunningAgent, ...args: string[]): Promise<Outcome> {
  const outcome = await audit(agent, ...args);
  expect(outcome, args.join(' ')).toMatchObject({ code: 0 });
  return outcome;
}

type Line = Readonly<Record<string, unknown>>;

async function askLines(agent: RunningAgent, ...args: string[]): Promise<Line[]> {
  const { output } = await ask(agent, ...args, '--format', 'jsonl');
  return output
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Line);
}

/** What an answer must say of a decision, from what the controller sent and got. */
function lineOf(predict: PredictFrame, decision: DecisionFrame): Line {
  const { kind: _kind, reasons, bundleId, serverTimeMicros, outputs, ...said } = decision;
  const { slot, context, deadlineMicros, lastApplied, features } = predict;
  if (features.encoding !== 'float32') throw new Error('these tests send vectors');
  const { buffer, byteOffset, byteLength } = features.bytes;
  const values = [...new Float32Array(buffer, byteOffset, byteLength / 4)].map((one) => (Number.isFinite(one) ? one : String(one)));
  return {
    ...said,
    kind: 'decision',
    agentId: 'test',
    slot,
    context,
    deadlineMicros,
    lastApplied,
    reasons: reasonNames(reasons),
    bundleId: Buffer.from(bundleId).toString('hex'),
    timeMicros: serverTimeMicros,
    telemetry: 'kept',
    features: { encoding: 'float32', values },
    outputs,
  };
}

/** Without what the controller was not told: the time again as a text, and where the record is now. */
function comparable(lines: readonly Line[]): Line[] {
  return lines
    .map(({ time: _time, index: _index, ...line }) => line)
    .toSorted((one, other) => Number(one['sequence']) - Number(other['sequence']));
}

/** Controllers at work, and what every answer must look like in an audit. */
class RecordedLoad {
  readonly load: Load;
  readonly #frames: ReadonlyMap<number, PredictFrame>;

  private constructor(load: Load, frames: ReadonlyMap<number, PredictFrame>) {
    this.load = load;
    this.#frames = frames;
  }

  static async start(agent: RunningAgent): Promise<RecordedLoad> {
    const frames = new Map<number, PredictFrame>();
    const frame = (requestId: number): PredictFrame => {
      const substrateId = `W${requestId % SUBSTRATES}`;
      const isOther = requestId % 3 === 0;
      const features = requestId % 7 === 0 && !isOther ? UNUSABLE : isOther ? OTHER_FEATURES : FEATURES;
      const context = contextOf({ substrateId, lotId: 'LOT-1', equipmentId: 'SCANNER-A', product: 'PRODUCT-X', runNumber: requestId });
      const made = predictFrame(requestId, isOther ? OTHER_SLOT : SLOT, features, { context, lastApplied: 28 + requestId / 8 });
      frames.set(requestId, made);
      return made;
    };
    return new RecordedLoad(await Load.start(agent.port, { connections: 2, requestsEach: 3, everyMillis: 4, frame }), frames);
  }

  /** The lines of the answers that came until now and that `isWanted`. */
  lines(isWanted: (predict: PredictFrame, decision: DecisionFrame) => boolean): Line[] {
    return comparable(
      this.load.decisions.flatMap((decision) => {
        const predict = this.#frames.get(decision.requestId)!;
        return isWanted(predict, decision) ? [lineOf(predict, decision)] : [];
      }),
    );
  }
}

function isoMicros(micros: number): string {
  return `${new Date(Math.floor(micros / 1000)).toISOString().slice(0, -1)}${String(micros % 1000).padStart(3, '0')}Z`;
}

/** The fields of a CSV file (RFC 4180), a line each. */
function parseCsv(text: string): string[][] {
  const lines: string[][] = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^,"\r\n]*))(,|\r\n|$)/g)) {
    lines.at(-1)!.push(quoted?.replaceAll('""', '"') ?? plain ?? '');
    if (end !== ',') lines.push([]);
  }
  return lines.filter((line) => line.length > 1);
}

/** Changes every place in a file where a text stands, wherever that is. */
function forge(path: string, text: string): void {
  const bytes = readFileSync(path);
  let found = 0;
  for (let at = bytes.indexOf(text); at >= 0; at = bytes.indexOf(text, at + 1), found++) bytes.write('F', at);
  expect(found).toBeGreaterThan(0);
  writeFileSync(path, bytes);
}

/** Undoes what a table does to a text, as agent/audit/README.md says. */
function textOfCell(cell: string): string {
  const bare = cell.startsWith("'") ? cell.slice(1) : cell;
  return bare.replaceAll(/\\u([0-9a-f]{4})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));
}

/** The question that is asked while the load runs: answers until then are there once each, and what came meanwhile is true. */
async function checkUnderLoad(
  agent: RunningAgent,
  recorded: RecordedLoad,
  args: string[],
  isWanted: Parameters<RecordedLoad['lines']>[0],
): Promise<void> {
  const before = recorded.lines(isWanted);
  const lines = comparable(await askLines(agent, ...args));
  // Some of what it found was on its way to the controllers.
  await waitForAnswers(recorded.load, 200);
  const after = new Map(recorded.lines(isWanted).map((line) => [`${String(line['stream'])}/${String(line['sequence'])}`, line]));
  const found = lines.map((line) => `${String(line['stream'])}/${String(line['sequence'])}`);
  expect(new Set(found).size, args.join(' ')).toBe(found.length);
  expect(lines).toEqual(found.map((key) => after.get(key)));
  expect(found.length).toBeGreaterThanOrEqual(before.length);
  const known = new Set(found);
  const missing = before.map((line) => `${String(line['stream'])}/${String(line['sequence'])}`).filter((name) => !known.has(name));
  expect(missing.join(' '), args.join(' ')).toBe('');
}

describe('the audit', { timeout: 120_000 }, () => {
  test('tells exactly what was answered, each answer once, while the agent works and when it is gone', async () => {
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE, [OTHER_SLOT]: OTHER_BUNDLE }, directory: agentDirectory(), config: CONFIG });
    const witness = await startWitness(agent.port, SLOT, FEATURES);
    const recorded = await RecordedLoad.start(agent);
    // Some of it is in the store alone, some in the journal alone.
    await waitForAnswers(recorded.load, 2000);
    await waitFor(
      () => !readdirSync(join(agent.dataDir, 'journal')).includes('stream-0-0000000000000001.journal'),
      20_000,
      () => `the first segment is not stored:\n${agent.log()}`,
    );
    const bundleId = String(recorded.lines(({ slot }) => slot === OTHER_SLOT)[0]!['bundleId']);
    const isOfSubstrate = ({ context }: PredictFrame): boolean => context?.substrateId === 'W13';
    await checkUnderLoad(agent, recorded, ['--substrate', 'W13'], isOfSubstrate);
    await checkUnderLoad(agent, recorded, ['--bundle', bundleId.slice(0, 16)], ({ slot }) => slot === OTHER_SLOT);
    expect(await audit(agent, 'verify')).toMatchObject({ code: 0 });
    await recorded.load.stop();
    expect((await witness.stop()).failures, 'the witness').toEqual([]);

    const times = recorded.load.decisions.map(({ serverTimeMicros }) => serverTimeMicros).toSorted((one, other) => one - other);
    const [from, to] = [times[Math.floor(times.length / 4)]!, times[Math.floor(times.length / 2)]!];
    const range = ['--from', isoMicros(from), '--to', isoMicros(to)];
    const inRange = recorded.lines(({ slot }, { serverTimeMicros: time }) => slot === OTHER_SLOT && time >= from && time <= to);
    expect(inRange.length).toBeGreaterThan(100);
    expect(comparable(await askLines(agent, '--bundle', bundleId, ...range))).toEqual(inRange);

    expect((await agent.stop()).code).toBe(0);
    const ofSubstrate = recorded.lines(isOfSubstrate);
    expect(comparable(await askLines(agent, '--substrate', 'W13'))).toEqual(ofSubstrate);
    expect(comparable(await askLines(agent, '--bundle', bundleId, ...range))).toEqual(inRange);
    expect(await audit(agent, 'verify')).toMatchObject({ code: 0 });

    const [header, ...cells] = parseCsv((await ask(agent, '--substrate', 'W13', '--format', 'csv')).output);
    const rows = cells.map((row) => Object.fromEntries(header!.map((name, at) => [name, row[at]])));
    const asCells = ofSubstrate.map(({ stream, sequence, value, correction, action, reasons, lastApplied }) => ({
      stream: String(stream),
      sequence: String(sequence),
      substrateId: 'W13',
      lotId: 'LOT-1',
      action,
      reasons: (reasons as string[]).join(' '),
      value: String(value),
      correction: correction === null ? '' : Number(correction).toString(),
      lastApplied: String(lastApplied),
    }));
    expect(rows.toSorted((one, other) => Number(one['sequence']) - Number(other['sequence']))).toMatchObject(asCells);
  });

  test('knows an answer a moment after the controller has it, whatever the substrate is called', async () => {
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE }, directory: agentDirectory(), config: CONFIG });
    const controller = await openController(agent.port);
    const askAgent = async (substrateId: string): Promise<Line> => {
      const frame = predictFrame(controller.nextId(), SLOT, FEATURES, { context: contextOf({ substrateId }) });
      return lineOf(frame, asDecision(await controller.ask(frame)));
    };
    const expected = [await askAgent(AWKWARD_SUBSTRATE)];
    expect(comparable(await askLines(agent, '--substrate', AWKWARD_SUBSTRATE))).toEqual(expected);
    // The store may have that one by now; the next is in the journal alone.
    freeze(await storeProcess(agent));
    expected.push(await askAgent(AWKWARD_SUBSTRATE));
    expect(comparable(await askLines(agent, '--substrate', AWKWARD_SUBSTRATE))).toEqual(expected);
    const { stream, sequence } = expected[1]!;
    expect(comparable(await askLines(agent, '--decision', `${String(stream)}/${String(sequence)}`))).toEqual([expected[1]]);
    const { output } = await ask(agent, '--substrate', AWKWARD_SUBSTRATE, '--format', 'csv');
    const [header, ...rows] = parseCsv(output);
    expect(rows).toHaveLength(2);
    expect(textOfCell(rows[0]![header!.indexOf('substrateId')]!)).toBe(AWKWARD_SUBSTRATE);
    expect(output).not.toMatch(/(^|,|")=/m);
    const { output: text } = await ask(agent, '--substrate', AWKWARD_SUBSTRATE);
    expect(output + text).not.toContain('\u202e');
    const nothing = await ask(agent, '--substrate', 'nobody');
    expect(nothing.errors).toContain('nothing was found');
    await agent.stop('SIGKILL');
    expect(comparable(await askLines(agent, '--substrate', AWKWARD_SUBSTRATE))).toEqual(expected);
  });

  test('finds a record that was changed in the store, and names it', async () => {
    const agent = await startAgent({ slots: { [SLOT]: BUNDLE }, directory: agentDirectory(), config: CONFIG });
    const recorded = await Load.start(agent.port, {
      connections: 1,
      requestsEach: 5,
      everyMillis: 4,
      frame: (requestId) => predictFrame(requestId, SLOT, FEATURES, { context: contextOf({ substrateId: `forged-${requestId}-` }) }),
    });
    await waitForAnswers(recorded, 300);
    await recorded.stop();
    await waitUntilStored(agent, recorded.decisions);
    expect((await agent.stop()).code).toBe(0);
    expect(await audit(agent, 'verify')).toMatchObject({ code: 0 });
    const victim = recorded.decisions[100]!;
    forge(join(agent.dataDir, 'store', 'data.mdb'), `forged-${victim.requestId}-`);
    const { code, output, errors } = await audit(agent, 'verify');
    expect(code).toBe(1);
    expect(output + errors).toContain(`${victim.stream}/${victim.sequence}`);
  });
});
