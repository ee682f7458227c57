import { connect, type Socket } from 'node:net';
import { SetpointError } from '../../protocol/errors.ts';
import { encodeMessage, type HeavyResult, MessageReader } from './heavy-messages.ts';
import type { OrtTensors } from './session.ts';

/** A run that was handed to the heavy process. Exactly one of the callbacks is called, once. */
export interface HeavyCall {
  readonly onResult: (outputs: OrtTensors) => void;
  /** invalid_field: the model threw. not_ready: the process died, or there is none. `isCrash` when it died during the run. */
  readonly onFailure: (error: SetpointError, isCrash: boolean) => void;
}

/** A serving thread's end of the heavy lane: bounded, and never waiting for a process that is not there. */
export class HeavyLane {
  readonly #limit: number;
  readonly #calls = new Map<number, HeavyCall>();
  #socket: Socket | null = null;
  #isConnected = false;
  #nextId = 1;
  /** Bundles that are being loaded while the heavy process starts. */
  readonly #connectedWaiters: (() => void)[] = [];

  /** @param limit runs in flight and waiting; more are refused */
  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Resolves when connected, at once if that is so already. */
  async ready(): Promise<void> {
    while (!this.#isConnected) {
      await new Promise<void>((resolve) => {
        this.#connectedWaiters.push(resolve);
      });
    }
  }

  get isFull(): boolean {
    return this.#calls.size >= this.#limit;
  }

  get inFlight(): number {
    return this.#calls.size;
  }

  /** Connects to a heavy process that is listening, in place of one that is gone. */
  connect(socketPath: string): void {
    this.close();
    const socket = connect(socketPath);
    const reader = new MessageReader<HeavyResult>((result) => this.#settle(result));
    this.#socket = socket;
    socket.on('connect', () => {
      this.#isConnected = true;
      for (const resolve of this.#connectedWaiters.splice(0)) resolve();
    });
    socket.on('data', (chunk) => reader.push(chunk));
    socket.on('error', () => socket.destroy());
    socket.on('close', () => {
      if (this.#socket === socket) this.#lose();
    });
  }

  run(bundleId: string, directory: string, feeds: OrtTensors, call: HeavyCall): void {
    if (this.#socket === null || !this.#isConnected) {
      call.onFailure(new SetpointError('not_ready', 'Cannot run the model: the heavy process is not running'), false);
      return;
    }
    const id = this.#nextId++;
    const message = encodeMessage({ id, bundleId, directory, feeds });
    this.#calls.set(id, call);
    this.#socket.write(message);
  }

  close(): void {
    const socket = this.#socket;
    this.#lose();
    socket?.destroy();
  }

  #settle(result: HeavyResult): void {
    const call = this.#calls.get(result.id);
    this.#calls.delete(result.id);
    if (call === undefined) return;
    if ('outputs' in result) call.onResult(result.outputs);
    else call.onFailure(new SetpointError('invalid_field', `Cannot run the model: ${result.error}`, { field: 'features' }), false);
  }

  #lose(): void {
    this.#socket = null;
    this.#isConnected = false;
    const lost = [...this.#calls.values()];
    this.#calls.clear();
    for (const call of lost)
      call.onFailure(new SetpointError('not_ready', 'Cannot run the model: the heavy process ended meanwhile'), true);
  }
}
