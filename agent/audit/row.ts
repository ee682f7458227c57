import { decodeClientFrame, decodeServerFrame } from '../../protocol/codec.ts';
import { messageOf } from '../../protocol/errors.ts';
import { FRAME_KINDS, type DecisionFrame, type ObserveFrame, type PredictFrame, REASONS, reasonNames } from '../../protocol/frames.ts';

/** A record of the log, wherever it was found, and what it says. */
export interface LogRecord {
  /** Of its entry in the store; null while it is in the journal only. */
  readonly index: number | null;
  readonly kind: number;
  /** Null for the store's own events. */
  readonly stream: number | null;
  readonly sequence: number;
  readonly timeMicros: number;
  readonly request: Uint8Array;
  readonly reply: Uint8Array;
  readonly telemetry: 'kept' | 'dropped' | 'none';
}

type RowKind = 'decision' | 'observation' | 'alert' | 'gap' | 'event';

export interface Row extends LogRecord {
  readonly name: RowKind | 'unknown';
  readonly predict: PredictFrame | null;
  readonly decision: DecisionFrame | null;
  readonly observe: ObserveFrame | null;
  /** What an alert, a gap or an event of the store says. */
  readonly body: Readonly<Record<string, unknown>> | null;
  /** Why the record cannot be read; it is answered all the same. */
  readonly defect: string | null;
}

const KINDS: Readonly<Record<number, RowKind>> = { 1: 'decision', 2: 'observation', 3: 'alert', 4: 'gap', 5: 'event' };
const NOTHING = { predict: null, decision: null, observe: null, body: null, defect: null } as const;

/** Reads the frames of a record. Never throws: a record that cannot be read is a row that says so. */
export function rowOf(record: LogRecord): Row {
  const name = KINDS[record.kind] ?? 'unknown';
  const row: Row = { ...record, ...NOTHING, name };
  try {
    if (name === 'decision') return { ...row, ...decisionPart(record) };
    if (name === 'observation') return { ...row, observe: frameOf(decodeClientFrame(record.request), FRAME_KINDS.observe) as ObserveFrame };
    if (name === 'unknown') return { ...row, defect: `its kind is ${record.kind}` };
    return { ...row, body: bodyOf(record.request) };
  } catch (error) {
    return { ...row, defect: messageOf(error) };
  }
}

function decisionPart({ request, reply, stream, sequence }: LogRecord): Pick<Row, 'predict' | 'decision' | 'defect'> {
  const predict = frameOf(decodeClientFrame(request), FRAME_KINDS.predict) as PredictFrame;
  const decision = frameOf(decodeServerFrame(reply), FRAME_KINDS.decision) as DecisionFrame;
  const isItsOwn = decision.stream === stream && decision.sequence === sequence;
  const defect = isItsOwn ? null : `the decision in it names itself ${decision.stream}/${decision.sequence}`;
  return { predict, decision, defect };
}

function frameOf<Frame extends { readonly kind: number }>(frame: Frame, kind: number): Frame {
  if (frame.kind !== kind) throw new Error(`it holds a frame of kind ${frame.kind}, ${kind} is wanted`);
  return frame;
}

function bodyOf(request: Uint8Array): Readonly<Record<string, unknown>> {
  const body: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(request));
  if (typeof body !== 'object' || body === null || Array.isArray(body)) throw new Error('it holds no JSON object');
  return body as Readonly<Record<string, unknown>>;
}

/** The names of the bits, and the bits that have none: an agent of a later version may have set them. */
export function reasonTexts(bits: number): string[] {
  const known: string[] = reasonNames(bits);
  const names = Object.values(REASONS).reduce((all, bit) => all | bit, 0);
  for (let bit = 0; bit < 32; bit++) if (((bits & ~names) >>> bit) & 1) known.push(`bit_${bit}`);
  return known;
}

/** What names a record for ever. */
export function nameOf({ stream, sequence, index }: Pick<LogRecord, 'stream' | 'sequence' | 'index'>): string {
  return stream === null ? `entry ${index}` : `${stream}/${sequence}`;
}

/** How many numbers a vector has; null for named tensors. */
export function featureCount({ features }: PredictFrame): number | null {
  if (features.encoding === 'tensors') return null;
  return features.bytes.byteLength / (features.encoding === 'float32' ? 4 : 8);
}
