import { describe, expect, test } from 'vitest';
import { AlertLog, LineStatistics, merged } from '../../../bench/fab/statistics.ts';

describe('LineStatistics', () => {
  test('counts actions, and times only what the agent answered', () => {
    const line = new LineStatistics();
    line.answered('model', 100, 1000);
    line.answered('clamped', 200, 1001);
    line.answered('fallback', 300, 1002);
    line.answered('local', 40_000, 1003);
    expect(line.actions).toEqual({ model: 1, clamped: 1, fallback: 1, local: 1 });
    expect(line.predictions).toBe(4);
    expect(line.recent(2000)).toMatchObject({ count: 3, p50Micros: 200, p99Micros: 300 });
  });

  test('forgets in recent() what is older than 10 s, and in the total nothing', () => {
    const line = new LineStatistics();
    for (let second = 0; second < 20; second++) line.answered('model', second < 10 ? 1000 : 50, 1000 * (second + 1));
    expect(line.recent(20_500)).toMatchObject({ p50Micros: 50, p999Micros: 50 });
    expect(merged([line])).toMatchObject({ count: 20, p99Micros: 1000 });
  });

  test('gives the rate of the last seconds', () => {
    const line = new LineStatistics();
    for (let tick = 0; tick < 2000; tick++) line.answered('model', 100, 1000 + tick * 10);
    expect(line.recent(21_000).perSecond).toBeCloseTo(100, -1);
  });

  test('follows the distance from the target whatever its sign', () => {
    const line = new LineStatistics();
    line.processed(-4);
    expect(line.controlError).toBe(4);
    for (let run = 0; run < 1000; run++) line.processed(run % 2 === 0 ? 1 : -1);
    expect(line.controlError).toBeCloseTo(1, 2);
  });
});

describe('AlertLog', () => {
  test('counts an alert that repeats and keeps the newest eight', () => {
    const log = new AlertLog();
    for (let at = 0; at < 10; at++) log.add(`alert ${at}`, at);
    log.add('alert 5', 99);
    expect(log.list().map((alert) => alert.text)).toEqual([2, 3, 4, 6, 7, 8, 9, 5].map((at) => `alert ${at}`));
    expect(log.list().at(-1)).toEqual({ atMillis: 99, text: 'alert 5', times: 2 });
  });
});
