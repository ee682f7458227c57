import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { createLog, formatLine } from '../../agent/log.ts';

const TIME = new Date('2026-11-22T20:30:41.007Z');

describe('formatLine()', () => {
  test('gives time, level, event and pairs in one line', () => {
    expect(formatLine(TIME, 'info', 'listening', { port: 7433, ready: true, slot: null })).toBe(
      '2026-11-22T20:30:41.007Z info  listening port=7433 ready=true slot=-',
    );
    expect(formatLine(TIME, 'error', 'bundle refused', {})).toBe('2026-11-22T20:30:41.007Z error bundle refused');
  });

  test.each([
    ['a plain text', 'cd/scanner-a', 'cd/scanner-a'],
    ['an empty text', '', '""'],
    ['a space', 'a b', '"a b"'],
    ['a quotation mark', 'a"b', String.raw`"a\"b"`],
    ['an equals sign', 'a=b', '"a=b"'],
    ['a new line', 'a\n2026 error fake', String.raw`"a\n2026 error fake"`],
    ['an escape sequence', '\u001b[2J', String.raw`"\u001b[2J"`],
    ['a control character of eight bits', '\u009b2J', String.raw`"\u009b2J"`],
    ['a deletion', 'a\u007f', String.raw`"a\u007f"`],
    ['a line separator', 'a\u2028b', String.raw`"a\u2028b"`],
    ['another alphabet', '웨이퍼', '웨이퍼'],
  ])('writes %s so that it can be read back', (_name, value, written) => {
    expect(formatLine(TIME, 'warn', 'event', { value })).toBe(`2026-11-22T20:30:41.007Z warn  event value=${written}`);
  });

  test('is one line without control characters, and its value can be read back, whatever the value', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (value) => {
        const line = formatLine(TIME, 'info', 'event', { value });
        expect(line).not.toMatch(/[\p{Cc}\u2028\u2029]/u);
        const written = line.slice(line.indexOf('value=') + 6);
        expect(written.startsWith('"') ? (JSON.parse(written) as string) : written).toBe(value);
      }),
    );
  });
});

test('createLog() writes one finished line an event, at the time of the event', () => {
  const lines: string[] = [];
  let millis = 0;
  const log = createLog(
    (line) => lines.push(line),
    () => new Date(millis),
  );
  log('info', 'one');
  millis = 1500;
  log('error', 'two', { why: 'it broke' });
  expect(lines).toEqual(['1970-01-01T00:00:00.000Z info  one\n', '1970-01-01T00:00:01.500Z error two why="it broke"\n']);
});
