import type { AddressInfo } from 'node:net';
import { pack, unpack } from 'msgpackr';
import { type WebSocket, WebSocketServer } from 'ws';
import { announcePort } from '../server-process.ts';
import { modelOfArguments } from './model.ts';

/** `ws` with msgpackr maps {id, features: float32 bytes} -> {id, prediction}. Features as bytes, the faster of its two ways. */
const model = await modelOfArguments();

interface Request {
  readonly id: number;
  readonly features: Uint8Array;
}

async function answer(socket: WebSocket, message: Buffer): Promise<void> {
  const { id, features } = unpack(message) as Request;
  // A copy, because the bytes need not start at a multiple of 4.
  const values = new Float32Array(new Uint8Array(features).buffer, 0, model.featureCount);
  socket.send(pack({ id, prediction: await model.predict(values) }));
}

const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
server.on('connection', (socket) => {
  socket.on('message', (message: Buffer) => {
    answer(socket, message).catch((cause: unknown) => socket.close(1011, cause instanceof Error ? cause.message.slice(0, 100) : 'failed'));
  });
});
server.on('listening', () => announcePort((server.address() as AddressInfo).port));
