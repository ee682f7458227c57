import { assert, SetpointError } from '../../protocol/errors.ts';
import { parseInferenceRequest, parseOptionalObject, type InferenceRequest } from './infer-request.ts';
import { inferenceReply } from './infer-response.ts';
import { modelMetadata, repositoryIndex, serverMetadata, statisticsJson } from './metadata.ts';
import { targetOf, type InferTarget, type ModelTarget, type RepositoryTarget, type ServerTarget, type Target } from './paths.ts';
import { errorReply, errorText, found, jsonReply } from './replies.ts';
import { flag, readParameters } from './request-parameters.ts';
import type { HttpReply, HttpRequest, InferenceResult, InferenceServices, ModelDescription } from './services.ts';

const METRICS_HEADERS: HttpReply['headers'] = [['Content-Type', 'text/plain; version=0.0.4; charset=utf-8']];

type Respond = (reply: HttpReply) => void;

/**
 * Answers one request of the Open Inference Protocol. Calls `respond` exactly once: during the call, or later for infer,
 * load and unload. Never throws for anything that a request holds; a defect of the agent becomes a 500.
 */
export function route(request: HttpRequest, services: InferenceServices, respond: Respond): void {
  const respondFor: Respond = request.method === 'HEAD' ? (reply) => respond({ ...reply, body: '' }) : respond;
  const target = attempt(() => allowedTarget(request));
  if ('status' in target) {
    respondFor(target);
  } else if (target.kind === 'infer') {
    infer(target, request, services, respondFor);
  } else if (target.kind === 'repository') {
    changeRepository(target, request, services, respondFor);
  } else {
    respondFor(attempt(() => (target.kind === 'server' ? SERVER_REPLIES[target.asks](services, request) : modelReply(target, services))));
  }
}

/** What `make` returns, or the reply to what it throws. */
function attempt<Value>(make: () => Value): Value | HttpReply {
  try {
    return make();
  } catch (thrown) {
    return errorReply(thrown);
  }
}

/** The target of the request, or the 405 reply when its method is wrong. */
function allowedTarget(request: HttpRequest): Target | HttpReply {
  const target = targetOf(request.path);
  if (target === null) {
    throw new SetpointError('not_found', `Cannot find ${found(request.path)}: this agent has no such path`, { field: 'path' });
  }
  const allowed = methodsOf(target);
  if (allowed.includes(request.method)) {
    return target;
  }
  const names = allowed.join(', ');
  const error = new SetpointError(
    'method_not_allowed',
    `Cannot answer ${found(request.path)}: its method is wrong: value found is ${found(request.method)}, ${names} is allowed`,
    { field: 'method' },
  );
  const reply = errorReply(error);
  return { ...reply, headers: [...reply.headers, ['Allow', names]] };
}

function methodsOf(target: Target): readonly string[] {
  const isPost = target.kind === 'infer' || target.kind === 'repository' || (target.kind === 'server' && target.asks === 'index');
  return isPost ? ['POST'] : ['GET', 'HEAD'];
}

const SERVER_REPLIES: Readonly<Record<ServerTarget['asks'], (services: InferenceServices, request: HttpRequest) => HttpReply>> = {
  metadata: (services) => jsonReply(200, serverMetadata(services.software)),
  live: (services) => health(services.isLive(), { live: services.isLive() }, 'Cannot serve: the agent is not live'),
  ready: (services) => {
    const state = { live: services.isLive(), ready: services.isReady(), detail: services.readinessDetail() };
    return health(state.ready, state, 'Cannot serve every model: the agent is not ready');
  },
  statistics: (services) => jsonReply(200, statisticsJson(services.statistics(null))),
  index: (services, request) => {
    const isReadyOnly = flag('ready', parseOptionalObject(request.body)['ready']) ?? false;
    return jsonReply(200, repositoryIndex(services.models(), isReadyOnly));
  },
  metrics: (services) => ({ status: 200, headers: METRICS_HEADERS, body: services.metricsText() }),
};

function modelReply(target: ModelTarget, services: InferenceServices): HttpReply {
  const model = describedModel(target, services);
  const { name, isReady } = model;
  if (target.asks === 'metadata') {
    return jsonReply(200, modelMetadata(model));
  }
  if (target.asks === 'ready') {
    return health(isReady, { name, ready: isReady }, `Cannot serve model ${found(name)}: it is not ready`);
  }
  const all = services.statistics(name);
  return jsonReply(200, statisticsJson(target.version === null ? all : all.filter((one) => one.version === target.version)));
}

/** 200 with the state, or 503 with the state and an error. */
function health(isWell: boolean, state: object, message: string): HttpReply {
  if (isWell) {
    return jsonReply(200, state);
  }
  const error = new SetpointError('not_ready', message, { remedy: 'wait until it is ready and try again' });
  return jsonReply(error.status, { ...state, error: errorText(error) });
}

/** @throws SetpointError unknown_slot or unknown_version */
/** A slot without a bundle declares no tensors: nothing in the request can be judged, and the same request may do later. */
function rejectAbsence({ name, versions }: ModelDescription): void {
  if (versions.length > 0) return;
  throw new SetpointError('not_ready', `Cannot infer: slot ${found(name)} has no active bundle`, { field: 'model' });
}

function describedModel(
  target: { readonly model: string; readonly version: string | null },
  services: InferenceServices,
): ModelDescription {
  const model = services.model(target.model);
  if (model === undefined) {
    throw new SetpointError('unknown_slot', `Cannot find model ${found(target.model)}: no slot has this name`, {
      field: 'model',
      remedy: 'use a name that POST /v2/repository/index lists',
    });
  }
  if (target.version !== null && !model.versions.includes(target.version)) {
    throw new SetpointError(
      'unknown_version',
      `Cannot find this version of model ${found(target.model)}: value found is ${found(target.version)}, ${model.versions.map(found).join(', ') || 'none'} is allowed`,
      { field: 'version' },
    );
  }
  return model;
}

function infer(target: InferTarget, request: HttpRequest, services: InferenceServices, respond: Respond): void {
  const parsed = attempt(() => {
    const description = describedModel(target, services);
    rejectAbsence(description);
    rejectEncoding(request);
    return parseInferenceRequest(request.body, request.headers('inference-header-content-length'), description);
  });
  if ('status' in parsed) {
    respond(parsed);
    return;
  }
  runInference(target, parsed, services, respond);
}

function runInference(target: InferTarget, parsed: InferenceRequest, services: InferenceServices, respond: Respond): void {
  const { model, version } = target;
  const { inputs, deadlineMicros, context, lastApplied } = parsed;
  const outputs = parsed.outputs === null ? null : parsed.outputs.map((output) => output.name);
  let isAnswered = false;
  const done = (outcome: InferenceResult | SetpointError): void => {
    assert(!isAnswered, 'infer answers once');
    isAnswered = true;
    respond(outcome instanceof SetpointError ? errorReply(outcome) : attempt(() => inferenceReply(parsed, model, outcome)));
  };
  try {
    services.infer({ model, version, inputs, outputs, deadlineMicros, context, lastApplied }, done);
  } catch (thrown) {
    if (isAnswered) {
      throw thrown;
    }
    isAnswered = true;
    respond(errorReply(thrown));
  }
}

function changeRepository(target: RepositoryTarget, request: HttpRequest, services: InferenceServices, respond: Respond): void {
  changedRepository(target, request, services).then(
    () => respond(jsonReply(200, {})),
    (thrown: unknown) => respond(errorReply(thrown)),
  );
}

async function changedRepository({ asks, model }: RepositoryTarget, request: HttpRequest, services: InferenceServices): Promise<void> {
  rejectStranger(request);
  const parameters = readParameters(parseOptionalObject(request.body)['parameters'], 'parameters');
  if (asks === 'unload') {
    flag('unload_dependents', parameters['unload_dependents']);
    await services.unload(model);
    return;
  }
  const override = Object.keys(parameters).find((name) => name === 'config' || name.startsWith('file:'));
  if (override !== undefined) {
    throw new SetpointError(
      'unsupported',
      `Cannot load a model from a request: only signed bundles are loaded: parameter found is ${found(override)}`,
      {
        field: override,
        remedy: 'publish a bundle instead',
      },
    );
  }
  await services.load(model);
}

/**
 * Only a process on this machine may load and unload, and no web page: a browser on the equipment's own computer can reach
 * a loopback port on behalf of any site, and names that site in Origin.
 */
function rejectStranger(request: HttpRequest): void {
  if (!request.isLoopback || request.headers('origin') !== '') {
    throw new SetpointError('forbidden', 'Cannot change the repository: only programs on the machine of the agent may', {
      field: 'address',
      remedy: 'send the request on the machine of the agent to a loopback address, without an Origin header',
    });
  }
}

function rejectEncoding(request: HttpRequest): void {
  const encoding = request.headers('content-encoding');
  if (encoding !== '' && encoding !== 'identity') {
    throw new SetpointError(
      'unsupported',
      `Cannot read a compressed body: Content-Encoding found is ${found(encoding)}, identity is allowed`,
      {
        field: 'Content-Encoding',
        remedy: 'send the body without compression',
      },
    );
  }
}
