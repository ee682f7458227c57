import { App, us_socket_local_port } from 'uWebSockets.js';
import { announcePort } from './server-process.ts';

/** The floor: what the same socket library costs when nothing is done with the bytes but to send them back. */

/** Room for 1,024 requests in flight, so that the floor never drops a message that the load generator waits for. */
const BACKPRESSURE_BYTES = 16 * 1024 * 1024;

App()
  .ws('/*', {
    maxPayloadLength: 1024 * 1024,
    maxBackpressure: BACKPRESSURE_BYTES,
    message: (socket, message, isBinary) => {
      socket.send(message, isBinary);
    },
  })
  .listen('127.0.0.1', 0, (token) => {
    if (token === false) throw new Error('Cannot listen on 127.0.0.1');
    announcePort(us_socket_local_port(token));
  });
