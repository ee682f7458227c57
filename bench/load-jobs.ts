/** What the bench asks of the load process and what it gets back. Bytes travel as base64, because the channel is JSON. */

export type Endpoint =
  | {
      readonly transport: 'websocket';
      readonly host: string;
      readonly port: number;
      readonly path: string;
      readonly subprotocol: string | null;
      readonly greeting: string | null;
      readonly payloads: readonly string[];
    }
  | { readonly transport: 'http'; readonly host: string; readonly port: number; readonly requests: readonly string[] }
  | {
      readonly transport: 'autocannon';
      readonly url: string;
      readonly headers: Readonly<Record<string, string>>;
      readonly body: string;
    }
  | { readonly transport: 'grpc'; readonly address: string; readonly payload: string };

/** Closed: a reply makes room for the next request. Open: requests are due at a constant rate, replies or not. */
export type Pace =
  | { readonly kind: 'closed'; readonly inFlight: number; readonly connections: number }
  | {
      readonly kind: 'open';
      readonly ratePerSecond: number;
      readonly connections: number;
      /** Sleep between looks at the clock; 0 looks in every turn of the event loop, which takes a whole core. */
      readonly tickMillis: number;
    };

export interface LoadJob {
  readonly task: 'load';
  readonly endpoint: Endpoint;
  readonly pace: Pace;
  readonly warmupMillis: number;
  readonly durationMillis: number;
  /** Processes of the server under test, whose processor time is taken over the measured interval. */
  readonly serverPids: readonly number[];
}

/** Runs the model alone, in this process, as often as the time allows. */
export interface ComputeJob {
  readonly task: 'compute';
  readonly modelFile: string;
  readonly inputName: string;
  readonly featureCount: number;
  readonly durationMillis: number;
  /** Time the processor sleeps before each run; 0 runs in a loop. */
  readonly pauseMillis: number;
}

export type Job = LoadJob | ComputeJob;

export interface Latency {
  readonly p50: number;
  readonly p90: number;
  readonly p99: number;
  readonly p999: number;
  readonly max: number;
}

export interface LoadResult {
  /** Replies inside the measured interval. */
  readonly replies: number;
  readonly seconds: number;
  readonly ratePerSecond: number;
  /** Requests due in the interval that had no answer when the run gave up waiting; they count as that late. */
  readonly unanswered: number;
  /** Null where the client does not measure it finely enough (autocannon: whole milliseconds). */
  readonly latencyMicros: Latency | null;
  /** How late requests left after they were due; open loop only. */
  readonly sendLagMicros: Latency | null;
  /** Processor time / elapsed time; 1 is one core. */
  readonly loadShare: number;
  /** Null where the platform has no /proc. */
  readonly serverShare: number | null;
  /** Payload of one reply, taken before the measurement, base64; null where the client does not show it. */
  readonly reply: string | null;
}

export type Answer = { readonly ok: true; readonly result: LoadResult } | { readonly ok: false; readonly message: string };

export function toBase64(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64');
}

export function fromBase64(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'base64'));
}
