import { describe, expect, test } from 'vitest';
import { bucketPercentiles, readBuckets } from '../../../bench/fab/service-time.ts';

const text = `# HELP setpoint_service_seconds Time from frame to reply
# TYPE setpoint_service_seconds histogram
setpoint_service_seconds_bucket{slot="a,b",le="1e-05"} 10
setpoint_service_seconds_bucket{slot="a,b",le="2e-05"} 90
setpoint_service_seconds_bucket{slot="a,b",le="+Inf"} 100
setpoint_service_seconds_sum{slot="a,b"} 0.002
setpoint_service_seconds_bucket{slot="c",le="1e-05"} 40
setpoint_service_seconds_bucket{slot="c",le="2e-05"} 100
setpoint_service_seconds_bucket{slot="c",le="+Inf"} 100
setpoint_other_seconds_bucket{slot="c",le="+Inf"} 7
`;

describe('readBuckets()', () => {
  test('sums the buckets of one histogram over its slots', () => {
    expect(readBuckets(text, 'setpoint_service_seconds')).toEqual([
      [1e-5, 50],
      [2e-5, 190],
      [Infinity, 200],
    ]);
  });

  test('finds nothing in a text without it', () => {
    expect(readBuckets('up 1\n', 'setpoint_service_seconds')).toEqual([]);
  });
});

describe('bucketPercentiles()', () => {
  test('is linear inside a bucket and infinite beyond the last bound', () => {
    const percentiles = bucketPercentiles(readBuckets(text, 'setpoint_service_seconds'));
    expect(percentiles!.count).toBe(200);
    expect(percentiles!.p50Micros).toBeCloseTo(10 + (10 * 50) / 140, 6);
    expect(percentiles!.p99Micros).toBe(Infinity);
  });

  test('is null without counts', () => {
    expect(bucketPercentiles([])).toBeNull();
    expect(bucketPercentiles([[Infinity, 0]])).toBeNull();
  });
});
