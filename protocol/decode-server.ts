import { checkArity, MAX_VERSION, unknownKind } from './decode.ts';
import {
  countAt,
  digestAt,
  flagAt,
  listAt,
  nameAt,
  optionalCountAt,
  optionalFiniteAt,
  optionalNumberAt,
  optionalTextAt,
  textAt,
  tupleAt,
} from './fields.ts';
import { ACTIONS, FRAME_KINDS, OUTCOMES } from './frames.ts';
import type { DecisionFrame, ErrorFrame, ObservedFrame, ServerFrame, SlotInfo, WelcomeFrame } from './frames.ts';
import { MAX_DEADLINE_MICROS, MAX_FRAME_BYTES, MAX_IN_FLIGHT, MAX_SLOTS, MAX_TEXT_BYTES } from './limits.ts';
import { tensorsAt } from './tensors.ts';

/** Values, position by position, into the frames an agent sends. Pure: bytes have been read by codec.ts. */

const UINT_32 = 0xffff_ffff;
const UINT_16 = 0xffff;

/** @throws FrameError unknown_frame, malformed_frame or invalid_field, without a request id */
export function serverFrameOf(values: readonly unknown[]): ServerFrame {
  switch (values[0]) {
    case FRAME_KINDS.decision:
      return decisionOf(values);
    case FRAME_KINDS.observed:
      return observedOf(values);
    case FRAME_KINDS.error:
      return errorOf(values);
    case FRAME_KINDS.welcome:
      return welcomeOf(values);
    default:
      throw unknownKind(values[0], 'welcome (2), decision (4), observed (6) or error (7)');
  }
}

function decisionOf(values: readonly unknown[]): DecisionFrame {
  checkArity(values, 18, 'decision');
  return {
    kind: FRAME_KINDS.decision,
    requestId: countAt(values[1], 'requestId'),
    sequence: countAt(values[2], 'sequence'),
    stream: countAt(values[3], 'stream', UINT_32),
    action: choiceAt(ACTIONS, values[4], 'action'),
    reasons: countAt(values[5], 'reasons', UINT_32),
    value: optionalFiniteAt(values[6], 'value'),
    rawValue: optionalNumberAt(values[7], 'rawValue'),
    correction: optionalFiniteAt(values[8], 'correction'),
    rawCorrection: optionalNumberAt(values[9], 'rawCorrection'),
    ri: optionalNumberAt(values[10], 'ri'),
    riThreshold: optionalFiniteAt(values[11], 'riThreshold'),
    gsi: optionalNumberAt(values[12], 'gsi'),
    gsiThreshold: optionalFiniteAt(values[13], 'gsiThreshold'),
    bundleId: digestAt(values[14], 'bundleId'),
    version: textAt(values[15], 'version'),
    serverTimeMicros: countAt(values[16], 'serverTimeMicros'),
    outputs: values[17] === null ? null : tensorsAt(values[17], 'outputs'),
  };
}

/** The choice that an index names; the codes of actions and outcomes are their positions. */
function choiceAt<Choice>(choices: readonly Choice[], value: unknown, field: string): Choice {
  return choices[countAt(value, field, choices.length - 1)] as Choice;
}

function observedOf(values: readonly unknown[]): ObservedFrame {
  checkArity(values, 6, 'observed');
  return {
    kind: FRAME_KINDS.observed,
    requestId: countAt(values[1], 'requestId'),
    sequence: countAt(values[2], 'sequence'),
    stream: countAt(values[3], 'stream', UINT_32),
    outcome: choiceAt(OUTCOMES, values[4], 'outcome'),
    estimate: optionalFiniteAt(values[5], 'estimate'),
  };
}

function errorOf(values: readonly unknown[]): ErrorFrame {
  checkArity(values, 7, 'error');
  return {
    kind: FRAME_KINDS.error,
    requestId: optionalCountAt(values[1], 'requestId'),
    code: nameAt(values[2], 'code'),
    field: optionalTextAt(values[3], 'field'),
    message: textAt(values[4], 'message', MAX_TEXT_BYTES),
    remedy: textAt(values[5], 'remedy', MAX_TEXT_BYTES),
    retryable: flagAt(values[6], 'retryable'),
  };
}

function welcomeOf(values: readonly unknown[]): WelcomeFrame {
  checkArity(values, 7, 'welcome');
  const limits = tupleAt(values[5], 'limits', 3);
  return {
    kind: FRAME_KINDS.welcome,
    version: countAt(values[1], 'version', MAX_VERSION),
    agentId: textAt(values[2], 'agentId'),
    software: textAt(values[3], 'software'),
    serverTimeMicros: countAt(values[4], 'serverTimeMicros'),
    limits: {
      maxFrameBytes: countAt(limits[0], 'limits.maxFrameBytes', MAX_FRAME_BYTES),
      maxInFlight: countAt(limits[1], 'limits.maxInFlight', MAX_IN_FLIGHT),
      defaultDeadlineMicros: countAt(limits[2], 'limits.defaultDeadlineMicros', MAX_DEADLINE_MICROS),
    },
    slots: listAt(values[6], 'slots', MAX_SLOTS).map(slotOf),
  };
}

function slotOf(value: unknown, index: number): SlotInfo {
  const field = `slots[${index}]`;
  const fields = tupleAt(value, field, 7);
  return {
    slot: nameAt(fields[0], `${field}.slot`),
    kind: nameAt(fields[1], `${field}.kind`),
    bundleId: digestAt(fields[2], `${field}.bundleId`),
    version: textAt(fields[3], `${field}.version`),
    featureCount: optionalCountAt(fields[4], `${field}.featureCount`, UINT_16),
    valueUnit: optionalTextAt(fields[5], `${field}.valueUnit`),
    correctionUnit: optionalTextAt(fields[6], `${field}.correctionUnit`),
  };
}
