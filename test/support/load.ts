import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { scanJournal } from '../../agent/journal/reader.ts';
import { type JournalRecord, RECORD_KINDS } from '../../agent/journal/record.ts';
import { decodeServerFrame } from '../../protocol/codec.ts';
import { type DecisionFrame, FRAME_KINDS, type PredictFrame, type ServerFrame } from '../../protocol/frames.ts';
import { asDecision, type Closing, delay, openController, predictFrame, type RawSocket } from './raw-socket.ts';

/** Several controllers that ask at once, and the journal that must know of every answer. */

export interface LoadOptions {
  readonly connections: number;
  /** Requests that each connection sends every `everyMillis`, whether the earlier ones are answered or not. */
  readonly requestsEach: number;
  readonly everyMillis: number;
  readonly frame: (requestId: number) => PredictFrame;
}

/** Request ids are unique over all loads of a test file, so that an answer names one request. */
let nextRequestId = 1;

export class Load {
  readonly decisions: DecisionFrame[] = [];
  /** Answers that are no decision. */
  readonly others: ServerFrame[] = [];
  sent = 0;
  #isStopped = false;
  readonly #options: LoadOptions;
  readonly #sockets: RawSocket[] = [];
  #running: Promise<unknown> = Promise.resolve();

  private constructor(options: LoadOptions) {
    this.#options = options;
  }

  static async start(port: number, options: LoadOptions): Promise<Load> {
    const load = new Load(options);
    for (let opened = 0; opened < options.connections; opened++) load.#sockets.push(await openController(port));
    load.#running = Promise.all(load.#sockets.map((socket) => load.#run(socket)));
    return load;
  }

  get answered(): number {
    return this.decisions.length + this.others.length;
  }

  /** Sends no more, and waits until every request is answered. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    await this.#running;
    const until = Date.now() + 20_000;
    while (this.answered < this.sent) {
      if (Date.now() > until) throw new Error(`${this.sent - this.answered} requests are not answered`);
      await delay(5);
      this.#collect();
    }
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Waits until the agent has ended every connection: how each ended, with every answer that came before. */
  async ended(): Promise<Closing[]> {
    const closings = await Promise.all(this.#sockets.map((socket) => socket.closed));
    this.#isStopped = true;
    await this.#running;
    this.#collect();
    return closings;
  }

  async #run(socket: RawSocket): Promise<void> {
    const { requestsEach, everyMillis, frame } = this.#options;
    while (!this.#isStopped && !socket.isClosed) {
      for (let request = 0; request < requestsEach; request++) {
        socket.send(frame(nextRequestId++));
        this.sent += 1;
      }
      this.#collect();
      await delay(everyMillis);
    }
  }

  #collect(): void {
    for (const socket of this.#sockets) {
      for (const frame of socket.frames.splice(0)) {
        if (frame.kind === FRAME_KINDS.decision) this.decisions.push(frame);
        else this.others.push(frame);
      }
    }
  }
}

/** Every decision in the journals of a data directory: `stream/sequence/requestId`, once for each record. */
function journaledDecisions(dataDir: string): string[] {
  const folder = join(dataDir, 'journal');
  const found: string[] = [];
  for (const name of readdirSync(folder).filter((one) => one.endsWith('.journal'))) {
    const scan = scanJournal(join(folder, name), 0, (record: JournalRecord) => {
      if (record.kind !== RECORD_KINDS.decision) return;
      const reply = asDecision(decodeServerFrame(record.reply.slice()));
      if (reply.sequence !== record.sequence) throw new Error(`record ${record.sequence} holds decision ${reply.sequence}`);
      found.push(keyOf(reply));
    });
    if (scan === null || scan.tail === 'damaged') throw new Error(`${name} is damaged`);
  }
  return found;
}

/** Answered decisions that are not in the journal exactly once. */
export function unjournaled(decisions: readonly DecisionFrame[], dataDir: string): string[] {
  const counts = new Map<string, number>();
  for (const key of journaledDecisions(dataDir)) counts.set(key, (counts.get(key) ?? 0) + 1);
  return decisions.map(keyOf).filter((key) => counts.get(key) !== 1);
}

function keyOf({ stream, sequence, requestId }: DecisionFrame): string {
  return `${stream}/${sequence}/${requestId}`;
}

/** Controllers on different serving threads, one for each of `threads`: the kernel spreads connections by chance. */
export async function openOnEveryThread(port: number, threads: number, slot: string, features: Float32Array): Promise<RawSocket[]> {
  const byStream = new Map<number, RawSocket>();
  for (let attempt = 0; attempt < 64 && byStream.size < threads; attempt++) {
    const socket = await openController(port);
    const { stream } = asDecision(await socket.ask(predictFrame(socket.nextId(), slot, features)));
    if (byStream.has(stream)) socket.destroy();
    else byStream.set(stream, socket);
  }
  if (byStream.size < threads) throw new Error(`only ${byStream.size} of ${threads} threads took connections`);
  return [...byStream.entries()].sort(([one], [other]) => one - other).map(([, socket]) => socket);
}
