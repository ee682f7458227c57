import { describe, expect, test } from 'vitest';
import { fromRemote, toRemote } from '../../../agent/serve/remote-error.ts';
import { ERROR_CODES, type ErrorCode, SetpointError } from '../../../protocol/errors.ts';

describe('an error that crosses between threads', () => {
  test.each(Object.keys(ERROR_CODES) as ErrorCode[])('is the same on the other side: %s', (code) => {
    for (const options of [{}, { field: 'x', remedy: 'do this' }]) {
      const error = new SetpointError(code, 'Cannot do it: why', options);
      const again = fromRemote(structuredClone(toRemote(error)));
      expect(again).toBeInstanceOf(SetpointError);
      expect([again.code, again.message, again.field, again.remedy]).toEqual([error.code, error.message, error.field, error.remedy]);
    }
  });

  test.each([
    ['another error', new TypeError('x is undefined'), 'x is undefined'],
    ['anything thrown', 'a text', 'a text'],
  ])('is internal when it was %s', (_name, thrown, message) => {
    expect(fromRemote(toRemote(thrown))).toMatchObject({ code: 'internal', message, field: null, remedy: ERROR_CODES.internal.remedy });
  });

  test('is internal when its code is not known, be it the name of something every object has', () => {
    for (const code of ['nonsense', 'toString', '__proto__']) {
      expect(fromRemote({ code, message: 'm', remedy: 'r', field: null })).toMatchObject({ code: 'internal', message: 'm', remedy: 'r' });
    }
  });
});
