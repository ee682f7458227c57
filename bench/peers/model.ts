import { InferenceSession, Tensor } from 'onnxruntime-node';

/**
 * The model as a peer would run it today: onnxruntime-node's public API, one prediction a request. The session options
 * are the agent's, because the default thread pool would make the peers slower and the comparison cheap.
 */
export interface PeerModel {
  readonly featureCount: number;
  predict(features: Float32Array): Promise<number>;
}

const SESSION_OPTIONS = {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  logSeverityLevel: 3,
  extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
} as const;

/** @param file an ONNX model with one float32 input [N, features] and its prediction as first output */
async function loadPeerModel(file: string, featureCount: number): Promise<PeerModel> {
  const session = await InferenceSession.create(file, SESSION_OPTIONS);
  const [input] = session.inputNames;
  const [output] = session.outputNames;
  if (input === undefined || output === undefined) throw new Error(`Cannot serve ${file}: it has no input or no output`);
  return {
    featureCount,
    async predict(features) {
      const outputs = await session.run({ [input]: new Tensor('float32', features, [1, featureCount]) });
      return Number(outputs[output]?.data[0]);
    },
  };
}

/** The model that bench/servers.ts names on the command line of every peer. */
export async function modelOfArguments(): Promise<PeerModel> {
  const [file, featureCount] = process.argv.slice(2);
  if (file === undefined || featureCount === undefined) throw new Error('Cannot start: a model file and its feature count are needed');
  return loadPeerModel(file, Number(featureCount));
}
