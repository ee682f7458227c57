import type { OnnxModel } from './onnx-model.ts';
import type { OnnxValue } from './onnx-value.ts';

/** What a model may be, judged from its bytes alone, before any code of the engine sees them. Pure. */
export interface ScanLimits {
  /** 200,000 nodes took the engine 3.9 s and 550 MB to load; 20,000 take 0.8 s and 250 MB; VM models have under 100. */
  readonly maxNodes: number;
  /** `If` nested 12 deep took 1.9 s and 306 MB to load. */
  readonly maxSubgraphDepth: number;
  /** Doors carry no more named tensors. */
  readonly maxInputs: number;
  readonly maxOutputs: number;
  readonly maxModelBytes: number;
  readonly maxDimensions: number;
}

export const SCAN_LIMITS: ScanLimits = {
  maxNodes: 20_000,
  maxSubgraphDepth: 8,
  maxInputs: 64,
  maxOutputs: 64,
  maxModelBytes: 512 * 1024 * 1024,
  maxDimensions: 8,
};

/** Newest opsets of ONNX Runtime 1.30 ("Current official support for domain ai.onnx is till opset 26"); the next are refused at load. */
const NEWEST_OPSET: Readonly<Record<string, number>> = { '': 26, 'ai.onnx.ml': 5, 'com.microsoft': 1 };

export interface ScanRequest {
  /** Domains beside the default one. */
  readonly domains: readonly string[];
  /** Bundle files that external data may lie in. */
  readonly externalData: readonly string[];
  readonly modelBytes: number;
  readonly limits?: ScanLimits;
}

export interface ScanReport {
  /** What must be refused, one clear sentence part each: "operator ai.onnx.contrib:X is ...". Empty: nothing. */
  readonly findings: readonly string[];
  /** The model's time or memory depends on the values of its input: whatever it measures, it runs on the heavy lane. */
  readonly isUnbounded: boolean;
  readonly unboundedOperators: readonly string[];
}

export function scanModel(model: OnnxModel, request: ScanRequest): ScanReport {
  const limits = request.limits ?? SCAN_LIMITS;
  const findings = [
    ...sizeFindings(model, request, limits),
    ...domainFindings(model, request.domains),
    ...externalFindings(model.externalData, request.externalData),
    ...valueFindings('input', model.inputs, limits.maxInputs, limits),
    ...valueFindings('output', model.outputs, limits.maxOutputs, limits),
  ];
  return { findings, isUnbounded: model.unboundedOperators.length > 0, unboundedOperators: model.unboundedOperators };
}

function sizeFindings(model: OnnxModel, request: ScanRequest, limits: ScanLimits): string[] {
  const findings: string[] = [];
  if (request.modelBytes > limits.maxModelBytes) {
    findings.push(`the model has ${request.modelBytes} bytes, ${limits.maxModelBytes} are allowed`);
  }
  const nodes = expandedNodeCount(model);
  if (nodes > limits.maxNodes) {
    findings.push(`the model has ${nodes === Infinity ? 'endless' : nodes} nodes, ${limits.maxNodes} are allowed`);
  }
  if (model.subgraphDepth > limits.maxSubgraphDepth) {
    findings.push(`subgraphs are nested ${model.subgraphDepth} deep, ${limits.maxSubgraphDepth} are allowed`);
  }
  return findings;
}

/**
 * Nodes after the engine has put the bodies of model-local functions in place of their calls: a few functions that call
 * each other twice double it each time. Infinity for functions that call themselves.
 */
function expandedNodeCount(model: OnnxModel): number {
  if (model.functions.size === 0) return model.nodeCount;
  const known = new Map<string, number>();
  const sizeOf = (key: string): number => {
    const body = model.functions.get(key);
    if (body === undefined) return 1;
    const size = known.get(key);
    if (size !== undefined) return size;
    // Until it is known a function counts as endless, so that a call of itself is.
    known.set(key, Infinity);
    let sum = 1;
    for (const [called, count] of body) sum += count * sizeOf(called);
    known.set(key, sum);
    return sum;
  };
  let total = 0;
  for (const [key, count] of model.operators) total += count * sizeOf(key);
  return total;
}

function domainFindings(model: OnnxModel, domains: readonly string[]): string[] {
  const allowed = new Set(['', ...domains]);
  const findings: string[] = [];
  for (const [key, count] of model.operators) {
    const domain = key.slice(0, key.indexOf(':'));
    if (allowed.has(domain) || model.functions.has(key)) continue;
    findings.push(`operator ${key} (${count} times) is of a domain that is not allowed; ${domainNames(allowed)} are allowed`);
  }
  for (const { domain, version } of model.opsets) {
    const newest = NEWEST_OPSET[domain];
    if (newest === undefined || version <= newest) continue;
    findings.push(`the model asks for opset ${version} of ${domain || 'ai.onnx'}, ${newest} is the newest supported`);
  }
  return findings;
}

function domainNames(allowed: ReadonlySet<string>): string {
  return [...allowed].map((domain) => domain || 'ai.onnx').join(', ');
}

function externalFindings(locations: readonly string[], listed: readonly string[]): string[] {
  return locations
    .filter((location) => !listed.includes(location))
    .map((location) => {
      const allowed = listed.length === 0 ? 'no external file is' : `${listed.join(', ')} ${listed.length === 1 ? 'is' : 'are'}`;
      return `external data lies in ${JSON.stringify(location.slice(0, 255))}; ${allowed} listed in model.externalData`;
    });
}

function valueFindings(what: string, values: readonly OnnxValue[], max: number, limits: ScanLimits): string[] {
  const findings: string[] = [];
  if (values.length > max || values.length === 0) findings.push(`the model has ${values.length} ${what}s, 1 to ${max} are allowed`);
  const seen = new Set<string>();
  for (const value of values.slice(0, max)) {
    const label = `${what} ${JSON.stringify(value.name.slice(0, 255))}`;
    if (seen.has(value.name)) findings.push(`${label} is declared twice`);
    seen.add(value.name);
    if (value.name === '' || value.name.length > 255)
      findings.push(`${label} has a name of ${value.name.length} characters, 1 to 255 are allowed`);
    if (value.kind !== 'tensor') findings.push(`${label} is a ${value.kind}, only tensors are allowed`);
    else if (value.datatype === null) findings.push(`${label} has element type ${value.elementType}, which no door carries`);
    else if (value.shape.length > limits.maxDimensions) {
      findings.push(`${label} has ${value.shape.length} dimensions, ${limits.maxDimensions} are allowed`);
    }
  }
  return findings;
}
