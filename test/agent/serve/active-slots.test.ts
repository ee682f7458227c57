import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { ActiveSlots } from '../../../agent/serve/active-slots.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { temporaryDirectory } from '../../support/agent.ts';

const A = 'a'.repeat(64);
const B = 'b'.repeat(64);

describe('the bundles that slots answered from last', () => {
  test('are there after a restart', () => {
    const path = join(temporaryDirectory(), 'slots.json');
    const first = new ActiveSlots(path);
    first.load();
    first.set('cd/scanner-a', A);
    first.set('depth', A);
    first.set('depth', B);
    const second = new ActiveSlots(path);
    second.load();
    expect([second.get('cd/scanner-a'), second.get('depth'), second.get('other')]).toEqual([A, B, undefined]);
  });

  test('are written whole, and only when they change', () => {
    const directory = temporaryDirectory();
    const path = join(directory, 'slots.json');
    const slots = new ActiveSlots(path);
    slots.set('depth', A);
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({ format: 'setpoint.slots.v1', slots: { depth: A } });
    expect(readdirSync(directory)).toEqual(['slots.json']);
    writeFileSync(path, 'touched');
    slots.set('depth', A);
    expect(readFileSync(path, 'utf8')).toBe('touched');
  });

  test.each([
    ['no JSON', '{'],
    ['another format', JSON.stringify({ format: 'setpoint.slots.v2', slots: {} })],
    ['something that is no bundle id', JSON.stringify({ format: 'setpoint.slots.v1', slots: { depth: '../../etc' } })],
  ])('are refused with what to do when the file holds %s', (_name, text) => {
    const path = join(temporaryDirectory(), 'slots.json');
    writeFileSync(path, text);
    const load = (): void => new ActiveSlots(path).load();
    expect(load).toThrow(SetpointError);
    expect(load).toThrow(/^Cannot read .*slots\.json: /);
    expect(readFileSync(path, 'utf8')).toBe(text);
  });
});
