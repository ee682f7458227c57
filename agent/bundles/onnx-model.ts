import { ConstantScope, isUnboundedNode } from './onnx-bounds.ts';
import { MAX_NAME_BYTES, readValue, type OnnxValue } from './onnx-value.ts';
import { ProtobufReader } from './protobuf-reader.ts';

/**
 * What a vetting needs to know of an ONNX file, read without running any of the engine's code: names, types, operators,
 * sizes, and where data lies. Tensor data is never copied nor looked at. Pure. Field numbers are those of onnx.proto.
 */
export interface OnnxModel {
  readonly irVersion: number;
  readonly producer: string;
  readonly opsets: readonly { readonly domain: string; readonly version: number }[];
  /** What a caller must feed: graph inputs that are not initializers. */
  readonly inputs: readonly OnnxValue[];
  readonly outputs: readonly OnnxValue[];
  /** Nodes of the graph, its subgraphs and the bodies of model-local functions, each counted once. */
  readonly nodeCount: number;
  /** `domain:operator` (the default domain is empty) -> count. */
  readonly operators: ReadonlyMap<string, number>;
  /** Model-local functions: `domain:name` -> operators of the body. */
  readonly functions: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** Bytes of tensors inside the file. */
  readonly initializerBytes: number;
  /** Locations of external data, each once. */
  readonly externalData: readonly string[];
  readonly hasControlFlow: boolean;
  /** 0 for a graph without subgraphs. */
  readonly subgraphDepth: number;
  /** Operators whose time or memory the input's values decide, each once; empty is a bounded model. */
  readonly unboundedOperators: readonly string[];
}

/** Deepest subgraph read. Depth 12 already costs the engine 1.9 s and 306 MB; the scan allows less. */
const MAX_SUBGRAPH_DEPTH = 32;
/** Most nodes read; the scan allows less. 200,000 nodes cost the engine 3.9 s and 550 MB. */
const MAX_NODES_READ = 1_000_000;
/** Most inputs, outputs, opsets or external locations collected; the scan allows less. */
const MAX_COLLECTED = 4096;

const CONTROL_FLOW = new Set(['Loop', 'Scan', 'If', 'SequenceMap']);

interface Collected {
  nodeCount: number;
  readonly operators: Map<string, number>;
  readonly functions: Map<string, ReadonlyMap<string, number>>;
  initializerBytes: number;
  readonly externalData: Set<string>;
  hasControlFlow: boolean;
  subgraphDepth: number;
  readonly unbounded: Set<string>;
}

interface GraphValues {
  readonly inputs: OnnxValue[];
  readonly outputs: OnnxValue[];
  readonly initializers: Set<string>;
}

/** @throws SetpointError invalid_bundle that names the byte offset and the message */
export function readOnnxModel(bytes: Uint8Array): OnnxModel {
  const reader = new ProtobufReader(bytes, 'model');
  const collected: Collected = {
    nodeCount: 0,
    operators: new Map(),
    functions: new Map(),
    initializerBytes: 0,
    externalData: new Set(),
    hasControlFlow: false,
    subgraphDepth: 0,
    unbounded: new Set(),
  };
  const values: GraphValues = { inputs: [], outputs: [], initializers: new Set() };
  const opsets: { domain: string; version: number }[] = [];
  let irVersion = 0;
  let producer = '';
  let hasGraph = false;
  while (reader.next()) {
    if (reader.field === 1) irVersion = reader.integer();
    else if (reader.field === 2) producer = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 7) {
      hasGraph = true;
      readGraph(reader.message('graph'), values, collected, new ConstantScope(null), 0);
    } else if (reader.field === 8) pushBounded(opsets, readOpset(reader.message('opset_import')), reader);
    else if (reader.field === 20) reader.fail('training information is not allowed');
    else if (reader.field === 25) readFunction(reader.message('functions'), collected);
    else reader.skip();
  }
  if (!hasGraph) reader.fail('it has no graph');
  return {
    irVersion,
    producer,
    opsets,
    inputs: values.inputs.filter(({ name }) => !values.initializers.has(name)),
    outputs: values.outputs,
    nodeCount: collected.nodeCount,
    operators: collected.operators,
    functions: collected.functions,
    initializerBytes: collected.initializerBytes,
    externalData: [...collected.externalData],
    hasControlFlow: collected.hasControlFlow,
    subgraphDepth: collected.subgraphDepth,
    unboundedOperators: [...collected.unbounded].sort(),
  };
}

function pushBounded<Item>(list: Item[], item: Item, reader: ProtobufReader): void {
  if (list.length >= MAX_COLLECTED) reader.fail(`it has more than ${MAX_COLLECTED} entries of field ${reader.field}`);
  list.push(item);
}

function readOpset(reader: ProtobufReader): { domain: string; version: number } {
  let domain = '';
  let version = 0;
  while (reader.next()) {
    if (reader.field === 1) domain = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 2) version = reader.integer();
    else reader.skip();
  }
  return { domain: canonicalDomain(domain), version };
}

/** 'ai.onnx' and '' are two spellings of the default domain. */
function canonicalDomain(domain: string): string {
  return domain === 'ai.onnx' ? '' : domain;
}

/**
 * Reads a graph. Initializers may come after the nodes that use them, so nodes are judged only when the whole graph is known.
 */
function readGraph(reader: ProtobufReader, values: GraphValues, collected: Collected, scope: ConstantScope, depth: number): void {
  if (depth > MAX_SUBGRAPH_DEPTH) reader.fail(`subgraphs are nested deeper than ${MAX_SUBGRAPH_DEPTH}`);
  collected.subgraphDepth = Math.max(collected.subgraphDepth, depth);
  const nodes: ProtobufReader[] = [];
  while (reader.next()) {
    if (reader.field === 1) {
      collected.nodeCount += 1;
      if (collected.nodeCount > MAX_NODES_READ) reader.fail(`it has more than ${MAX_NODES_READ} nodes`);
      nodes.push(reader.message('node'));
    } else if (reader.field === 5) {
      const name = readTensor(reader.message('initializer'), collected);
      values.initializers.add(name);
      scope.addConstant(name);
    } else if (reader.field === 15) {
      const name = readSparseTensor(reader.message('sparse_initializer'), collected);
      values.initializers.add(name);
      scope.addConstant(name);
    } else if (reader.field === 11) pushBounded(values.inputs, readValue(reader.message('input')), reader);
    else if (reader.field === 12) pushBounded(values.outputs, readValue(reader.message('output')), reader);
    else reader.skip();
  }
  for (const node of nodes) readNode(node, collected, collected.operators, scope, depth);
}

function readNode(reader: ProtobufReader, collected: Collected, operators: Map<string, number>, scope: ConstantScope, depth: number): void {
  const inputs: string[] = [];
  const outputs: string[] = [];
  let operator = '';
  let domain = '';
  const attributes: ProtobufReader[] = [];
  while (reader.next()) {
    if (reader.field === 1) inputs.push(reader.text(MAX_NAME_BYTES));
    else if (reader.field === 2) outputs.push(reader.text(MAX_NAME_BYTES));
    else if (reader.field === 4) operator = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 5) attributes.push(reader.message('attribute'));
    else if (reader.field === 7) domain = canonicalDomain(reader.text(MAX_NAME_BYTES));
    else reader.skip();
  }
  if (operator === '') reader.fail('a node has no op_type');
  const key = `${domain}:${operator}`;
  operators.set(key, (operators.get(key) ?? 0) + 1);
  if (operators !== collected.operators) collected.operators.set(key, (collected.operators.get(key) ?? 0) + 1);
  if (domain === '' && CONTROL_FLOW.has(operator)) collected.hasControlFlow = true;
  for (const attribute of attributes) readAttribute(attribute, collected, scope, depth);
  if (isUnboundedNode(domain, operator, inputs, scope)) collected.unbounded.add(key);
  scope.addNode(domain, operator, inputs, outputs);
}

function readAttribute(reader: ProtobufReader, collected: Collected, scope: ConstantScope, depth: number): void {
  while (reader.next()) {
    if (reader.field === 5 || reader.field === 10) readTensor(reader.message('tensor'), collected);
    else if (reader.field === 22 || reader.field === 23) readSparseTensor(reader.message('sparse_tensor'), collected);
    else if (reader.field === 6 || reader.field === 11) {
      const values: GraphValues = { inputs: [], outputs: [], initializers: new Set() };
      readGraph(reader.message('graph'), values, collected, new ConstantScope(scope), depth + 1);
    } else reader.skip();
  }
}

function readFunction(reader: ProtobufReader, collected: Collected): void {
  const nodes: ProtobufReader[] = [];
  let name = '';
  let domain = '';
  while (reader.next()) {
    if (reader.field === 1) name = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 10) domain = canonicalDomain(reader.text(MAX_NAME_BYTES));
    else if (reader.field === 7) {
      collected.nodeCount += 1;
      if (collected.nodeCount > MAX_NODES_READ) reader.fail(`it has more than ${MAX_NODES_READ} nodes`);
      nodes.push(reader.message('node'));
    } else reader.skip();
  }
  const operators = new Map<string, number>();
  const scope = new ConstantScope(null);
  for (const node of nodes) readNode(node, collected, operators, scope, 0);
  if (collected.functions.size >= MAX_COLLECTED) reader.fail(`it has more than ${MAX_COLLECTED} functions`);
  collected.functions.set(`${domain}:${name}`, operators);
}

/** Returns the tensor's name. */
function readTensor(reader: ProtobufReader, collected: Collected): string {
  let name = '';
  while (reader.next()) {
    if (reader.field === 8) name = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 13) readExternalEntry(reader.message('external_data'), collected);
    else if ([4, 5, 6, 7, 9, 10, 11].includes(reader.field) && reader.wire === 2) collected.initializerBytes += reader.bytes().byteLength;
    else reader.skip();
  }
  return name;
}

function readExternalEntry(reader: ProtobufReader, collected: Collected): void {
  let key = '';
  let value = '';
  while (reader.next()) {
    if (reader.field === 1) key = reader.text(MAX_NAME_BYTES);
    else if (reader.field === 2) value = reader.text(MAX_NAME_BYTES);
    else reader.skip();
  }
  if (key !== 'location') return;
  if (collected.externalData.size >= MAX_COLLECTED) reader.fail(`it has more than ${MAX_COLLECTED} external files`);
  collected.externalData.add(value);
}

function readSparseTensor(reader: ProtobufReader, collected: Collected): string {
  let name = '';
  while (reader.next()) {
    if (reader.field === 1) name = readTensor(reader.message('values'), collected);
    else if (reader.field === 2) readTensor(reader.message('indices'), collected);
    else reader.skip();
  }
  return name;
}
