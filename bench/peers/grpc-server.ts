import { type sendUnaryData, Server, ServerCredentials, type ServerUnaryCall } from '@grpc/grpc-js';
import { bytesMethod } from '../grpc-method.ts';
import { announcePort } from '../server-process.ts';
import { modelOfArguments } from './model.ts';

/** gRPC, unary: the message is the float32 bytes of the features, the reply one float32. No protobuf to encode or decode. */
const model = await modelOfArguments();

function predict(call: ServerUnaryCall<Buffer, Buffer>, reply: sendUnaryData<Buffer>): void {
  // A copy, because the bytes need not start at a multiple of 4.
  const values = new Float32Array(new Uint8Array(call.request).buffer, 0, model.featureCount);
  model.predict(values).then(
    (prediction) => {
      const bytes = Buffer.alloc(4);
      bytes.writeFloatLE(prediction);
      reply(null, bytes);
    },
    (cause: unknown) => reply(cause instanceof Error ? cause : new Error(String(cause))),
  );
}

const server = new Server();
server.addService({ predict: bytesMethod }, { predict });
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  announcePort(port);
});
