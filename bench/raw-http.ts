import { openSocket, RawConnection, RequestRing, type PipelinedConnection, type ReplyReader, type SocketAddress } from './raw-client.ts';

/** The HTTP/1.1 twin of raw-client.ts: keep-alive, prebuilt requests, replies counted by Content-Length. */

/** Longest response head; Fastify's and the agent's are under 400 bytes. */
const LONGEST_HEAD_BYTES = 16 * 1024;

const HEAD_END = Buffer.from('\r\n\r\n');
const EMPTY = Buffer.alloc(0);

/** Counts complete responses in any pieces. Only what the peers send: a status line, headers and a Content-Length. */
export class HttpResponseReader implements ReplyReader {
  responses = 0;
  #head: Buffer = EMPTY;
  #bodyLeft = 0;
  #body: Uint8Array[] | null = null;
  #receive: ((body: Uint8Array) => void) | null = null;

  /** Calls `receive` once with a copy of the body of the next response that starts after this call. */
  captureNext(receive: (body: Uint8Array) => void): void {
    this.#receive = receive;
  }

  /**
   * Returns how many responses became complete.
   * @throws Error on a status other than 200 or a response without Content-Length
   */
  feed(bytes: Uint8Array): number {
    const before = this.responses;
    let rest = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    while (rest.length > 0) rest = this.#bodyLeft > 0 ? this.#readBody(rest) : this.#readHead(rest);
    return this.responses - before;
  }

  #readBody(bytes: Buffer): Buffer {
    const take = Math.min(this.#bodyLeft, bytes.length);
    this.#body?.push(new Uint8Array(bytes.subarray(0, take)));
    this.#bodyLeft -= take;
    if (this.#bodyLeft === 0) this.#finish();
    return bytes.subarray(take);
  }

  #readHead(bytes: Buffer): Buffer {
    const whole = this.#head.length === 0 ? bytes : Buffer.concat([this.#head, bytes]);
    const end = whole.indexOf(HEAD_END);
    if (end < 0) {
      if (whole.length > LONGEST_HEAD_BYTES) throw new Error(`Cannot read the response: its head exceeds ${LONGEST_HEAD_BYTES} bytes`);
      // A copy, because the read buffer is reused.
      this.#head = Buffer.from(whole);
      return EMPTY;
    }
    this.#head = EMPTY;
    const head = whole.toString('latin1', 0, end);
    const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
    if (!head.startsWith('HTTP/1.1 200')) throw new Error(`Cannot go on: the server answered '${head.slice(0, head.indexOf('\r\n'))}'`);
    if (length === undefined) throw new Error('Cannot read the response: it has no Content-Length');
    this.#bodyLeft = Number(length);
    this.#body = this.#receive === null ? null : [];
    if (this.#bodyLeft === 0) this.#finish();
    return whole.subarray(end + HEAD_END.length);
  }

  #finish(): void {
    this.responses += 1;
    if (this.#body === null) return;
    const receive = this.#receive;
    const body = new Uint8Array(Buffer.concat(this.#body));
    this.#receive = null;
    this.#body = null;
    receive?.(body);
  }
}

export interface HttpTarget extends SocketAddress {
  /** Whole requests of equal length, head and body. */
  readonly requests: readonly Uint8Array[];
}

/** One keep-alive connection. HTTP clients of today do not pipeline, so callers keep one request in flight on it. */
export async function openHttp(target: HttpTarget): Promise<PipelinedConnection> {
  const reader = new HttpResponseReader();
  const ring = new RequestRing(target.requests);
  let connection: RawConnection | null = null;
  const socket = await openSocket(target, (bytes) => connection?.receive(bytes));
  connection = new RawConnection(socket, reader, ring);
  return connection;
}
