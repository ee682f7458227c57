/**
 * What a salvage process says on stdout: messages of a header and two lengths of bytes, little-endian.
 * Header: type u32 (1 entry, 2 bounds), length of the entry u32, length of its telemetry u32, zero u32, two u64. For an
 * entry these are its index and 0; for bounds the index of the last dropped entry and that of the last one.
 */
const MESSAGE_HEADER_BYTES = 32;
export const MESSAGE_TYPES = { entry: 1, bounds: 2 } as const;

export interface SalvageMessage {
  readonly type: number;
  readonly numbers: readonly [number, number];
  readonly entry: Uint8Array;
  readonly telemetry: Uint8Array;
}

const NO_BYTES = new Uint8Array(0);

export function encodeMessage(
  type: number,
  numbers: readonly [number, number],
  entry: Uint8Array = NO_BYTES,
  telemetry: Uint8Array = NO_BYTES,
): Uint8Array {
  const bytes = new Uint8Array(MESSAGE_HEADER_BYTES + entry.length + telemetry.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(4, entry.length, true);
  view.setUint32(8, telemetry.length, true);
  view.setBigUint64(16, BigInt(numbers[0]), true);
  view.setBigUint64(24, BigInt(numbers[1]), true);
  bytes.set(entry, MESSAGE_HEADER_BYTES);
  bytes.set(telemetry, MESSAGE_HEADER_BYTES + entry.length);
  return bytes;
}

/** Cuts a stream of bytes into messages. What is left at the end was cut short by the death of the process. */
export class SalvageMessages {
  #left: Uint8Array = NO_BYTES;

  push(chunk: Uint8Array): SalvageMessage[] {
    const bytes = this.#left.length === 0 ? chunk : Buffer.concat([this.#left, chunk]);
    const messages: SalvageMessage[] = [];
    let at = 0;
    for (;;) {
      const message = messageAt(bytes, at);
      if (message === null) break;
      messages.push(message);
      at += MESSAGE_HEADER_BYTES + message.entry.length + message.telemetry.length;
    }
    this.#left = bytes.subarray(at);
    return messages;
  }
}

function messageAt(bytes: Uint8Array, at: number): SalvageMessage | null {
  if (bytes.length - at < MESSAGE_HEADER_BYTES) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset + at, MESSAGE_HEADER_BYTES);
  const entryAt = at + MESSAGE_HEADER_BYTES;
  const telemetryAt = entryAt + view.getUint32(4, true);
  const end = telemetryAt + view.getUint32(8, true);
  if (end > bytes.length) return null;
  return {
    type: view.getUint32(0, true),
    numbers: [Number(view.getBigUint64(16, true)), Number(view.getBigUint64(24, true))],
    entry: bytes.subarray(entryAt, telemetryAt),
    telemetry: bytes.subarray(telemetryAt, end),
  };
}
