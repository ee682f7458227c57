import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { csvText, jsonLine, visible } from '../../../agent/audit/escape.ts';
import { CSV_HEADER, csvOf } from '../../../agent/audit/format-csv.ts';
import { jsonlOf } from '../../../agent/audit/format-jsonl.ts';
import { textOf } from '../../../agent/audit/format-text.ts';
import { reasonTexts, rowOf } from '../../../agent/audit/row.ts';
import { CONTEXT_FIELDS, REASONS } from '../../../protocol/frames.ts';
import { alertRecord, contextOf, decisionRecord, featuresOf, gapRecord, observationRecord, T0 } from './rows.ts';

const ESC = '\u001b[31m';
/** What a hostile controller might choose as a name. */
const HOSTILE = [
  '=1+1',
  '+1',
  '-2',
  '@SUM(A1)',
  '\t=1',
  '\r\n=1',
  "'",
  "'=1",
  '＝1',
  ' =1',
  'a,b',
  'a"b',
  'a;b',
  'two\nlines',
  `${ESC}red`,
  '\u009b2J',
  '\u202etxt.exe',
  '\u2028',
  '\\u001b',
  '\\',
  '\ufeffx',
  '\u0000',
  '',
];
const anyText = fc.oneof(fc.string({ unit: 'binary', maxLength: 60 }), fc.string({ maxLength: 60 }), fc.constantFrom(...HOSTILE));

const DANGEROUS = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u;

/** RFC 4180, written against the standard and not against the writer. */
function readCsv(text: string): (string | null)[][] {
  const rows: (string | null)[][] = [];
  let row: (string | null)[] = [];
  for (let at = 0; at < text.length;) {
    if (text[at] === '"') {
      let field = '';
      for (at += 1; text[at] !== '"' || text[at + 1] === '"'; at += text[at] === '"' ? 2 : 1) field += text[at];
      row.push(field);
      at += 1;
    } else {
      const end = at + text.slice(at).search(/,|\r\n/);
      row.push(end === at ? null : text.slice(at, end));
      at = end;
    }
    if (text.startsWith('\r\n', at)) {
      rows.push(row);
      row = [];
      at += 2;
    } else {
      expect(text[at]).toBe(',');
      at += 1;
      if (text.startsWith('\r\n', at)) row.push(null);
    }
    if (row.length === 0 && at >= text.length) break;
    if (row.length > 0 && text.startsWith('\r\n', at)) {
      rows.push(row);
      row = [];
      at += 2;
    }
  }
  return rows;
}

function plain(field: string | null): string | null {
  if (field === null) return null;
  const unguarded = field.startsWith("'") ? field.slice(1) : field;
  return unguarded.replaceAll(/\\u([0-9a-f]{4})/g, (_all, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

describe('visible()', () => {
  test('leaves nothing that a terminal acts on, and can be undone', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const shown = visible(text);
        expect(DANGEROUS.test(shown)).toBe(false);
        expect(plain(`'${shown}`)).toBe(text);
      }),
    );
  });

  test('leaves ordinary text alone', () => {
    for (const text of ['LOT42.07', 'C:\\recipes\\GATE;3', 'é 中 한 🙂', "it's"]) expect(visible(text)).toBe(text);
    expect(visible(`${ESC}x`)).toBe('\\u001b[31mx');
  });
});

describe('csvText()', () => {
  test('comes back as it was, and is no formula', () => {
    fc.assert(
      fc.property(anyText, (text) => {
        const field = csvText(text);
        const [read] = readCsv(`${field},x\r\n`);
        expect(plain(read![0]!)).toBe(text);
        expect(/^[\s]*[=+\-@＝＋－＠]/u.test(read![0]!)).toBe(false);
        expect(DANGEROUS.test(field)).toBe(false);
      }),
    );
  });

  test('tells null from an empty text', () => {
    expect([csvText(null), csvText('')]).toEqual(['', '""']);
  });
});

test('jsonLine() is one line, the same value, and nothing that a terminal acts on', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        anyText,
        fc.json().map((json) => JSON.parse(json) as unknown),
      ),
      (value) => {
        const line = jsonLine({ value });
        expect(DANGEROUS.test(line.slice(0, -1))).toBe(false);
        expect(JSON.parse(line)).toEqual(JSON.parse(JSON.stringify({ value })));
      },
    ),
  );
});

describe('a decision', () => {
  const record = decisionRecord({
    sequence: 1041,
    predict: {
      context: contextOf({ substrateId: 'LOT42.07', lotId: 'LOT42', runNumber: 118, processEndMillis: 1_795_000_000_000 }),
      features: featuresOf(1.5, Number.NaN, Number.POSITIVE_INFINITY, -0.25),
    },
    decision: {
      action: 'fallback',
      reasons: REASONS.reliance_low | REASONS.fallback_stale | (1 << 30),
      value: -0.5,
      rawValue: Number.NaN,
      rawCorrection: Number.NEGATIVE_INFINITY,
      outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 1], bytes: Uint8Array.of(0, 0, 128, 63) }],
    },
  });
  const row = { ...rowOf(record), index: 7 };

  test('as JSONL says everything', () => {
    expect(JSON.parse(jsonlOf(row, 'agent-7'))).toEqual({
      kind: 'decision',
      agentId: 'agent-7',
      stream: 0,
      sequence: 1041,
      index: 7,
      time: '2026-11-22T10:15:00.001041Z',
      timeMicros: T0 + 1041,
      slot: 'cd/scanner-a/x',
      context: contextOf({ substrateId: 'LOT42.07', lotId: 'LOT42', runNumber: 118, processEndMillis: 1_795_000_000_000 }),
      bundleId: '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
      version: '2026.11.1',
      action: 'fallback',
      reasons: ['reliance_low', 'fallback_stale', 'bit_30'],
      value: -0.5,
      rawValue: 'NaN',
      correction: null,
      rawCorrection: '-Infinity',
      lastApplied: 12.5,
      ri: 0.875,
      riThreshold: 0.5,
      gsi: null,
      gsiThreshold: null,
      requestId: 1041,
      deadlineMicros: 5000,
      telemetry: 'kept',
      features: { encoding: 'float32', values: [1.5, 'NaN', 'Infinity', -0.25] },
      outputs: [{ name: 'y', datatype: 'FP32', shape: [1, 1], data: 'AACAPw==' }],
    });
  });

  test('as CSV has a cell for every column', () => {
    const [header, cells] = readCsv(CSV_HEADER + csvOf(row, 'agent-7'));
    expect(cells).toHaveLength(header!.length);
    const named = Object.fromEntries(header!.map((name, at) => [name, cells![at]]));
    expect(named).toMatchObject({
      kind: 'decision',
      agentId: 'agent-7',
      stream: '0',
      sequence: '1041',
      index: '7',
      time: '2026-11-22T10:15:00.001041Z',
      substrateId: 'LOT42.07',
      carrierId: null,
      runNumber: '118',
      processEndMillis: '1795000000000',
      action: 'fallback',
      reasons: 'reliance_low fallback_stale bit_30',
      value: '-0.5',
      rawValue: 'NaN',
      correction: null,
      rawCorrection: '-Infinity',
      features: '4',
      measurementId: null,
      detail: null,
    });
  });

  test('as text is readable', () => {
    expect(textOf(row)).toBe(
      `2026-11-22T10:15:00.001041Z  decision     0/1041  cd/scanner-a/x  fallback: reliance_low, fallback_stale, bit_30
    substrate LOT42.07  lot LOT42  run 118  process end 2026-11-18T11:06:40.000Z
    bundle 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f  version 2026.11.1
    value -0.5 (the model said NaN)  correction none (asked for -Infinity)  last applied 12.5
    ri 0.875 (at least 0.5)  gsi none
    features 4 float32  request 1041
`,
    );
  });

  test('whose telemetry was dropped says so, and shows no made-up features', () => {
    const dropped = { ...row, telemetry: 'dropped' as const };
    expect(JSON.parse(jsonlOf(dropped, null))).toMatchObject({ telemetry: 'dropped by retention', features: null, outputs: null });
    expect(csvOf(dropped, null)).toContain(',dropped by retention,');
    expect(textOf(dropped)).toContain('features dropped by retention');
  });

  test('that cannot be read is there all the same, with its bytes', () => {
    const broken = rowOf({ ...record, reply: record.reply.subarray(0, 20) });
    expect(broken.defect).toMatch(/Cannot read the frame/);
    expect(JSON.parse(jsonlOf(broken, null))).toMatchObject({
      kind: 'decision',
      sequence: 1041,
      request: Buffer.from(record.request).toString('base64'),
    });
    expect(textOf(broken)).toContain('0/1041  unreadable: Cannot read the frame');
    expect(csvOf(broken, null)).toContain('unreadable: Cannot read the frame');
  });

  test('that names itself otherwise than its record does is told as unreadable', () => {
    expect(rowOf({ ...record, sequence: 1042 }).defect).toBe('the decision in it names itself 0/1041');
    expect(rowOf({ ...record, stream: 3 }).defect).toBe('the decision in it names itself 0/1041');
  });
});

describe('other records', () => {
  test('an observation', () => {
    const row = rowOf(observationRecord(5, { unit: null }));
    expect(JSON.parse(jsonlOf(row, null))).toMatchObject({
      kind: 'observation',
      measurementId: 'CDSEM-1/5',
      value: 45.25,
      unit: null,
      measuredAt: '2026-11-18T11:12:40.000Z',
    });
    expect(textOf(row)).toContain('observation  0/5  cd/scanner-a/x  CD 45.25\n');
    expect(csvOf(row, null)).toContain('CDSEM-1/5,CD,45.25,,12.5,2026-11-18T11:12:40.000Z,');
  });

  test('an alert and a gap', () => {
    expect(textOf(rowOf(alertRecord(9, 'reliance_low', 'cd/x')))).toContain('alert        0/9  guard cd/x: reliance_low');
    expect(textOf(rowOf(gapRecord({ from: 3, to: 8, isExact: false })))).toContain(
      'gap          0/8  records 3 to 8 of stream 0 are lost (at most 6, disk_full): no space',
    );
    expect(JSON.parse(jsonlOf(rowOf(gapRecord({ from: 3, to: 8 })), null))).toMatchObject({
      kind: 'gap',
      body: { from: 3, to: 8, count: 6 },
    });
  });

  test('a kind of a later version', () => {
    expect(rowOf({ ...observationRecord(5), kind: 9 })).toMatchObject({ name: 'unknown', defect: 'its kind is 9' });
  });

  test('what no format may let through: every text a controller chooses', () => {
    fc.assert(
      fc.property(
        anyText.filter((text) => text !== '' && Buffer.byteLength(text) < 200 && !/[\ud800-\udfff]/u.test(text)),
        (text) => {
          const context = contextOf(Object.fromEntries(CONTEXT_FIELDS.slice(0, 11).map((field) => [field, text])));
          const rows = [
            rowOf(decisionRecord({ sequence: 1, predict: { slot: text, context }, decision: { version: text } })),
            rowOf(observationRecord(2, { slot: text, context, measurementId: text, parameter: text, unit: text })),
            rowOf(alertRecord(3, text, text)),
            rowOf(gapRecord({ from: 4, to: 4, detail: text })),
          ];
          for (const row of rows) {
            expect(row.defect).toBeNull();
            expect(DANGEROUS.test(textOf(row).replaceAll('\n', ''))).toBe(false);
            expect(DANGEROUS.test(jsonlOf(row, text).replaceAll('\n', ''))).toBe(false);
            const csv = csvOf(row, text);
            expect(DANGEROUS.test(csv.slice(0, -2))).toBe(false);
            for (const cell of readCsv(csv)[0]!) expect(/^\s*[=+@＝＋－＠]/u.test(cell ?? '')).toBe(false);
          }
          const [header, cells] = readCsv(CSV_HEADER + csvOf(rows[0]!, text));
          expect(plain(cells![header!.indexOf('recipeId')]!)).toBe(text);
          expect((JSON.parse(jsonlOf(rows[0]!, null)) as { slot: string }).slot).toBe(text);
        },
      ),
    );
  });
});

test('reasonTexts() names every bit', () => {
  expect(reasonTexts(0)).toEqual([]);
  expect(reasonTexts(2 ** 32 - 1)).toHaveLength(32);
});
