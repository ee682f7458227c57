import { Unpackr } from 'msgpackr';
import { clientFrameOf } from './decode.ts';
import { serverFrameOf } from './decode-server.ts';
import { writeDecision, writeFrame } from './encode.ts';
import { FrameError } from './frame-error.ts';
import type { ClientFrame, DecisionFrame, Frame, ServerFrame } from './frames.ts';
import { MAX_SERVER_NODES, MAX_FRAME_BYTES, MAX_NODES } from './limits.ts';
import { peekRequestId, scanFrame } from './scan.ts';
import { begin, end } from './writer.ts';

/**
 * The only door to msgpackr. Its record and extension machinery can be driven from the wire, so it never sees a frame
 * that scan.ts has not passed, and records and structures are off.
 */
const unpackr = new Unpackr({ useRecords: false, int64AsType: 'number' });

/**
 * Encodes a frame. The bytes are a view into a pool that moves on: later calls never overwrite them.
 * @throws FrameError frame_too_large
 */
export function encodeFrame(frame: Frame): Uint8Array {
  begin();
  writeFrame(frame);
  return checkedSize(end(), frame);
}

/** As encodeFrame, for the frame that every predict waits for. */
export function encodeDecision(frame: DecisionFrame): Uint8Array {
  begin();
  writeDecision(frame);
  return checkedSize(end(), frame);
}

function checkedSize(bytes: Uint8Array, frame: Frame): Uint8Array {
  const { length } = bytes;
  if (length <= MAX_FRAME_BYTES) return bytes;
  throw new FrameError('frame_too_large', `Cannot send the frame: it has ${length} bytes, ${MAX_FRAME_BYTES} are allowed`, {
    requestId: 'requestId' in frame ? frame.requestId : null,
  });
}

/**
 * Reads a frame from a controller. `features.bytes` and tensor `bytes` are views into `bytes` and valid as long as it is.
 * @throws FrameError malformed_frame, unknown_frame, invalid_field or frame_too_large; nothing else, whatever the bytes
 */
export function decodeClientFrame(bytes: Uint8Array): ClientFrame {
  try {
    return clientFrameOf(readValues(bytes, MAX_NODES));
  } catch (thrown) {
    throw identified(thrown, bytes);
  }
}

/** Reads a frame from an agent; as decodeClientFrame. Welcome may list many slots, hence its own limit of values. */
export function decodeServerFrame(bytes: Uint8Array): ServerFrame {
  try {
    return serverFrameOf(readValues(bytes, MAX_SERVER_NODES));
  } catch (thrown) {
    throw identified(thrown, bytes);
  }
}

function readValues(bytes: Uint8Array, maxNodes: number): readonly unknown[] {
  const fault = scanFrame(bytes, maxNodes);
  if (fault !== null) throw new FrameError(fault.code, `Cannot read the frame: ${fault.reason}`);
  return unpackr.unpack(bytes) as readonly unknown[];
}

/** The same error with the request id, which is read from the bytes because the values may never have been built. */
function identified(thrown: unknown, bytes: Uint8Array): unknown {
  return thrown instanceof FrameError ? thrown.withRequestId(peekRequestId(bytes)) : thrown;
}
