import { createRequire } from 'node:module';
import type { Datatype } from '../../protocol/datatype.ts';
import { DATATYPE_BY_CODE } from '../bundles/onnx-types.ts';
import { messageOf, SetpointError } from '../../protocol/errors.ts';

/**
 * The one door to onnxruntime-node.
 *
 * The public `session.run` is a blocking call behind a `setImmediate` and a promise; the native call underneath is the
 * same one without the detour (2.5 us and one turn of the event loop less). It is private to the package, so the version
 * is pinned and its shape is checked here once: another version fails at start with a clear message, never in service.
 */

export type TensorData =
  | Float32Array
  | Float64Array
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array
  | string[];

/** A tensor as ONNX Runtime takes and gives it. `dims` has no free dimension. float16 data is Uint16Array, bool Uint8Array. */
export interface OrtTensor {
  readonly type: string;
  readonly data: TensorData;
  readonly dims: readonly number[];
  readonly location: 'cpu';
}

export type OrtTensors = Record<string, OrtTensor>;

/** An input or output as the model declares it; -1 is a free dimension, null a type that is not a tensor. */
export interface DeclaredTensor {
  readonly name: string;
  readonly datatype: Datatype | null;
  readonly shape: readonly number[];
}

export interface ExternalFile {
  readonly path: string;
  readonly data: Uint8Array;
}

export interface Session {
  readonly inputs: readonly DeclaredTensor[];
  readonly outputs: readonly DeclaredTensor[];
  /**
   * Runs the model now, on this OS thread, and returns the outputs named by the keys of `fetches`.
   * It cannot be interrupted. Throws what ONNX Runtime says when feeds do not fit.
   */
  run(feeds: OrtTensors, fetches: Readonly<Record<string, null>>): OrtTensors;
  release(): void;
}

interface NativeSession {
  loadModel(buffer: ArrayBuffer, offset: number, length: number, options: object): void;
  run(feeds: OrtTensors, fetches: Readonly<Record<string, null>>, options: object): OrtTensors;
  dispose(): void;
  readonly inputMetadata: readonly NativeMetadata[];
  readonly outputMetadata: readonly NativeMetadata[];
}

interface NativeMetadata {
  readonly name: string;
  readonly isTensor: boolean;
  readonly type: number;
  readonly shape: readonly number[];
}

interface NativeBinding {
  readonly binding: { readonly InferenceSession: new () => NativeSession };
  initOrt(): void;
}

/** Spinning threads would burn the core that the sockets need; one thread a run is fastest for models of this size. */
const SESSION_OPTIONS = {
  executionProviders: ['cpu'],
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: 'sequential',
  graphOptimizationLevel: 'all',
  enableCpuMemArena: true,
  enableMemPattern: true,
  logSeverityLevel: 3,
  extra: { session: { intra_op: { allow_spinning: '0' }, inter_op: { allow_spinning: '0' } } },
} as const;

const RUN_OPTIONS = {};

export const ENGINE = 'onnxruntime-node 1.30.0';

let native: NativeBinding | null = null;

function loadNative(): NativeBinding {
  if (native !== null) return native;
  if (process.env['ORT_DISABLE_TELEMETRY'] !== '1') {
    throw new SetpointError(
      'internal',
      'Cannot load ONNX Runtime: ORT_DISABLE_TELEMETRY must be 1 in the environment of the process before it loads',
    );
  }
  let loaded: Partial<NativeBinding>;
  try {
    loaded = createRequire(import.meta.url)('onnxruntime-node/dist/binding.js') as Partial<NativeBinding>;
  } catch (cause) {
    throw new SetpointError('internal', `Cannot load ${ENGINE}: ${messageOf(cause)}`, {
      remedy: 'run npm ci on a supported platform (glibc >= 2.28 on Linux)',
      cause,
    });
  }
  if (typeof loaded.initOrt !== 'function' || typeof loaded.binding?.InferenceSession !== 'function') {
    throw new SetpointError('internal', `Cannot use onnxruntime-node: its binding is not that of ${ENGINE}`, {
      remedy: 'run npm ci to get the pinned version',
    });
  }
  native = loaded as NativeBinding;
  native.initOrt();
  return native;
}

/**
 * Loads a model from bytes; external data only from the bytes given with it, never from the file system.
 * Blocks this OS thread for 1 to 60 ms.
 * @throws SetpointError invalid_bundle with ONNX Runtime's reason
 */
export function openSession(model: Uint8Array, externalData: readonly ExternalFile[] = []): Session {
  const session = new (loadNative().binding.InferenceSession)();
  // The binding takes an ArrayBuffer; a copy keeps a pooled Buffer's neighbours out of it.
  const bytes = new Uint8Array(model);
  const options = externalData.length === 0 ? SESSION_OPTIONS : { ...SESSION_OPTIONS, externalData };
  try {
    session.loadModel(bytes.buffer, 0, bytes.byteLength, options);
  } catch (cause) {
    throw new SetpointError('invalid_bundle', `Cannot load the model: ${messageOf(cause)}`, { cause });
  }
  return new LoadedSession(session);
}

class LoadedSession implements Session {
  readonly inputs: readonly DeclaredTensor[];
  readonly outputs: readonly DeclaredTensor[];
  readonly #native: NativeSession;
  #released = false;

  constructor(session: NativeSession) {
    this.#native = session;
    this.inputs = session.inputMetadata.map(declared);
    this.outputs = session.outputMetadata.map(declared);
  }

  run(feeds: OrtTensors, fetches: Readonly<Record<string, null>>): OrtTensors {
    return this.#native.run(feeds, fetches, RUN_OPTIONS);
  }

  release(): void {
    // A second dispose throws in the binding.
    if (this.#released) return;
    this.#released = true;
    this.#native.dispose();
  }
}

function declared(metadata: NativeMetadata): DeclaredTensor {
  return {
    name: metadata.name,
    datatype: metadata.isTensor ? (DATATYPE_BY_CODE[metadata.type] ?? null) : null,
    shape: metadata.isTensor ? [...metadata.shape] : [],
  };
}
