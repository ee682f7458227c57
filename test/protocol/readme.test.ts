import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CONTEXT_FIELDS, FRAME_KINDS, OUTCOMES, REASONS, type Reason } from '../../protocol/frames.ts';
import { DATATYPE_NAMES } from '../../protocol/datatype.ts';
import { ERROR_CODES, type ErrorCode } from '../../protocol/errors.ts';
import * as limits from '../../protocol/limits.ts';
import { GOLDEN_FRAMES } from './golden-frames.ts';

const README = readFileSync(new URL('../../protocol/README.md', import.meta.url), 'utf8');

const LIMITS = new Map<string, unknown>(Object.entries(limits));

/** The cells of the table rows between two headings. */
function rows(heading: string): string[][] {
  const section = README.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0] ?? '';
  const lines = section.split('\n').filter((line) => line.startsWith('| '));
  return lines.slice(1).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim().replaceAll('`', '')),
  );
}

test('the hexadecimal examples are the golden bytes, and every kind of frame has one', () => {
  const examples = [...README.matchAll(/<!-- golden: (.*) -->\n```text\n([^`]*)```/g)];
  const kinds = examples.map(([, name, text]) => {
    const hex = (text ?? '').replaceAll(/#.*/g, '').replaceAll(/\s/g, '');
    const golden = GOLDEN_FRAMES.find((one) => one.name === name);
    expect(hex, name).toBe(Buffer.from(golden?.bytes ?? []).toString('hex'));
    return golden?.frame.kind;
  });
  expect(new Set(kinds)).toEqual(new Set(Object.values(FRAME_KINDS)));
});

test('the table of reasons gives every bit', () => {
  const table = rows('Reasons').map(([bit, value, name]) => [name, Number(bit), Number(value)]);
  expect(table).toEqual((Object.keys(REASONS) as Reason[]).map((name) => [name, Math.log2(REASONS[name]), REASONS[name]]));
});

test('the table of errors agrees with errors.ts', () => {
  const table = rows('Errors');
  expect(table.length).toBeGreaterThan(10);
  for (const [code, retryable, , remedy] of table) {
    expect(Object.keys(ERROR_CODES)).toContain(code);
    const known = ERROR_CODES[code as ErrorCode];
    expect([code, retryable, remedy]).toEqual([code, known.retryable ? 'yes' : 'no', known.remedy]);
  }
});

test('the table of limits agrees with limits.ts', () => {
  const table = rows('Limits');
  expect(table.length).toBe(10);
  for (const [, value, name] of table) {
    expect([name, Number.parseInt((value ?? '').replaceAll(',', ''), 10)]).toEqual([name, LIMITS.get(name ?? '')]);
  }
});

test('the tables of context, outcomes and datatypes are complete and in order', () => {
  expect(rows('Context').map(([position, name]) => [Number(position), name])).toEqual(CONTEXT_FIELDS.map((name, index) => [index, name]));
  const places = OUTCOMES.map((outcome, index) => README.indexOf(`| ${index} | \`${outcome}\` |`));
  expect(places.every((place) => place > 0)).toBe(true);
  for (const datatype of DATATYPE_NAMES) expect(README).toContain(`\`${datatype}\``);
});
