import { expect, test } from 'vitest';
import { formatCell, renderTable } from '../../bench/table.ts';

const column = { key: 'value', label: 'value', digits: 1, suffix: 'x' };

test('formatCell() writes digits, thousands and the unit', () => {
  expect(formatCell(1234567.25, column)).toBe('1,234,567.3x');
  expect(formatCell(-1234.5, { key: 'a', label: 'a' })).toBe('-1,235');
  expect(formatCell(999.95, { key: 'a', label: 'a', digits: 2 })).toBe('999.95');
});

test('formatCell() writes a dash where nothing was measured, never a 0', () => {
  expect(formatCell(null, column)).toBe('-');
  expect(formatCell(undefined, column)).toBe('-');
  expect(formatCell(0, column)).toBe('0.0x');
});

test('renderTable() aligns the first column left and numbers right, with notes below', () => {
  const text = renderTable({
    title: 'title',
    columns: [{ key: 'name', label: 'name' }, column],
    rows: [{ name: 'a', value: 1 }, { name: 'long name', value: 1000 }, { name: 'b' }],
    notes: ['a note'],
  });
  expect(text.split('\n')).toEqual([
    'title',
    'name          value',
    '---------  --------',
    'a              1.0x',
    'long name  1,000.0x',
    'b                 -',
    '  a note',
  ]);
});
