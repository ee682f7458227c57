import { describe, expect, test } from 'vitest';
import { runOpenLoop, Schedule, SendTimes } from '../../bench/load-pipelined.ts';
import type { PipelinedConnection } from '../../bench/raw-client.ts';

describe('SendTimes', () => {
  test('gives every reply the time of the write that carried its request', () => {
    const times = new SendTimes();
    const told: [number, number][] = [];
    const tell = (micros: number, count: number): void => void told.push([micros, count]);
    times.push(100, 3);
    times.push(200, 2);
    times.take(2, tell);
    times.take(3, tell);
    expect(told).toEqual([
      [100, 2],
      [100, 1],
      [200, 2],
    ]);
  });

  test('fails on a reply to nothing, which would be a counting error', () => {
    expect(() => new SendTimes().take(1, () => {})).toThrow('nothing is in flight');
  });

  test('goes round its ring without mixing up times', () => {
    const times = new SendTimes();
    for (let index = 0; index < 5000; index++) {
      times.push(index, 1);
      times.take(1, (micros) => expect(micros).toBe(index));
    }
  });

  test('holds 1,024 unanswered writes and no more', () => {
    const times = new SendTimes();
    for (let index = 0; index < 1024; index++) times.push(index, 1);
    expect(() => times.push(1024, 1)).toThrow('1024 writes are unanswered');
  });
});

describe('Schedule', () => {
  test('request j is due at start + j intervals, whenever it is sent', () => {
    const schedule = new Schedule(1000, 200);
    expect([0, 1, 5].map((request) => schedule.dueMicros(request))).toEqual([1000, 1200, 2000]);
  });

  test('after a stall all that fell due meanwhile is due at once, with its own due times', () => {
    const schedule = new Schedule(0, 200);
    expect(schedule.dueBy(0, 1e6)).toBe(1);
    schedule.sent = 1;
    expect(schedule.dueBy(199, 1e6)).toBe(0);
    expect(schedule.dueBy(1000, 1e6)).toBe(5);
    expect(schedule.dueMicros(schedule.sent)).toBe(200);
  });

  test('before its start and after the end nothing is due', () => {
    const schedule = new Schedule(500, 200);
    expect(schedule.dueBy(499, 1e6)).toBe(0);
    schedule.sent = 0;
    // Due at 500, 700 and 900; the one at 1100 is past the end.
    expect(schedule.dueBy(5000, 1000)).toBe(3);
    schedule.sent = 3;
    expect(schedule.dueBy(9000, 1000)).toBe(0);
  });

  test('a constant rate sends exactly rate x time requests', () => {
    const schedule = new Schedule(0, 200);
    for (let now = 0; now < 1.1e6; now += 37) schedule.sent += schedule.dueBy(now, 1e6);
    expect(schedule.sent).toBe(5000);
  });
});

describe('runOpenLoop()', () => {
  /** A server that answers everything in the next turn. */
  function fastConnection(): { connection: PipelinedConnection; sends: number[] } {
    const sends: number[] = [];
    const connection: PipelinedConnection = {
      onReplies: () => {},
      onFailure: () => {},
      send: (count) => {
        sends.push(count);
        setImmediate(() => connection.onReplies(count));
      },
      captureReply: () => Promise.resolve(new Uint8Array()),
      close: () => {},
    };
    return { connection, sends };
  }

  test.each([0, 5])('sends exactly rate x time requests, with %d ms between looks at the clock', async (tickMillis) => {
    const { connection, sends } = fastConnection();
    const pace = { kind: 'open', ratePerSecond: 1000, connections: 1, tickMillis } as const;
    const { unanswered } = await runOpenLoop([connection], pace, { warmupMillis: 50, durationMillis: 100, serverPids: [] });
    expect(sends.reduce((sum, one) => sum + one, 0)).toBe(150);
    expect(unanswered).toBe(0);
  });

  test('shares the rate evenly among its connections', async () => {
    const ends = [fastConnection(), fastConnection(), fastConnection()];
    const pace = { kind: 'open', ratePerSecond: 3000, connections: 3, tickMillis: 1 } as const;
    const connections = ends.map(({ connection }) => connection);
    await runOpenLoop(connections, pace, { warmupMillis: 0, durationMillis: 100, serverPids: [] });
    for (const { sends } of ends) {
      // The last one of a connection is due after the end.
      expect(sends.reduce((sum, one) => sum + one, 0)).toBeGreaterThanOrEqual(99);
      expect(sends.reduce((sum, one) => sum + one, 0)).toBeLessThanOrEqual(100);
    }
  });

  test('sleeping between looks at the clock sends what gathered in one write', async () => {
    const { connection, sends } = fastConnection();
    const pace = { kind: 'open', ratePerSecond: 10_000, connections: 1, tickMillis: 5 } as const;
    await runOpenLoop([connection], pace, { warmupMillis: 0, durationMillis: 100, serverPids: [] });
    // 50 requests fall due in 5 ms; a machine that is held up sends more at once, never fewer on average.
    expect(sends.length).toBeLessThanOrEqual(1000 / 25);
  });
});
