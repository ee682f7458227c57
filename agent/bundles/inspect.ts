import type { Manifest } from '../../protocol/manifest.ts';
import { relianceThreshold } from '../guard/reliance.ts';
import type { OnnxModel } from './onnx-model.ts';
import type { VetReport } from './vet-report.ts';

/** Says what a bundle is, for people and as JSON. Pure. */
export interface Inspection {
  readonly bundleId: string;
  readonly manifest: Manifest;
  /** RI_T, or null where the guard has no reliance limit. */
  readonly relianceThreshold: number | null;
  readonly model: {
    readonly irVersion: number;
    readonly producer: string;
    readonly opsets: Readonly<Record<string, number>>;
    readonly nodeCount: number;
    readonly operators: Readonly<Record<string, number>>;
    readonly initializerBytes: number;
    readonly unboundedOperators: readonly string[];
  };
  /** Null unless it was vetted now. */
  readonly vet: VetReport | null;
}

export function inspectBundle(bundleId: string, manifest: Manifest, model: OnnxModel, vet: VetReport | null): Inspection {
  const { reliance } = manifest.guard;
  return {
    bundleId,
    manifest,
    relianceThreshold: reliance === undefined ? null : relianceThreshold(reliance),
    model: {
      irVersion: model.irVersion,
      producer: model.producer,
      opsets: Object.fromEntries(model.opsets.map(({ domain, version }) => [domain || 'ai.onnx', version])),
      nodeCount: model.nodeCount,
      operators: Object.fromEntries([...model.operators].map(([key, count]) => [operatorName(key), count])),
      initializerBytes: model.initializerBytes,
      unboundedOperators: model.unboundedOperators.map(operatorName),
    },
    vet,
  };
}

/** `Relu`, but `ai.onnx.ml:Scaler`: the default domain goes without saying. */
function operatorName(key: string): string {
  return key.startsWith(':') ? key.slice(1) : key;
}

type Line = readonly [label: string, text: string];

export function formatInspection(inspection: Inspection): string {
  const { manifest, model, vet } = inspection;
  const lines: Line[] = [
    ['bundle', inspection.bundleId],
    ['name', `${manifest.name} ${manifest.version} (${manifest.kind})`],
    ...optional('description', manifest.description),
    ...manifest.inputs.map((tensor): Line => ['input', tensorText(tensor)]),
    ...manifest.outputs.map((tensor): Line => ['output', tensorText(tensor)]),
    ...featureLines(manifest),
    ...roleLines(manifest),
    ...guardLines(inspection),
    ...(manifest.fallback === undefined ? [] : [['fallback', pairs(manifest.fallback)] as const]),
    ...(Object.keys(manifest.lineage).length === 0 ? [] : [['lineage', pairs(manifest.lineage)] as const]),
    ['tolerance', `${manifest.tolerance.atol} + ${manifest.tolerance.rtol} x |expected|`],
    ['model', modelText(model)],
    ['operators', pairs(model.operators)],
    ...manifest.files.map(({ path, size, sha256 }): Line => ['file', `${path}  ${size} bytes  ${sha256}`]),
    ...(vet === null ? [] : vetLines(vet)),
  ];
  return formatLines(lines);
}

/** Labels in one column, and each label only where it first appears. */
export function formatLines(lines: readonly Line[]): string {
  const width = Math.max(...lines.map(([label]) => label.length)) + 2;
  return lines.map(([label, text], index) => `${(label === lines[index - 1]?.[0] ? '' : label).padEnd(width)}${text}\n`).join('');
}

function optional(label: string, text: string | undefined): Line[] {
  return text === undefined ? [] : [[label, text]];
}

function tensorText({ name, datatype, shape }: Manifest['inputs'][number]): string {
  return `${name}  ${datatype} [${shape.map((length) => (length === -1 ? '?' : length)).join(', ')}]`;
}

function featureLines({ features }: Manifest): Line[] {
  if (features === undefined) return [];
  const ranged = features.filter(({ min, max }) => min !== undefined || max !== undefined).length;
  return [['features', `${features.length}, ${ranged} with a valid range`]];
}

function roleLines({ roles }: Manifest): Line[] {
  return Object.entries(roles).flatMap(([role, given]): Line[] => {
    if (given === undefined) return [];
    const unit = 'unit' in given && given.unit !== undefined ? ` in ${given.unit}` : '';
    const form = 'form' in given ? ` (${given.form})` : '';
    return [['role', `${role} = ${given.output}${unit}${form}`]];
  });
}

function guardLines({ manifest: { guard }, relianceThreshold: threshold }: Inspection): Line[] {
  return [
    ...(guard.predictionRange === undefined ? [] : [['guard', `prediction in ${guard.predictionRange.join(' .. ')}`] as const]),
    ...(guard.reliance === undefined || threshold === null
      ? []
      : [['guard', `RI_T ${threshold.toFixed(4)} (${pairs(guard.reliance)})`] as const]),
    ...(guard.gsiThreshold === undefined ? [] : [['guard', `GSI_T ${guard.gsiThreshold}`] as const]),
    ...(guard.correction === undefined ? [] : [['guard', `correction: ${pairs(guard.correction)}`] as const]),
  ];
}

function modelText(model: Inspection['model']): string {
  const opsets = Object.entries(model.opsets).map(([domain, version]) => `${domain} ${version}`);
  return `IR ${model.irVersion}, ${opsets.join(', ')}, ${model.nodeCount} nodes, ${model.initializerBytes} bytes of weights inside`;
}

export function vetLines(vet: VetReport): Line[] {
  const { p50, p99, max } = vet.runMicros;
  return [
    ['vetted', `${vet.lane} lane${vet.isUnbounded ? ', unbounded' : ''}${vet.isBatchable ? ', batchable' : ''}, by ${vet.engine}`],
    ['run time', `p50 ${p50} us, p99 ${p99} us, max ${max} us of ${vet.runs} runs (inline budget ${vet.inlineBudgetMicros} us)`],
    ['load time', `${vet.loadMillis.toFixed(1)} ms`],
    ['memory', `${(vet.peakMemoryBytes / 1024 / 1024).toFixed(0)} MiB at most, with the runtime`],
    ['golden', `${vet.goldenCases} cases, max difference ${vet.goldenMaxDifference}`],
  ];
}

/** `key value` pairs of a flat object; nested values as JSON. */
function pairs(value: object): string {
  return Object.entries(value)
    .filter(([, one]) => one !== undefined)
    .map(([key, one]) => `${key} ${typeof one === 'object' ? JSON.stringify(one) : String(one)}`)
    .join(', ');
}
