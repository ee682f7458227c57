/**
 * The little of RFC 6455 a load generator needs: client frames built once, and a reader of server frames that only
 * counts. Pure and incremental: a frame may arrive in any pieces.
 */
export const OPCODES = { continuation: 0x0, text: 0x1, binary: 0x2, close: 0x8, ping: 0x9, pong: 0xa } as const;

const FINAL = 0x80;
const MASKED = 0x80;

/** A client frame with an all-zero masking key: valid (clients must mask), and the payload needs no masking work. */
export function clientFrame(payload: Uint8Array, opcode: number = OPCODES.binary): Uint8Array {
  const extended = payload.length < 126 ? 0 : payload.length < 65_536 ? 2 : 8;
  const headerBytes = 2 + extended + 4;
  const frame = new Uint8Array(headerBytes + payload.length);
  const view = new DataView(frame.buffer);
  frame[0] = FINAL | opcode;
  frame[1] = MASKED | (extended === 0 ? payload.length : extended === 2 ? 126 : 127);
  if (extended === 2) view.setUint16(2, payload.length);
  if (extended === 8) view.setBigUint64(2, BigInt(payload.length));
  frame.set(payload, headerBytes);
  return frame;
}

/** Longest server frame header: 2 bytes and a 64-bit length. */
const LONGEST_HEADER_BYTES = 10;

/** Longest payload of a control frame (RFC 6455 5.5). */
const LONGEST_CONTROL_BYTES = 125;

export class ServerFrameReader {
  /** Complete data messages seen. */
  messages = 0;
  /** Payload bytes of data frames seen. */
  payloadBytes = 0;
  /** Called with the opcode and payload of every complete control frame. */
  onControl: ((opcode: number, payload: Uint8Array) => void) | null = null;
  readonly #header = new Uint8Array(LONGEST_HEADER_BYTES);
  readonly #control = new Uint8Array(LONGEST_CONTROL_BYTES);
  #headerHave = 0;
  #inPayload = false;
  #remaining = 0;
  #length = 0;
  #opcode = 0;
  #final = false;
  #capture: Uint8Array[] | null = null;
  #onCaptured: ((payload: Uint8Array) => void) | null = null;

  /** Calls `receive` once with a copy of the next whole message that starts after this call. */
  captureNext(receive: (payload: Uint8Array) => void): void {
    this.#onCaptured = receive;
    this.#capture = null;
  }

  /**
   * Reads `bytes` and returns how many data messages became complete.
   * @throws Error when the server sends what RFC 6455 forbids it to send
   */
  feed(bytes: Uint8Array): number {
    const before = this.messages;
    let at = 0;
    while (at < bytes.length) {
      if (!this.#inPayload) {
        at = this.#readHeader(bytes, at);
        continue;
      }
      const take = Math.min(this.#remaining, bytes.length - at);
      if (take > 0 && this.#keepsPayload()) this.#keep(bytes.subarray(at, at + take));
      at += take;
      this.#remaining -= take;
      if (this.#remaining === 0) this.#finishFrame();
    }
    return this.messages - before;
  }

  /** Advances over header bytes; once the header is whole, starts the payload (and ends the frame if that is empty). */
  #readHeader(bytes: Uint8Array, start: number): number {
    let at = start;
    while (at < bytes.length) {
      this.#header[this.#headerHave++] = bytes[at++] ?? 0;
      if (this.#headerHave >= 2 && this.#headerHave === this.#headerLength()) {
        this.#beginPayload();
        return at;
      }
    }
    return at;
  }

  #headerLength(): number {
    const marker = (this.#header[1] ?? 0) & 0x7f;
    return marker < 126 ? 2 : marker === 126 ? 4 : LONGEST_HEADER_BYTES;
  }

  #beginPayload(): void {
    const first = this.#header[0] ?? 0;
    const second = this.#header[1] ?? 0;
    if ((second & MASKED) !== 0) throw new Error('Cannot read the reply: a server frame is masked');
    if ((first & 0x70) !== 0) throw new Error('Cannot read the reply: a reserved bit is set and no extension was agreed');
    const marker = second & 0x7f;
    const view = new DataView(this.#header.buffer);
    this.#length = marker < 126 ? marker : marker === 126 ? view.getUint16(2) : Number(view.getBigUint64(2));
    this.#opcode = first & 0x0f;
    this.#final = (first & FINAL) !== 0;
    if (this.#opcode >= OPCODES.close && (this.#length > LONGEST_CONTROL_BYTES || !this.#final)) {
      throw new Error(`Cannot read the reply: a control frame of ${this.#length} bytes, ${LONGEST_CONTROL_BYTES} unfragmented are allowed`);
    }
    this.#remaining = this.#length;
    this.#headerHave = 0;
    this.#inPayload = true;
    if (this.#onCaptured !== null && (this.#opcode === OPCODES.binary || this.#opcode === OPCODES.text)) this.#capture = [];
    if (this.#remaining === 0) this.#finishFrame();
  }

  #keepsPayload(): boolean {
    return this.#opcode >= OPCODES.close || this.#capture !== null;
  }

  #keep(part: Uint8Array): void {
    if (this.#opcode >= OPCODES.close) this.#control.set(part, this.#length - this.#remaining);
    else this.#capture?.push(part.slice());
  }

  #finishFrame(): void {
    this.#inPayload = false;
    if (this.#opcode >= OPCODES.close) {
      this.onControl?.(this.#opcode, this.#control.slice(0, this.#length));
      return;
    }
    this.payloadBytes += this.#length;
    if (!this.#final) return;
    this.messages += 1;
    if (this.#capture === null) return;
    const receive = this.#onCaptured;
    const whole = new Uint8Array(Buffer.concat(this.#capture));
    this.#capture = null;
    this.#onCaptured = null;
    receive?.(whole);
  }
}
