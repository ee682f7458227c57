import { type Client, credentials, makeGenericClientConstructor, type ServiceError } from '@grpc/grpc-js';
import { bytesMethod } from './grpc-method.ts';
import { type Endpoint, fromBase64, type LoadResult, toBase64 } from './load-jobs.ts';
import { Measurement, nowMicros, type MeasurementPlan } from './measurement.ts';

/** gRPC load with the client a user would take. Its own cost is large; the tables print its share of a core. */

export async function runGrpc(
  endpoint: Extract<Endpoint, { transport: 'grpc' }>,
  inFlight: number,
  plan: MeasurementPlan,
): Promise<LoadResult> {
  const PeerClient = makeGenericClientConstructor({ predict: bytesMethod }, 'Peer');
  const client: Client = new PeerClient(endpoint.address, credentials.createInsecure());
  const payload = Buffer.from(fromBase64(endpoint.payload));
  const { path, requestSerialize, responseDeserialize } = bytesMethod;
  const call = (done: (error: ServiceError | null, reply?: Buffer) => void): void => {
    client.makeUnaryRequest(path, requestSerialize, responseDeserialize, payload, done);
  };
  try {
    const reply = await new Promise<Buffer>((resolve, reject) => {
      call((error, bytes) => (error === null && bytes !== undefined ? resolve(bytes) : reject(error ?? new Error('an empty reply'))));
    });
    const measurement = new Measurement(plan);
    await Promise.all(Array.from({ length: inFlight }, () => callInTurn(call, measurement)));
    return measurement.result({ reply: toBase64(reply) });
  } finally {
    client.close();
  }
}

/** One caller that sends its next request when the last was answered, until the interval is over. */
function callInTurn(call: (done: (error: ServiceError | null) => void) => void, measurement: Measurement): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  function next(): void {
    const sentMicros = nowMicros();
    call((error) => {
      if (error !== null) {
        reject(error);
        return;
      }
      const now = nowMicros();
      measurement.answered(sentMicros, now, 1);
      if (measurement.advance(now)) next();
      else resolve();
    });
  }
  next();
  return promise;
}
