import { found, invalidField } from './replies.ts';

/** What a path addresses. */
export type Target = ServerTarget | ModelTarget | InferTarget | RepositoryTarget;

export interface ServerTarget {
  readonly kind: 'server';
  readonly asks: 'metadata' | 'live' | 'ready' | 'metrics' | 'statistics' | 'index';
}

export interface ModelTarget {
  readonly kind: 'model';
  readonly asks: 'metadata' | 'ready' | 'statistics';
  readonly model: string;
  /** Null for the active one. */
  readonly version: string | null;
}

export interface InferTarget {
  readonly kind: 'infer';
  readonly model: string;
  /** Null for the active one. */
  readonly version: string | null;
}

export interface RepositoryTarget {
  readonly kind: 'repository';
  readonly asks: 'load' | 'unload';
  readonly model: string;
}

const FIXED: ReadonlyMap<string, ServerTarget['asks']> = new Map([
  ['/v2', 'metadata'],
  ['/v2/health/live', 'live'],
  ['/v2/health/ready', 'ready'],
  ['/v2/models/stats', 'statistics'],
  ['/v2/repository/index', 'index'],
  ['/metrics', 'metrics'],
]);

const MODEL_ENDINGS: ReadonlyMap<string, 'infer' | 'ready' | 'statistics'> = new Map([
  ['infer', 'infer'],
  ['ready', 'ready'],
  ['stats', 'statistics'],
]);

const MODELS = '/v2/models/';
const REPOSITORY = '/v2/repository/models/';
const LOAD = '/load';
const UNLOAD = '/unload';

/**
 * The target of a raw path, null for a path that this door does not have. One trailing slash is ignored.
 *
 * A model name may be written with plain slashes or percent-encoded. What is fixed is cut off the end: first `/infer`, `/ready`
 * or `/stats`, then `/versions/V`; the rest is the name. The endings are compared before decoding, so a name that itself ends
 * like one is written with %2F: `a%2Fready`.
 * @throws SetpointError invalid_field for broken percent-encoding
 */
export function targetOf(path: string): Target | null {
  const trimmed = path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
  const fixed = FIXED.get(trimmed);
  if (fixed !== undefined) {
    return { kind: 'server', asks: fixed };
  }
  if (trimmed.startsWith(MODELS)) {
    return modelTarget(trimmed.slice(MODELS.length));
  }
  return trimmed.startsWith(REPOSITORY) ? repositoryTarget(trimmed.slice(REPOSITORY.length)) : null;
}

function modelTarget(rest: string): Target | null {
  const segments = rest.split('/');
  const ending = segments.length > 1 ? MODEL_ENDINGS.get(segments.at(-1) ?? '') : undefined;
  if (ending !== undefined) {
    segments.pop();
  }
  let version: string | null = null;
  if (segments.length > 2 && segments.at(-2) === 'versions') {
    version = decoded(segments.pop() ?? '');
    segments.pop();
  }
  const model = decoded(segments.join('/'));
  if (model === '') {
    return null;
  }
  return ending === 'infer' ? { kind: 'infer', model, version } : { kind: 'model', asks: ending ?? 'metadata', model, version };
}

function repositoryTarget(rest: string): Target | null {
  const asks = rest.endsWith(UNLOAD) ? 'unload' : rest.endsWith(LOAD) ? 'load' : null;
  if (asks === null) {
    return null;
  }
  const model = decoded(rest.slice(0, -asks.length - 1));
  return model === '' ? null : { kind: 'repository', asks, model };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalidField('path', `Cannot read the path: its percent-encoding is broken: value found is ${found(text)}, UTF-8 is allowed`);
  }
}
