import type { ClientEnvironment, ClientSocket } from '../../protocol/client-link.ts';
import { decodeClientFrame, encodeFrame } from '../../protocol/codec.ts';
import type { ClientFrame, ServerFrame } from '../../protocol/frames.ts';
import { GOLDEN_FRAMES } from './golden-frames.ts';

/** The frame of the golden table with this name. */
export function golden<Kind extends (ClientFrame | ServerFrame)['kind']>(
  name: string,
  kind: Kind,
): Extract<ClientFrame | ServerFrame, { kind: Kind }> {
  const frame = GOLDEN_FRAMES.find((one) => one.name === name)?.frame;
  if (frame?.kind !== kind) throw new Error(`no golden frame '${name}' of kind ${kind}`);
  return frame as Extract<ClientFrame | ServerFrame, { kind: Kind }>;
}

/** The agent's end of one connection: what the client sent, and a way to answer. */
export class FakeSocket implements ClientSocket {
  binaryType = 'blob';
  bufferedAmount = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly received: ClientFrame[] = [];
  readonly url: string;
  readonly subprotocol: string;
  closedWith: number | null = null;

  constructor(url: string, subprotocol: string) {
    this.url = url;
    this.subprotocol = subprotocol;
  }

  send(bytes: Uint8Array): void {
    this.received.push(decodeClientFrame(Uint8Array.from(bytes)));
  }

  close(code?: number): void {
    this.closedWith = code ?? 1005;
  }

  accept(): void {
    this.onopen?.({} as never);
  }

  answer(frame: ServerFrame): void {
    this.answerRaw(Uint8Array.from(encodeFrame(frame)).buffer);
  }

  answerRaw(data: unknown): void {
    this.onmessage?.({ data } as never);
  }

  fail(code = 1006, reason = ''): void {
    this.onerror?.({} as never);
    this.onclose?.({ code, reason } as never);
  }
}

/** Time that passes only when told to, and sockets that a test plays the agent of. */
export class FakeWorld {
  nowMillis = 0;
  random = 0.5;
  refusesSockets = false;
  readonly sockets: FakeSocket[] = [];
  readonly #timers = new Set<{ at: number; task: () => void }>();

  readonly environment: ClientEnvironment = {
    now: () => this.nowMillis,
    random: () => this.random,
    schedule: (task, delayMillis) => {
      const timer = { at: this.nowMillis + delayMillis, task };
      this.#timers.add(timer);
      return () => {
        this.#timers.delete(timer);
      };
    },
    openSocket: (url, subprotocol) => {
      if (this.refusesSockets) throw new SyntaxError('no such address');
      const socket = new FakeSocket(url, subprotocol);
      this.sockets.push(socket);
      return socket;
    },
  };

  get timers(): number {
    return this.#timers.size;
  }

  get socket(): FakeSocket {
    const last = this.sockets.at(-1);
    if (last === undefined) throw new Error('no socket was opened');
    return last;
  }

  advance(millis: number): void {
    const end = this.nowMillis + millis;
    for (;;) {
      const due = [...this.#timers].filter((timer) => timer.at <= end).sort((one, other) => one.at - other.at)[0];
      if (due === undefined) break;
      this.#timers.delete(due);
      this.nowMillis = due.at;
      due.task();
    }
    this.nowMillis = end;
  }

  /** Plays the agent up to the welcome. */
  welcome(limits: Partial<{ maxFrameBytes: number; maxInFlight: number; defaultDeadlineMicros: number }> = {}): FakeSocket {
    const frame = golden('welcome', 2);
    this.socket.accept();
    this.socket.answer({ ...frame, limits: { ...frame.limits, ...limits } });
    return this.socket;
  }
}
