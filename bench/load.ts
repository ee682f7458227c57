import { fromBase64, toBase64, type Answer, type Endpoint, type Job, type LoadJob, type LoadResult } from './load-jobs.ts';
import { runClosedLoop, runOpenLoop, sampleReply } from './load-pipelined.ts';
import { openWebSocket, type PipelinedConnection } from './raw-client.ts';
import { openHttp } from './raw-http.ts';

/** The load process: takes one job after the other from its parent and answers each. It exits with its parent. */

type RawEndpoint = Extract<Endpoint, { transport: 'websocket' | 'http' }>;

async function open(endpoint: RawEndpoint): Promise<PipelinedConnection> {
  if (endpoint.transport === 'http') return openHttp({ ...endpoint, requests: endpoint.requests.map(fromBase64) });
  return openWebSocket({
    ...endpoint,
    greeting: endpoint.greeting === null ? null : fromBase64(endpoint.greeting),
    payloads: endpoint.payloads.map(fromBase64),
  });
}

async function runRaw(job: LoadJob, endpoint: RawEndpoint): Promise<LoadResult> {
  const connections: PipelinedConnection[] = [];
  try {
    for (let index = 0; index < job.pace.connections; index++) connections.push(await open(endpoint));
    const [first] = connections;
    if (first === undefined) throw new Error('Cannot load: 0 connections were asked for, 1 or more are allowed');
    const reply = toBase64(await sampleReply(first));
    const result =
      job.pace.kind === 'closed' ? await runClosedLoop(connections, job.pace.inFlight, job) : await runOpenLoop(connections, job.pace, job);
    return { ...result, reply };
  } finally {
    for (const connection of connections) connection.close();
  }
}

/** gRPC, autocannon and ONNX Runtime load only where they are used: their code must not slow the raw client down. */
async function run(job: Job): Promise<LoadResult> {
  if (job.task === 'compute') return (await import('./load-compute.ts')).runCompute(job);
  const { endpoint, pace } = job;
  if (endpoint.transport === 'websocket' || endpoint.transport === 'http') return runRaw(job, endpoint);
  if (pace.kind === 'open') throw new Error(`Cannot run an open loop over ${endpoint.transport}: only raw connections do`);
  if (endpoint.transport === 'grpc') return (await import('./load-grpc.ts')).runGrpc(endpoint, pace.inFlight, job);
  return (await import('./load-autocannon.ts')).runAutocannon(endpoint, pace.inFlight, job);
}

function reply(answer: Answer): void {
  process.send?.(answer);
}

process.on('message', (job: Job) => {
  run(job).then(
    (result) => reply({ ok: true, result }),
    (thrown: unknown) => reply({ ok: false, message: thrown instanceof Error ? thrown.message : String(thrown) }),
  );
});
process.on('disconnect', () => process.exit(0));
