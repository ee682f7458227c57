import { createServer, type AddressInfo, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { WebSocketServer } from 'ws';
import { openWebSocket, RequestRing, UpgradeReader } from '../../bench/raw-client.ts';
import { HttpResponseReader } from '../../bench/raw-http.ts';

const cleanups: (() => void)[] = [];
afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});

describe('RequestRing', () => {
  const ring = () => new RequestRing([Uint8Array.of(1, 1), Uint8Array.of(2, 2), Uint8Array.of(3, 3)]);

  test('gives requests in turn, over the end as well', () => {
    const requests = ring();
    expect([...requests.take(2)]).toEqual([1, 1, 2, 2]);
    expect([...requests.take(3)]).toEqual([3, 3, 1, 1, 2, 2]);
    expect([...requests.take(1)]).toEqual([3, 3]);
  });

  test('refuses requests of different lengths, which would be cut wrong', () => {
    expect(() => new RequestRing([Uint8Array.of(1), Uint8Array.of(1, 2)])).toThrow('differ in length');
    expect(() => new RequestRing([])).toThrow('no request');
  });
});

describe('UpgradeReader', () => {
  const response = Buffer.from('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x82\x01\x07', 'latin1');

  test('keeps the bytes that came after the response', async () => {
    const reader = new UpgradeReader();
    reader.feed(response);
    expect([...(await reader.done)]).toEqual([0x82, 0x01, 0x07]);
  });

  test('reads the response one byte at a time', async () => {
    const reader = new UpgradeReader();
    let upgrades = 0;
    reader.onUpgraded = () => {
      upgrades += 1;
    };
    const headBytes = response.length - 3;
    for (const byte of response.subarray(0, headBytes - 1)) reader.feed(Uint8Array.of(byte));
    expect(upgrades).toBe(0);
    reader.feed(response.subarray(headBytes - 1, headBytes));
    expect(upgrades).toBe(1);
    expect(await reader.done).toHaveLength(0);
  });

  test('fails with the status line when the server refuses', async () => {
    const reader = new UpgradeReader();
    reader.feed(Buffer.from('HTTP/1.1 404 Not Found\r\n\r\n'));
    await expect(reader.done).rejects.toThrow("the server answered 'HTTP/1.1 404 Not Found'");
  });
});

describe('HttpResponseReader', () => {
  const stream = Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhelloHTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n');

  test('counts responses in one piece and byte by byte alike', () => {
    expect(new HttpResponseReader().feed(stream)).toBe(2);
    const reader = new HttpResponseReader();
    for (const byte of stream) reader.feed(Uint8Array.of(byte));
    expect(reader.responses).toBe(2);
  });

  test('captures a body that arrives in pieces', () => {
    const reader = new HttpResponseReader();
    const bodies: string[] = [];
    reader.captureNext((body) => bodies.push(Buffer.from(body).toString()));
    for (const byte of stream) reader.feed(Uint8Array.of(byte));
    expect(bodies).toEqual(['hello']);
  });

  test('refuses an error status, which must not be timed as an answer', () => {
    expect(() => new HttpResponseReader().feed(Buffer.from('HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n'))).toThrow('HTTP/1.1 503 Busy');
  });
});

describe('openWebSocket()', () => {
  async function echoServer(greeting: boolean): Promise<{ port: number; protocols: string[] }> {
    const protocols: string[] = [];
    const server = new WebSocketServer({
      host: '127.0.0.1',
      port: 0,
      handleProtocols: (offered) => [...offered][0] ?? false,
    });
    cleanups.push(() => server.close());
    server.on('connection', (socket) => {
      protocols.push(socket.protocol);
      // A frame in the same packet as the response to the upgrade, as a fast server may send it.
      if (greeting) socket.send('welcome');
      socket.on('message', (message: Buffer) => socket.send(message));
    });
    await new Promise((listening) => server.once('listening', listening));
    return { port: (server.address() as AddressInfo).port, protocols };
  }

  test('upgrades with the sub-protocol, greets, pipelines and gets every reply back', async () => {
    const { port, protocols } = await echoServer(false);
    const connection = await openWebSocket({
      host: '127.0.0.1',
      port,
      path: '/',
      subprotocol: 'setpoint.v1',
      greeting: Uint8Array.of(9),
      payloads: [Uint8Array.of(1, 1), Uint8Array.of(2, 2)],
    });
    cleanups.push(() => connection.close());
    expect(protocols).toEqual(['setpoint.v1']);

    const captured = connection.captureReply();
    connection.send(1);
    expect([...(await captured)]).toEqual([1, 1]);

    let replies = 0;
    await new Promise<void>((done) => {
      connection.onReplies = (count) => {
        replies += count;
        if (replies === 7) done();
      };
      connection.send(7);
    });
    expect(replies).toBe(7);
  });

  test('fails the run with the reason when the server closes', async () => {
    const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
    cleanups.push(() => server.close());
    server.on('connection', (socket) => socket.on('message', () => socket.close(1008, 'too many bad frames')));
    await new Promise((listening) => server.once('listening', listening));
    const { port } = server.address() as AddressInfo;
    const target = { host: '127.0.0.1', port, path: '/', subprotocol: null, greeting: null, payloads: [Uint8Array.of(1)] };
    const connection = await openWebSocket(target);
    const failure = new Promise<Error>((fail) => {
      connection.onFailure = fail;
    });
    connection.send(1);
    expect((await failure).message).toContain('1008 too many bad frames');
  });

  test('rejects when the server hangs up during the upgrade', async () => {
    const server = createServer((socket: Socket) => socket.destroy());
    cleanups.push(() => server.close());
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    const { port } = server.address() as AddressInfo;
    const target = { host: '127.0.0.1', port, path: '/', subprotocol: null, greeting: null, payloads: [Uint8Array.of(1)] };
    await expect(openWebSocket(target)).rejects.toThrow();
  });
});
