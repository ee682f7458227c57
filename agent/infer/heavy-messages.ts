import { deserialize, serialize } from 'node:v8';
import { assert } from '../../protocol/errors.ts';
import type { OrtTensors } from './session.ts';

/**
 * What serving threads and the heavy process say to each other over a local socket: a uint32 length and that many bytes of
 * V8's structured clone. Both ends are this agent, so the bytes are trusted; the length is checked all the same.
 */
export interface HeavyRun {
  readonly id: number;
  readonly bundleId: string;
  /** Folder of the vetted bundle. */
  readonly directory: string;
  readonly feeds: OrtTensors;
}

export type HeavyResult = { readonly id: number; readonly outputs: OrtTensors } | { readonly id: number; readonly error: string };

/** What the heavy process tells its supervisor before it is killed. */
export interface HeavyFailure {
  readonly type: 'hung' | 'memory';
  /** Bundles that were running. */
  readonly bundleIds: readonly string[];
  readonly message: string;
}

/** A request frame holds at most 16 MiB of tensors; outputs may be larger. */
const MAX_MESSAGE_BYTES = 256 * 1024 * 1024;

export function encodeMessage(message: HeavyRun | HeavyResult): Buffer {
  const body = serialize(message);
  assert(body.byteLength <= MAX_MESSAGE_BYTES, `a heavy-lane message of ${body.byteLength} bytes is over the limit`);
  const framed = Buffer.allocUnsafe(4 + body.byteLength);
  framed.writeUInt32LE(body.byteLength);
  body.copy(framed, 4);
  return framed;
}

/** Puts messages together from whatever pieces the socket delivers. */
export class MessageReader<Message extends HeavyRun | HeavyResult> {
  readonly #onMessage: (message: Message) => void;
  #parts: Buffer[] = [];
  #length = 0;

  constructor(onMessage: (message: Message) => void) {
    this.#onMessage = onMessage;
  }

  push(chunk: Buffer): void {
    this.#parts.push(chunk);
    this.#length += chunk.byteLength;
    while (this.#length >= 4) {
      if ((this.#parts[0] as Buffer).byteLength < 4) this.#join();
      const size = (this.#parts[0] as Buffer).readUInt32LE(0);
      assert(size <= MAX_MESSAGE_BYTES, `a heavy-lane message of ${size} bytes is over the limit`);
      if (this.#length < 4 + size) return;
      const joined = this.#join();
      const message = deserialize(joined.subarray(4, 4 + size)) as Message;
      const rest = joined.subarray(4 + size);
      this.#parts = rest.byteLength === 0 ? [] : [rest];
      this.#length = rest.byteLength;
      this.#onMessage(message);
    }
  }

  #join(): Buffer {
    const joined = this.#parts.length === 1 ? (this.#parts[0] as Buffer) : Buffer.concat(this.#parts);
    this.#parts = [joined];
    return joined;
  }
}
