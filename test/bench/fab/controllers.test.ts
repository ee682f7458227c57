import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import { FabFloor } from '../../../bench/fab/controllers.ts';
import { TOOLS } from '../../../bench/fab/tools.ts';
import { decodeClientFrame, encodeFrame } from '../../../protocol/codec.ts';
import { type ClientFrame, FRAME_KINDS, type ServerFrame } from '../../../protocol/frames.ts';

const LIMITS = { maxFrameBytes: 65_536, maxInFlight: 16, defaultDeadlineMicros: 50_000 };
const BUNDLE_ID = new Uint8Array(32);

/** Plays an agent that answers every request at once: with the target value, or with the setting in force. */
function answerTo(frame: ClientFrame): ServerFrame {
  if (frame.kind === FRAME_KINDS.hello) {
    return { kind: FRAME_KINDS.welcome, version: 1, agentId: 'fake', software: 'fake', serverTimeMicros: 0, limits: LIMITS, slots: [] };
  }
  const { requestId } = frame;
  if (frame.kind === FRAME_KINDS.observe) {
    return { kind: FRAME_KINDS.observed, requestId, sequence: 1, stream: 0, outcome: 'applied', estimate: null };
  }
  const isScanner = frame.slot.startsWith('cd/');
  const empty = { rawValue: null, rawCorrection: null, ri: null, riThreshold: null, gsi: null, gsiThreshold: null, outputs: null };
  const value = isScanner ? 45 : null;
  const correction = isScanner ? null : frame.lastApplied;
  const identity = { sequence: 1, stream: 0, bundleId: BUNDLE_ID, version: '1.0.0', serverTimeMicros: 0 };
  return { kind: FRAME_KINDS.decision, requestId, action: 'model', reasons: 0, value, correction, ...identity, ...empty };
}

describe('FabFloor', () => {
  const received: ClientFrame[] = [];
  let server: WebSocketServer;
  let url = '';

  beforeAll(async () => {
    server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
    server.on('connection', (socket: WebSocket) => {
      socket.on('message', (data: Buffer) => {
        const frame = decodeClientFrame(Uint8Array.from(data));
        received.push(frame);
        socket.send(Uint8Array.from(encodeFrame(answerTo(frame))));
      });
    });
    await once(server, 'listening');
    url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  afterAll(() => {
    server.close();
  });

  test('connects a controller for every tool, plays them at the rate asked for, and stops', async () => {
    const floor = new FabFloor({ url, rate: 400, seed: 1 });
    expect(await floor.start()).toBe(true);
    await sleep(1000);
    await floor.stop();
    const asked = received.filter((frame) => frame.kind === FRAME_KINDS.predict);
    expect(new Set(asked.map((frame) => frame.slot))).toEqual(new Set(TOOLS.map((spec) => spec.slot)));
    // A busy machine may be slower than asked, never faster.
    expect(asked.length).toBeGreaterThan(100);
    expect(asked.length).toBeLessThanOrEqual(480);
    expect(received.filter((frame) => frame.kind === FRAME_KINDS.hello).length).toBe(4);
    expect(received.some((frame) => frame.kind === FRAME_KINDS.observe)).toBe(true);
    const lines = floor.viewLines();
    expect(lines.reduce((sum, line) => sum + line.actions.model, 0)).toBe(asked.length);
    const asleep = received.length;
    await sleep(50);
    expect(received.length).toBe(asleep);
  });

  test('plays on by its own fallback when there is no agent', async () => {
    const floor = new FabFloor({ url: 'ws://127.0.0.1:1', rate: 400, seed: 1, connectMillis: 200 });
    expect(await floor.start()).toBe(false);
    await sleep(300);
    await floor.stop();
    for (const line of floor.viewLines()) expect(line.actions.local).toBeGreaterThan(0);
    expect(floor.alerts.list().some((alert) => alert.text.includes('local fallback: disconnected'))).toBe(true);
  });
});
