import { SetpointError } from '../../protocol/errors.ts';
import { errorReply, jsonReply } from '../http/replies.ts';
import type { HttpReply, HttpRequest } from '../http/services.ts';
import { serviceTime, sumFine, type ThreadMetrics } from './metrics.ts';

const PATH = '/debug/service-time';

/**
 * Service-time percentiles at 3 % resolution, for benches: GET gives those since the last POST to .../reset. From
 * loopback only. Returns whether the request was one of these.
 */
export function debugRoute(threads: readonly ThreadMetrics[]): (request: HttpRequest, respond: (reply: HttpReply) => void) => boolean {
  let since: Float64Array | null = null;
  return (request, respond) => {
    if (!request.path.startsWith(PATH)) return false;
    if (!request.isLoopback) respond(errorReply(new SetpointError('forbidden', 'Cannot answer: debug paths are for loopback addresses')));
    else if (request.path === PATH && request.method === 'GET') respond(jsonReply(200, serviceTime(threads, since)));
    else if (request.path === `${PATH}/reset` && request.method === 'POST') {
      since = sumFine(threads);
      respond(jsonReply(200, {}));
    } else respond(errorReply(new SetpointError('not_found', `Cannot find ${request.path}`)));
    return true;
  };
}
