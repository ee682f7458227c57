import type { Column } from './table.ts';

/** Columns that several tables share. Percentiles are medians of the rounds' percentiles. */
export const CONTENDER: Column = { key: 'contender', label: 'contender' };
export const LATENCY: readonly Column[] = [
  { key: 'p50', label: 'p50 us', digits: 1 },
  { key: 'p90', label: 'p90 us', digits: 1 },
  { key: 'p99', label: 'p99 us', digits: 1 },
  { key: 'p999', label: 'p99.9 us', digits: 1 },
  { key: 'max', label: 'max us' },
];
export const RATE: Column = { key: 'rate', label: 'per second' };
export const SHARES: readonly Column[] = [
  { key: 'serverShare', label: 'server cpu', digits: 0, suffix: '%' },
  { key: 'loadShare', label: 'client cpu', digits: 0, suffix: '%' },
];
