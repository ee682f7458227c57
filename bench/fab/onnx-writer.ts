import type { Constant, Graph, GraphNode, Port } from './graph.ts';

/**
 * Writes a graph as an ONNX ModelProto: the Protocol Buffers wire format of onnx.proto3 (field numbers below are
 * that file's), ir_version 8, default operator set 17. Deterministic: equal graphs give equal bytes.
 */
const IR_VERSION = 8;
const OPSET = 17;

const MODEL = { irVersion: 1, producerName: 2, graph: 7, opsetImport: 8 } as const;
const OPSET_ID = { version: 2 } as const;
const GRAPH = { node: 1, name: 2, initializer: 5, input: 11, output: 12 } as const;
const NODE = { input: 1, output: 2, name: 3, operator: 4 } as const;
const TENSOR = { dims: 1, dataType: 2, name: 8, rawData: 9 } as const;
const VALUE_INFO = { name: 1, type: 2 } as const;
const TYPE = { tensor: 1, elementType: 1, shape: 2 } as const;
const SHAPE = { dimension: 1, value: 1, parameter: 2 } as const;
const ELEMENT = { float32: 1, int64: 7 } as const;

const utf8 = new TextEncoder();

export function encodeModel(graph: Graph): Uint8Array {
  return message([
    integer(MODEL.irVersion, IR_VERSION),
    text(MODEL.producerName, 'setpoint-fab'),
    bytes(MODEL.graph, encodeGraph(graph)),
    bytes(MODEL.opsetImport, message([integer(OPSET_ID.version, OPSET)])),
  ]);
}

function encodeGraph(graph: Graph): Uint8Array {
  return message([
    ...graph.nodes.map((node) => bytes(GRAPH.node, encodeNode(node))),
    text(GRAPH.name, graph.name),
    ...graph.constants.map((constant) => bytes(GRAPH.initializer, encodeTensor(constant))),
    bytes(GRAPH.input, encodePort(graph.input)),
    ...graph.outputs.map((port) => bytes(GRAPH.output, encodePort(port))),
  ]);
}

function encodeNode(node: GraphNode): Uint8Array {
  return message([
    ...node.inputs.map((input) => text(NODE.input, input)),
    text(NODE.output, node.output),
    text(NODE.name, node.output),
    text(NODE.operator, node.operator),
  ]);
}

function encodeTensor({ name, shape, values }: Constant): Uint8Array {
  const isFloat = values instanceof Float32Array;
  const raw = new Uint8Array(values.byteLength);
  const view = new DataView(raw.buffer);
  for (const [index, value] of values.entries()) {
    if (typeof value === 'bigint') view.setBigInt64(index * 8, value, true);
    else view.setFloat32(index * 4, value, true);
  }
  return message([
    ...shape.map((dimension) => integer(TENSOR.dims, dimension)),
    integer(TENSOR.dataType, isFloat ? ELEMENT.float32 : ELEMENT.int64),
    text(TENSOR.name, name),
    bytes(TENSOR.rawData, raw),
  ]);
}

function encodePort({ name, columns }: Port): Uint8Array {
  const shape = message([
    bytes(SHAPE.dimension, message([text(SHAPE.parameter, 'N')])),
    bytes(SHAPE.dimension, message([integer(SHAPE.value, columns)])),
  ]);
  const tensor = message([integer(TYPE.elementType, ELEMENT.float32), bytes(TYPE.shape, shape)]);
  return message([text(VALUE_INFO.name, name), bytes(VALUE_INFO.type, message([bytes(TYPE.tensor, tensor)]))]);
}

/** Wire type 0. The values written here are below 2^31, so 32-bit shifts hold them. */
function varint(value: number): number[] {
  const groups: number[] = [];
  let rest = value;
  while (rest >= 0x80) {
    groups.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  groups.push(rest);
  return groups;
}

function integer(field: number, value: number): Uint8Array {
  return Uint8Array.from([...varint(field << 3), ...varint(value)]);
}

/** Wire type 2: a length and that many bytes. */
function bytes(field: number, content: Uint8Array): Uint8Array {
  return message([Uint8Array.from([...varint((field << 3) | 2), ...varint(content.length)]), content]);
}

function text(field: number, content: string): Uint8Array {
  return bytes(field, utf8.encode(content));
}

function message(parts: readonly Uint8Array[]): Uint8Array {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}
