import type { DurationStatistic, InferenceServices, ModelDescription, ModelStatistics, TensorDescription } from './services.ts';

/** The extensions of the protocol that this door has, by the names Triton gave them. */
const EXTENSIONS = ['binary_tensor_data', 'model_repository', 'statistics'] as const;

/** There is no response cache; clients of the statistics extension expect its counters. */
const NEVER: DurationStatistic = { count: 0, totalNanos: 0 };

/** $metadata_server_response. */
export function serverMetadata({ name, version }: InferenceServices['software']): unknown {
  return { name, version, extensions: EXTENSIONS };
}

/** $metadata_model_response, with `properties` where the model has some. */
export function modelMetadata(model: ModelDescription): unknown {
  const { name, versions, platform, properties } = model;
  const inputs = model.inputs.map(tensorMetadata);
  const outputs = model.outputs.map(tensorMetadata);
  return { name, versions, platform, inputs, outputs, ...(properties === undefined ? {} : { properties }) };
}

function tensorMetadata({ name, datatype, shape }: TensorDescription): unknown {
  return { name, datatype, shape };
}

/** $repository_index_response: one entry per version, or one without a version for a model that has none yet. */
export function repositoryIndex(models: readonly ModelDescription[], isReadyOnly: boolean): unknown {
  return models
    .filter((model) => model.isReady || !isReadyOnly)
    .flatMap(({ name, versions, isReady }) => {
      const state = isReady ? { state: 'READY', reason: '' } : { state: 'UNAVAILABLE', reason: 'not ready' };
      return versions.length === 0 ? [{ name, ...state }] : versions.map((version) => ({ name, version, ...state }));
    });
}

/** $stats_model_response of the statistics extension. */
export function statisticsJson(statistics: readonly ModelStatistics[]): unknown {
  return { model_stats: statistics.map(modelStatistics) };
}

function modelStatistics(model: ModelStatistics): unknown {
  return {
    name: model.name,
    version: model.version,
    last_inference: model.lastInferenceMillis,
    inference_count: model.inferenceCount,
    execution_count: model.executionCount,
    inference_stats: {
      success: duration(model.success),
      fail: duration(model.fail),
      queue: duration(model.queue),
      compute_input: duration(model.computeInput),
      compute_infer: duration(model.computeInfer),
      compute_output: duration(model.computeOutput),
      cache_hit: duration(NEVER),
      cache_miss: duration(NEVER),
    },
    batch_stats: model.batches.map((batch) => ({
      batch_size: batch.batchSize,
      compute_input: duration(batch.computeInput),
      compute_infer: duration(batch.computeInfer),
      compute_output: duration(batch.computeOutput),
    })),
  };
}

function duration({ count, totalNanos }: DurationStatistic): unknown {
  return { count, ns: totalNanos };
}
