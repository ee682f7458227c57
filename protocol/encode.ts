import type { WireTensor } from './datatype.ts';
import { ENCODINGS } from './decode.ts';
import { ACTIONS, FRAME_KINDS, OUTCOMES } from './frames.ts';
import type {
  Context,
  DecisionFrame,
  ErrorFrame,
  Frame,
  HelloFrame,
  ObservedFrame,
  ObserveFrame,
  PredictFrame,
  WelcomeFrame,
} from './frames.ts';
import {
  writeArray,
  writeBinary,
  writeBoolean,
  writeInteger,
  writeNil,
  writeOptionalInteger,
  writeOptionalReal,
  writeOptionalText,
  writeReal,
  writeText,
} from './writer.ts';

/** Frames into their positions. The inverse of decode.ts and decode-server.ts. */
export function writeFrame(frame: Frame): void {
  switch (frame.kind) {
    case FRAME_KINDS.hello:
      writeHello(frame);
      break;
    case FRAME_KINDS.welcome:
      writeWelcome(frame);
      break;
    case FRAME_KINDS.predict:
      writePredict(frame);
      break;
    case FRAME_KINDS.decision:
      writeDecision(frame);
      break;
    case FRAME_KINDS.observe:
      writeObserve(frame);
      break;
    case FRAME_KINDS.observed:
      writeObserved(frame);
      break;
    case FRAME_KINDS.error:
      writeError(frame);
      break;
  }
}

function writeHead(length: number, kind: number): void {
  writeArray(length);
  writeInteger(kind);
}

function writeHello(frame: HelloFrame): void {
  writeHead(5, frame.kind);
  writeInteger(frame.versionOldest);
  writeInteger(frame.versionNewest);
  writeText(frame.client);
  writeOptionalText(frame.token);
}

function writeWelcome(frame: WelcomeFrame): void {
  writeHead(7, frame.kind);
  writeInteger(frame.version);
  writeText(frame.agentId);
  writeText(frame.software);
  writeInteger(frame.serverTimeMicros);
  writeArray(3);
  writeInteger(frame.limits.maxFrameBytes);
  writeInteger(frame.limits.maxInFlight);
  writeInteger(frame.limits.defaultDeadlineMicros);
  writeArray(frame.slots.length);
  for (const slot of frame.slots) {
    writeArray(7);
    writeText(slot.slot);
    writeText(slot.kind);
    writeBinary(slot.bundleId);
    writeText(slot.version);
    writeOptionalInteger(slot.featureCount);
    writeOptionalText(slot.valueUnit);
    writeOptionalText(slot.correctionUnit);
  }
}

function writePredict(frame: PredictFrame): void {
  const { features, outputs } = frame;
  writeHead(9, frame.kind);
  writeInteger(frame.requestId);
  writeText(frame.slot);
  if (frame.context === null) writeNil();
  else writeContext(frame.context);
  writeInteger(frame.deadlineMicros);
  writeOptionalReal(frame.lastApplied);
  writeInteger(ENCODINGS[features.encoding]);
  if (features.encoding === 'tensors') writeTensors(features.tensors);
  else writeBinary(features.bytes);
  if (outputs === null) {
    writeNil();
    return;
  }
  writeArray(outputs.length);
  for (const output of outputs) writeText(output);
}

function writeContext(context: Context): void {
  writeArray(13);
  writeOptionalText(context.substrateId);
  writeOptionalText(context.lotId);
  writeOptionalText(context.carrierId);
  writeOptionalText(context.slotId);
  writeOptionalText(context.equipmentId);
  writeOptionalText(context.moduleId);
  writeOptionalText(context.recipeId);
  writeOptionalText(context.stepId);
  writeOptionalText(context.processJobId);
  writeOptionalText(context.controlJobId);
  writeOptionalText(context.product);
  writeOptionalInteger(context.runNumber);
  writeOptionalInteger(context.processEndMillis);
}

function writeTensors(tensors: readonly WireTensor[]): void {
  writeArray(tensors.length);
  for (const tensor of tensors) {
    writeArray(4);
    writeText(tensor.name);
    writeText(tensor.datatype);
    writeArray(tensor.shape.length);
    for (const dimension of tensor.shape) writeInteger(dimension);
    writeBinary(tensor.bytes);
  }
}

export function writeDecision(frame: DecisionFrame): void {
  writeHead(18, frame.kind);
  writeInteger(frame.requestId);
  writeInteger(frame.sequence);
  writeInteger(frame.stream);
  writeInteger(ACTIONS.indexOf(frame.action));
  writeInteger(frame.reasons);
  writeOptionalReal(frame.value);
  writeOptionalReal(frame.rawValue);
  writeOptionalReal(frame.correction);
  writeOptionalReal(frame.rawCorrection);
  writeOptionalReal(frame.ri);
  writeOptionalReal(frame.riThreshold);
  writeOptionalReal(frame.gsi);
  writeOptionalReal(frame.gsiThreshold);
  writeBinary(frame.bundleId);
  writeText(frame.version);
  writeInteger(frame.serverTimeMicros);
  if (frame.outputs === null) writeNil();
  else writeTensors(frame.outputs);
}

function writeObserve(frame: ObserveFrame): void {
  writeHead(10, frame.kind);
  writeInteger(frame.requestId);
  writeText(frame.slot);
  writeContext(frame.context);
  writeText(frame.measurementId);
  writeText(frame.parameter);
  writeReal(frame.value);
  writeOptionalText(frame.unit);
  writeOptionalReal(frame.appliedInput);
  writeInteger(frame.measuredAtMillis);
}

function writeObserved(frame: ObservedFrame): void {
  writeHead(6, frame.kind);
  writeInteger(frame.requestId);
  writeInteger(frame.sequence);
  writeInteger(frame.stream);
  writeInteger(OUTCOMES.indexOf(frame.outcome));
  writeOptionalReal(frame.estimate);
}

function writeError(frame: ErrorFrame): void {
  writeHead(7, frame.kind);
  writeOptionalInteger(frame.requestId);
  writeText(frame.code);
  writeOptionalText(frame.field);
  writeText(frame.message);
  writeText(frame.remedy);
  writeBoolean(frame.retryable);
}
