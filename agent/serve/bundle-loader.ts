import { DATATYPES, type WireTensor } from '../../protocol/datatype.ts';
import { openBundle, type Bundle } from '../bundles/bundle.ts';
import { parseGolden } from '../bundles/golden.ts';
import { SetpointError } from '../../protocol/errors.ts';
import type { HeavyLane } from '../infer/heavy-lane.ts';
import { Model } from '../infer/model.ts';
import { toFeeds } from '../infer/tensor.ts';
import type { BundleOrder } from './messages.ts';
import { ServedBundle } from './slot.ts';

/** Runs before a model answers: ONNX Runtime settles after about 10, V8's compiler after about 100. */
const WARM_UP_RUNS = 120;

/** Runs in one turn of the event loop, so that requests to other bundles are held up for less than a millisecond. */
const WARM_UP_RUNS_PER_TURN = 4;

/**
 * Loads a vetted bundle on this thread and warms it up a few runs at a time between the turns that answer requests.
 * Loading the model itself cannot be divided: it holds the thread for 1 to 60 ms, by the size of the model.
 */
export async function loadServedBundle(order: BundleOrder, lane: HeavyLane): Promise<ServedBundle> {
  const bundle = openBundle(order.directory);
  const { manifest } = bundle;
  if (order.lane === 'heavy') {
    await warmUpHeavy(order, bundle, lane);
    return new ServedBundle(bundle.bundleId, order.directory, manifest, order.isBatchable, null);
  }
  const { path, externalData } = manifest.model;
  const files = externalData.map((file) => ({ path: file, data: bundle.read(file) }));
  const bytes = bundle.read(path);
  await nextTurn();
  const model = new Model(manifest, order.isBatchable, bytes, files);
  await warmUp(model, bundle);
  return new ServedBundle(bundle.bundleId, order.directory, manifest, order.isBatchable, model);
}

/** One run in the heavy process: it has started, and its worker has loaded the model. */
async function warmUpHeavy(order: BundleOrder, bundle: Bundle, lane: HeavyLane): Promise<void> {
  const [first] = parseGolden(bundle.read(bundle.manifest.golden), bundle.manifest.golden);
  const feeds = toFeeds(first?.inputs ?? []);
  await lane.ready();
  await new Promise<void>((resolve, reject) => {
    lane.run(order.bundleId, order.directory, feeds, {
      onResult: () => resolve(),
      onFailure: (error) =>
        reject(new SetpointError('not_ready', `Cannot warm up bundle ${order.bundleId} in the heavy process: ${error.message}`)),
    });
  });
}

async function warmUp(model: Model, bundle: Bundle): Promise<void> {
  const cases = parseGolden(bundle.read(bundle.manifest.golden), bundle.manifest.golden);
  for (let run = 0; run < WARM_UP_RUNS; run++) {
    if (run % WARM_UP_RUNS_PER_TURN === 0) await nextTurn();
    const inputs = cases[run % cases.length]?.inputs ?? [];
    model.runTensors(inputs);
    warmVector(model, inputs, run);
  }
}

/** The batch sizes that a lightly and a heavily loaded thread sees. */
function warmVector(model: Model, inputs: readonly WireTensor[], run: number): void {
  const { vector, rows } = model;
  const [input] = inputs;
  if (vector === null || rows === null || input === undefined) return;
  const rowBytes = vector.featureCount * DATATYPES[input.datatype].bytes;
  const target = new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength);
  target.set(input.bytes.subarray(0, Math.min(rowBytes, target.byteLength)));
  model.runRows(run % 8 === 0 ? vector.capacityRows : 1, false);
}

function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
