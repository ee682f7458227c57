const asIs = (bytes: Buffer): Buffer => bytes;

/** A unary method whose messages are bytes: no protobuf on either side, which favours the gRPC peer. */
export const bytesMethod = {
  path: '/setpoint.bench.Peer/Predict',
  requestStream: false,
  responseStream: false,
  requestSerialize: asIs,
  requestDeserialize: asIs,
  responseSerialize: asIs,
  responseDeserialize: asIs,
} as const;
