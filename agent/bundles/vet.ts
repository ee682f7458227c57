import { join } from 'node:path';
import { messageOf, SetpointError } from '../../protocol/errors.ts';
import { ENGINE } from '../infer/session.ts';
import type { Bundle } from './bundle.ts';
import { formatGolden, parseGolden, type GoldenCase } from './golden.ts';
import { runLimited, type ProcessResult } from './limited-process.ts';
import { readOnnxModel, type OnnxModel } from './onnx-model.ts';
import { scanModel, type ScanReport } from './onnx-scan.ts';
import { encodeVetRequest, parseVetMessage, type VetHeader, type VetMessage, type VetRequest, type VetStage } from './vet-protocol.ts';
import { chooseLane, type VetReport } from './vet-report.ts';

/** The parent side of vetting: looks at the bytes, then lets a process of its own load and run the model. */
export interface VetOptions {
  /** p99 run time up to which a model may run on a serving thread, microseconds. */
  readonly inlineBudgetMicros: number;
  /** Time for the whole vetting of one bundle. */
  readonly deadlineMillis: number;
  /** Resident memory of the vet process, with the runtime's own 100 MB. */
  readonly memoryLimitBytes: number;
  readonly nowMillis: () => number;
}

export const VET_DEFAULTS: VetOptions = {
  inlineBudgetMicros: 300,
  deadlineMillis: 30_000,
  memoryLimitBytes: 1024 * 1024 * 1024,
  nowMillis: Date.now,
};

/** Stage lines and one report; a few kilobytes. */
const VET_OUTPUT_BYTES = 1024 * 1024;
/** golden.json at its own limit, as a JSON string. */
const RUN_OUTPUT_BYTES = 160 * 1024 * 1024;

const CHILD = join(import.meta.dirname, 'vet-child.ts');

const DOING: Readonly<Record<VetStage, string>> = {
  start: 'starting the vet process',
  load: 'loading the model',
  declaration: 'comparing the model with the manifest',
  golden: 'running the golden vectors',
  extremes: 'running extreme inputs',
  batch: 'running a batch',
  timing: 'measuring run time',
  run: 'computing outputs',
};

/**
 * Reads and scans a model's bytes without running it.
 * @throws SetpointError invalid_bundle with the first finding
 */
export function scanBytes(
  bytes: Uint8Array,
  request: { domains: readonly string[]; externalData: readonly string[] },
  label: string,
): { model: OnnxModel; scan: ScanReport } {
  const model = readOnnxModel(bytes);
  const scan = scanModel(model, { ...request, modelBytes: bytes.byteLength });
  const [first] = scan.findings;
  if (first !== undefined) {
    const more = scan.findings.length === 1 ? '' : ` (and ${scan.findings.length - 1} more)`;
    throw new SetpointError('invalid_bundle', `Cannot accept ${label}: ${first}${more}`, {
      field: 'model',
      remedy: 'export the model with the operators, types and opsets that agent/bundles/README.md lists',
    });
  }
  return { model, scan };
}

/**
 * Vets a bundle in a process with limits. The bundle's bytes are verified as they are read, and the process gets those bytes.
 * @throws SetpointError invalid_bundle with the reason in one sentence
 */
export async function vetBundle(bundle: Bundle, given: Partial<VetOptions> = {}): Promise<VetReport> {
  const options = { ...VET_DEFAULTS, ...given };
  const { manifest } = bundle;
  const label = labelOf(bundle);
  const model = bundle.read(manifest.model.path);
  const { scan } = scanBytes(model, { domains: manifest.domains, externalData: manifest.model.externalData }, label);
  const golden = bundle.read(manifest.golden);
  parseGolden(golden, manifest.golden);
  const header: VetHeader = {
    mode: 'vet',
    inputs: manifest.inputs,
    outputs: manifest.outputs,
    ...manifest.tolerance,
    isUnbounded: scan.isUnbounded,
    inlineBudgetMicros: options.inlineBudgetMicros,
  };
  const external = manifest.model.externalData.map((path) => ({ path, data: bundle.read(path) }));
  const message = await ask({ header, model, golden, external }, label, options, VET_OUTPUT_BYTES);
  if (!('measured' in message)) throw new SetpointError('internal', `Cannot vet ${label}: the vet process gave no measurement`);
  const { measured } = message;
  return {
    format: 'setpoint.vet.v1',
    bundleId: bundle.bundleId,
    engine: ENGINE,
    lane: chooseLane(measured.runMicros.p99, options.inlineBudgetMicros, scan.isUnbounded),
    isUnbounded: scan.isUnbounded,
    inlineBudgetMicros: options.inlineBudgetMicros,
    vettedAtMillis: options.nowMillis(),
    ...measured,
  };
}

export interface RunRequest {
  readonly model: Uint8Array;
  readonly external: VetRequest['external'];
  /** Outputs are ignored. */
  readonly cases: readonly GoldenCase[];
  readonly label: string;
}

/**
 * Computes the outputs of golden inputs, under the same limits. The caller has scanned the model.
 * @throws SetpointError invalid_bundle
 */
export async function runCases({ model, external, cases, label }: RunRequest, given: Partial<VetOptions> = {}): Promise<GoldenCase[]> {
  const header: VetHeader = { mode: 'run', inputs: [], outputs: [], rtol: 0, atol: 0, isUnbounded: false, inlineBudgetMicros: 1 };
  const golden = formatGolden(cases.map(({ inputs }) => ({ inputs, outputs: [] })));
  const message = await ask({ header, model, golden, external }, label, { ...VET_DEFAULTS, ...given }, RUN_OUTPUT_BYTES);
  if (!('golden' in message)) throw new SetpointError('internal', `Cannot run ${label}: the vet process gave no outputs`);
  return parseGolden(new TextEncoder().encode(message.golden), 'the outputs of the vet process');
}

function labelOf({ manifest, bundleId }: Bundle): string {
  return `bundle ${manifest.name} ${manifest.version} (${bundleId.slice(0, 12)})`;
}

/** The final message of the vet process. */
async function ask(request: VetRequest, label: string, options: VetOptions, outputBytes: number): Promise<VetMessage> {
  const { deadlineMillis, memoryLimitBytes } = options;
  const result = await runLimited(CHILD, encodeVetRequest(request), { deadlineMillis, memoryLimitBytes, outputBytes });
  const messages = result.output.split('\n').map(parseVetMessage);
  const stages = messages.filter((message) => message !== null && 'stage' in message);
  const stage = stages.at(-1) ?? { stage: 'start' };
  const doing = stage.detail === undefined ? DOING[stage.stage] : `${DOING[stage.stage]} (${stage.detail})`;
  const final = messages.findLast((message) => message !== null && !('stage' in message)) ?? null;
  const why = failure(result, doing, options) ?? (final !== null && 'refused' in final ? final.refused : null);
  if (why !== null || final === null) {
    throw new SetpointError('invalid_bundle', `Cannot accept ${label}: ${why ?? 'the vet process said nothing'}`, { field: 'model' });
  }
  return final;
}

/** What a limit or a crash ended, or null where the process ended by itself. */
function failure(result: ProcessResult, doing: string, options: VetOptions): string | null {
  if (result.limit === 'deadline') return `${doing} did not end within the deadline of ${options.deadlineMillis} ms`;
  if (result.limit === 'memory') return `${doing} took more than the memory limit of ${options.memoryLimitBytes} bytes`;
  if (result.limit === 'output') return `${doing} wrote too much output`;
  if (/heap out of memory/i.test(result.errorOutput)) return `${doing} took more than the memory limit of the JavaScript heap`;
  if (result.signal !== null) return `${doing} killed its process with ${result.signal}`;
  if (result.exitCode !== 0) return `${doing} ended its process with exit code ${result.exitCode}: ${lastLine(result.errorOutput)}`;
  return null;
}

function lastLine(text: string): string {
  return messageOf(text.trim().split('\n').at(-1) ?? '').slice(0, 300);
}
