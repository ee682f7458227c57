import * as fc from 'fast-check';
import { DATATYPES, DATATYPE_NAMES, type WireTensor } from '../../protocol/datatype.ts';
import { ACTIONS, FRAME_KINDS, OUTCOMES, type ClientFrame, type Context, type Features, type ServerFrame } from '../../protocol/frames.ts';

/** Arbitrary valid frames. */

const nullable = <Value>(value: fc.Arbitrary<Value>): fc.Arbitrary<Value | null> => fc.option(value, { nil: null });
const text = fc.string({ unit: 'binary', maxLength: 60 });
const name = fc.string({ unit: 'binary', minLength: 1, maxLength: 60 });
const count = fc.maxSafeNat();
const finite = fc.double({ noNaN: true, noDefaultInfinity: true });
const anyNumber = fc.double();
const digest = fc.uint8Array({ minLength: 32, maxLength: 32 });
const millis = fc.maxSafeNat().map((value) => value % 8_640_000_000_000_001);

const context: fc.Arbitrary<Context> = fc.record({
  substrateId: nullable(text),
  lotId: nullable(text),
  carrierId: nullable(text),
  slotId: nullable(text),
  equipmentId: nullable(text),
  moduleId: nullable(text),
  recipeId: nullable(text),
  stepId: nullable(text),
  processJobId: nullable(text),
  controlJobId: nullable(text),
  product: nullable(text),
  runNumber: nullable(count),
  processEndMillis: nullable(millis),
});

const shape = fc.array(fc.nat(4), { maxLength: 3 });

function elementsOf(dimensions: readonly number[]): number {
  return dimensions.reduce((product, dimension) => product * dimension, 1);
}

const tensor: fc.Arbitrary<WireTensor> = fc.tuple(name, fc.constantFrom(...DATATYPE_NAMES), shape).chain(([name, datatype, shape]) => {
  const elements = elementsOf(shape);
  const length = elements * DATATYPES[datatype].bytes;
  const bytes =
    datatype === 'BYTES'
      ? fc.array(text, { minLength: elements, maxLength: elements }).map(bytesElements)
      : fc.uint8Array({ minLength: length, maxLength: length }).map((raw) => (datatype === 'BOOL' ? raw.map((byte) => byte & 1) : raw));
  return bytes.map((bytes) => ({ name, datatype, shape, bytes }));
});

function bytesElements(texts: readonly string[]): Uint8Array {
  const parts = texts.map((text) => {
    const content = Buffer.from(text);
    const length = Buffer.alloc(4);
    length.writeUInt32LE(content.length);
    return Buffer.concat([length, content]);
  });
  return Uint8Array.from(Buffer.concat(parts));
}

const tensors = (minLength: number): fc.Arbitrary<WireTensor[]> =>
  fc.uniqueArray(tensor, { minLength, maxLength: 4, selector: (one) => one.name });

const vector = (elementBytes: number): fc.Arbitrary<Uint8Array> =>
  fc.integer({ min: 1, max: 20 }).chain((length) => fc.uint8Array({ minLength: length * elementBytes, maxLength: length * elementBytes }));

const features: fc.Arbitrary<Features> = fc.oneof(
  vector(4).map((bytes) => ({ encoding: 'float32', bytes }) as const),
  vector(8).map((bytes) => ({ encoding: 'float64', bytes }) as const),
  tensors(1).map((tensors) => ({ encoding: 'tensors', tensors }) as const),
);

export const anyClientFrame: fc.Arbitrary<ClientFrame> = fc.oneof(
  fc.tuple(fc.nat(0xffff), fc.nat(0xffff)).chain(([one, other]) =>
    fc.record({
      kind: fc.constant(FRAME_KINDS.hello),
      versionOldest: fc.constant(Math.min(one, other)),
      versionNewest: fc.constant(Math.max(one, other)),
      client: name,
      token: nullable(text),
    }),
  ),
  fc.record({
    kind: fc.constant(FRAME_KINDS.predict),
    requestId: count,
    slot: name,
    context: nullable(context),
    deadlineMicros: fc.nat(60_000_000),
    lastApplied: nullable(finite),
    features,
    outputs: nullable(fc.uniqueArray(name, { maxLength: 5 })),
  }),
  fc.record({
    kind: fc.constant(FRAME_KINDS.observe),
    requestId: count,
    slot: name,
    context,
    measurementId: name,
    parameter: name,
    value: finite,
    unit: nullable(text),
    appliedInput: nullable(finite),
    measuredAtMillis: millis,
  }),
);

const slotInfo = fc.record({
  slot: name,
  kind: name,
  bundleId: digest,
  version: text,
  featureCount: nullable(fc.nat(0xffff)),
  valueUnit: nullable(text),
  correctionUnit: nullable(text),
});

export const anyServerFrame: fc.Arbitrary<ServerFrame> = fc.oneof(
  fc.record({
    kind: fc.constant(FRAME_KINDS.welcome),
    version: fc.nat(0xffff),
    agentId: text,
    software: text,
    serverTimeMicros: count,
    limits: fc.record({ maxFrameBytes: fc.nat(1024 * 1024), maxInFlight: fc.nat(1024), defaultDeadlineMicros: fc.nat(60_000_000) }),
    slots: fc.array(slotInfo, { maxLength: 20 }),
  }),
  fc.record({
    kind: fc.constant(FRAME_KINDS.decision),
    requestId: count,
    sequence: count,
    stream: fc.nat(0xffff),
    action: fc.constantFrom(...ACTIONS),
    reasons: fc.integer({ min: 0, max: 0xffff_ffff }),
    value: nullable(finite),
    rawValue: nullable(anyNumber),
    correction: nullable(finite),
    rawCorrection: nullable(anyNumber),
    ri: nullable(anyNumber),
    riThreshold: nullable(finite),
    gsi: nullable(anyNumber),
    gsiThreshold: nullable(finite),
    bundleId: digest,
    version: text,
    serverTimeMicros: count,
    outputs: nullable(tensors(0)),
  }),
  fc.record({
    kind: fc.constant(FRAME_KINDS.observed),
    requestId: count,
    sequence: count,
    stream: fc.nat(0xffff),
    outcome: fc.constantFrom(...OUTCOMES),
    estimate: nullable(finite),
  }),
  fc.record({
    kind: fc.constant(FRAME_KINDS.error),
    requestId: nullable(count),
    code: name,
    field: nullable(text),
    message: text,
    remedy: text,
    retryable: fc.boolean(),
  }),
);
