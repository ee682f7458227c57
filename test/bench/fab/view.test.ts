import { describe, expect, test } from 'vitest';
import { count, duration, renderLine, renderView, type ViewSnapshot } from '../../../bench/fab/view.ts';

const snapshot: ViewSnapshot = {
  agent: 'agent at http://127.0.0.1:7433',
  elapsedMillis: 65_432,
  lines: [
    {
      slot: 'thickness/cmp-1/product-x',
      perSecond: 74.8,
      roundTrip: { count: 700, p50Micros: 121, p99Micros: 480, p999Micros: 12_345 },
      actions: { model: 4800, clamped: 31, fallback: 12, local: 0 },
      observations: 968,
      controlError: 1.6789,
      valueUnit: 'nm',
      settings: [61.234, 59.5],
      settingUnit: 's',
    },
    {
      slot: 'cd/scanner-b/product-x',
      perSecond: 0,
      roundTrip: { count: 0, p50Micros: 0, p99Micros: 0, p999Micros: 0 },
      actions: { model: 0, clamped: 0, fallback: 0, local: 2 },
      observations: 0,
      controlError: null,
      valueUnit: 'nm',
      settings: [28],
      settingUnit: 'mJ/cm2',
    },
  ],
  service: { count: 4843, p50Micros: 18, p99Micros: 44, p999Micros: 210 },
  alerts: [
    { atMillis: 1000, text: 'CMP-1/PLATEN-1 fallback: input_not_finite', times: 3 },
    { atMillis: 61_000, text: 'CMP-1/PLATEN-2 maintenance: wear reset, process shifted', times: 1 },
  ],
};

describe('renderView()', () => {
  test('shows every slot, the service time and the alerts, newest first', () => {
    expect(renderView(snapshot, 140).split('\n')).toEqual([
      'Setpoint  agent at http://127.0.0.1:7433  01:05  4,845 predictions  968 measurements',
      '',
      'slot                          per s     p50     p99   p99.9    model clamped fallback local off target  settings',
      'thickness/cmp-1/product-x        75  121 us  480 us 12.3 ms    4,800      31       12     0    1.68 nm  61.23 59.50 s',
      'cd/scanner-b/product-x            0       -       -       -        0       0        0     2          -  28.00 mJ/cm2',
      '',
      "The agent's own service time: p50 18 us, p99 44 us, p99.9 210 us",
      '',
      'Alerts, newest first',
      '  01:01  CMP-1/PLATEN-2 maintenance: wear reset, process shifted',
      '  00:01  CMP-1/PLATEN-1 fallback: input_not_finite  (3 times)',
      '',
      'Ctrl-C stops',
    ]);
  });

  test.each([20, 40, 80])('never writes a line longer than %i columns', (columns) => {
    const lengths = renderView(snapshot, columns)
      .split('\n')
      .map((line) => line.length);
    expect(Math.max(...lengths)).toBe(columns);
  });

  test('says what it does not know yet', () => {
    const text = renderView({ ...snapshot, service: null, alerts: [] }, 140);
    expect(text).toContain("The agent's own service time is not known yet");
    expect(text).toContain('No alerts yet');
  });
});

test('renderLine() puts the same facts into one line', () => {
  expect(renderLine(snapshot)).toBe(
    '01:05 4,845 predictions, 75/s, round trip p99 480 us, service p99 44 us, model 4,800 clamped 31 fallback 12 local 2',
  );
});

test('duration() changes to milliseconds at 10 ms, and count() groups digits', () => {
  expect([duration(9999), duration(10_000), duration(Infinity), count(999), count(1000), count(1_234_567)]).toEqual([
    '9999 us',
    '10.0 ms',
    'off scale',
    '999',
    '1,000',
    '1,234,567',
  ]);
});
