import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SUBPROTOCOL } from '../protocol/limits.ts';
import { type AgentProcess, type AgentSettings, startAgent } from './agent-server.ts';
import { FEATURE_COUNT, type Variant, VARIANTS, writeBenchBundle } from './bench-bundle.ts';
import { type Endpoint, fromBase64, toBase64 } from './load-jobs.ts';
import { LoadProcesses, type ServerProcess, startServer } from './processes.ts';
import { CORES, pin } from './processor-pin.ts';
import {
  agentPrediction,
  binaryTensorPrediction,
  checkPrediction,
  grpcPrediction,
  jsonPrediction,
  type ReadPrediction,
  webSocketPeerPrediction,
} from './replies.ts';
import {
  binaryTensorRequest,
  grpcPeerPayload,
  helloPayload,
  httpBytes,
  type HttpRequest,
  jsonRequest,
  predictPayloads,
  webSocketPeerPayloads,
} from './requests.ts';

/** Everything a bench can measure, started for one run and stopped after it. */

const HOST = '127.0.0.1';

export interface Contender {
  readonly name: string;
  readonly endpoint: Endpoint;
  /** The server's main process; its descendants count for processor time. */
  readonly pid: number;
  /** Null for the floor, whose reply is the request. */
  readonly predictionOf: ReadPrediction | null;
  /** Waits for work that the server puts off, after each measurement. */
  readonly settle?: () => Promise<void>;
}

export const NAMES = {
  floor: 'floor: uWS echo',
  agent: 'agent',
  agentAvm: 'agent, AVM',
  webSocketPeer: 'ws + msgpackr',
  httpPeer: 'Fastify JSON',
  httpPeerAutocannon: 'Fastify JSON (autocannon)',
  grpcPeer: 'gRPC',
  agentHttp: 'agent HTTP door',
  agentHttpAutocannon: 'agent HTTP door (autocannon)',
} as const;

export class Arena {
  readonly load: LoadProcesses;
  readonly folder: string = mkdtempSync(join(tmpdir(), 'setpoint-bench-'));
  readonly #isPinned: boolean;
  readonly #models = new Map<Variant, string>();
  readonly #servers: ServerProcess[] = [];

  /** @param isPinned whether servers get one core and clients another */
  constructor(isPinned: boolean) {
    this.#isPinned = isPinned;
    this.load = new LoadProcesses(isPinned);
  }

  /** Path of the model file, after its bundle was written once. */
  model(variant: Variant): string {
    const known = this.#models.get(variant);
    if (known !== undefined) return known;
    const file = writeBenchBundle(join(this.folder, variant), variant);
    this.#models.set(variant, file);
    return file;
  }

  async startFloor(): Promise<Contender> {
    const server = await this.#start('floor-server.ts');
    return {
      name: NAMES.floor,
      pid: server.pid,
      endpoint: webSocket(server.port, { payloads: predictPayloads(slotOf('mlp')), subprotocol: null, greeting: null }),
      predictionOf: null,
    };
  }

  /**
   * @param name of the contender with the MLP; also of the folder, so every agent of a run needs its own
   * @param settings configuration beside the bench's own
   */
  async startAgent(name: string = NAMES.agent, settings: AgentSettings = {}): Promise<AgentContenders> {
    for (const variant of VARIANTS) this.model(variant);
    const slots = Object.fromEntries(VARIANTS.map((variant) => [slotOf(variant), join(this.folder, variant)]));
    const process = await startAgent({ folder: join(this.folder, name.replaceAll(/\W+/g, '-')), slots, settings });
    this.#adopt(process);
    const { settle } = process;
    return {
      process,
      mlp: agentContender(name, process, 'mlp'),
      avm: agentContender(NAMES.agentAvm, process, 'avm'),
      http: { ...httpContender(NAMES.agentHttp, process, binaryTensorRequest(slotOf('mlp')), binaryTensorPrediction), settle },
      httpAutocannon: { ...autocannonContender(NAMES.agentHttpAutocannon, process, binaryTensorRequest(slotOf('mlp'))), settle },
    };
  }

  async startPeers(): Promise<Contender[]> {
    const args = [this.model('mlp'), String(FEATURE_COUNT)];
    const webSocketPeer = await this.#start('peers/ws-server.ts', args);
    const httpPeer = await this.#start('peers/fastify-server.ts', args);
    const grpcPeer = await this.#start('peers/grpc-server.ts', args);
    return [
      {
        name: NAMES.webSocketPeer,
        pid: webSocketPeer.pid,
        endpoint: webSocket(webSocketPeer.port, { payloads: webSocketPeerPayloads(), subprotocol: null, greeting: null }),
        predictionOf: webSocketPeerPrediction,
      },
      httpContender(NAMES.httpPeer, httpPeer, jsonRequest(), jsonPrediction),
      autocannonContender(NAMES.httpPeerAutocannon, httpPeer, jsonRequest()),
      {
        name: NAMES.grpcPeer,
        pid: grpcPeer.pid,
        endpoint: { transport: 'grpc', address: `${HOST}:${grpcPeer.port}`, payload: toBase64(grpcPeerPayload()) },
        predictionOf: grpcPrediction,
      },
    ];
  }

  async stop(): Promise<void> {
    await this.load.stop();
    await Promise.all(this.#servers.map((server) => server.stop()));
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #start(file: string, args: readonly string[] = []): Promise<ServerProcess> {
    const server = await startServer(file, args);
    this.#adopt(server);
    return server;
  }

  #adopt(server: ServerProcess): void {
    this.#servers.push(server);
    if (this.#isPinned) pin(server.pid, CORES.server);
  }
}

export interface AgentContenders {
  readonly process: AgentProcess;
  readonly mlp: Contender;
  readonly avm: Contender;
  readonly http: Contender;
  readonly httpAutocannon: Contender;
}

function slotOf(variant: Variant): string {
  return `bench/${variant}`;
}

function webSocket(
  port: number,
  given: { readonly payloads: readonly Uint8Array[]; readonly subprotocol: string | null; readonly greeting: Uint8Array | null },
): Endpoint {
  return {
    transport: 'websocket',
    host: HOST,
    port,
    path: '/',
    subprotocol: given.subprotocol,
    greeting: given.greeting === null ? null : toBase64(given.greeting),
    payloads: given.payloads.map(toBase64),
  };
}

function agentContender(name: string, { pid, port, settle }: AgentProcess, variant: Variant): Contender {
  const payloads = predictPayloads(slotOf(variant));
  return {
    name,
    pid,
    settle,
    endpoint: webSocket(port, { payloads, subprotocol: SUBPROTOCOL, greeting: helloPayload() }),
    predictionOf: agentPrediction,
  };
}

function httpContender(name: string, { pid, port }: ServerProcess, request: HttpRequest, predictionOf: ReadPrediction): Contender {
  return { name, pid, endpoint: { transport: 'http', host: HOST, port, requests: [toBase64(httpBytes(request))] }, predictionOf };
}

function autocannonContender(name: string, { pid, port }: ServerProcess, { path, headers, body }: HttpRequest): Contender {
  const endpoint = { transport: 'autocannon', url: `http://${HOST}:${port}${path}`, headers, body: toBase64(body) } as const;
  return { name, pid, endpoint, predictionOf: null };
}

/** @throws Error when the reply is not the answer that this bench means to time */
export function checkReply({ name, endpoint, predictionOf }: Contender, reply: string | null): void {
  if (reply === null) return;
  const bytes = fromBase64(reply);
  if (predictionOf !== null) checkPrediction(name, predictionOf(bytes));
  else if (endpoint.transport === 'websocket' && endpoint.payloads[0] !== reply) throw new Error(`Cannot use the floor: its echo differs`);
}
