import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';
import { announcePort } from '../server-process.ts';
import { modelOfArguments } from './model.ts';
import { packReply, unpackRequest } from './ws-codec.ts';

/** `ws` with msgpackr maps {id, features: float32 bytes} -> {id, prediction}. Features as bytes, the faster of its two ways. */
const model = await modelOfArguments();

async function answer(socket: WebSocket, message: Buffer): Promise<void> {
  const { id, features } = unpackRequest(message);
  // A copy, because the bytes need not start at a multiple of 4.
  const values = new Float32Array(new Uint8Array(features).buffer, 0, model.featureCount);
  socket.send(packReply({ id, prediction: await model.predict(values) }));
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
server.on('connection', (socket) => {
  socket.on('message', (message: Buffer) => {
    answer(socket, message).catch((cause: unknown) => socket.close(1011, cause instanceof Error ? cause.message.slice(0, 100) : 'failed'));
  });
});
server.on('listening', () => announcePort((server.address() as AddressInfo).port));
