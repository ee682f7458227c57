import { describe, expect, test } from 'vitest';
import * as fc from 'fast-check';
import { targetOf } from '../../../agent/http/paths.ts';

describe('targetOf()', () => {
  test.each([
    ['/v2/models/cd/scanner-a/product-x', 'metadata', 'cd/scanner-a/product-x', null],
    ['/v2/models/cd%2Fscanner-a%2Fproduct-x/ready', 'ready', 'cd/scanner-a/product-x', null],
    ['/v2/models/cd/scanner-a/product-x/versions/1.2+a/stats', 'statistics', 'cd/scanner-a/product-x', '1.2+a'],
    ['/v2/models/cd/scanner-a/product-x/versions/1%2B2', 'metadata', 'cd/scanner-a/product-x', '1+2'],
    ['/v2/models/m/', 'metadata', 'm', null],
    ['/v2/models/m/versions/%72eady', 'metadata', 'm', 'ready'],
    ['/v2/models/m/versions/ready/ready', 'ready', 'm', 'ready'],
    ['/v2/models/m/versions', 'metadata', 'm/versions', null],
    ['/v2/models/ready', 'metadata', 'ready', null],
    ['/v2/models/etch%2Fready', 'metadata', 'etch/ready', null],
    ['/v2/models/etch/ready', 'ready', 'etch', null],
    ['/v2/models/etch%2Fready/ready', 'ready', 'etch/ready', null],
    ['/v2/models/%EC%8B%9D%EA%B0%81', 'metadata', '식각', null],
  ] as const)('%s asks for %s of %s, version %s', (path, asks, model, version) => {
    expect(targetOf(path)).toEqual({ kind: 'model', asks, model, version });
  });

  test('any encoded model name and version come back as they were', () => {
    const name = fc.string({ minLength: 1, unit: 'grapheme' });
    fc.assert(
      fc.property(name, name, (model, version) => {
        const path = `/v2/models/${encodeURIComponent(model)}/versions/${encodeURIComponent(version)}/infer`;
        expect(targetOf(path)).toEqual({ kind: 'infer', model, version });
        expect(targetOf(`/v2/repository/models/${encodeURIComponent(model)}/unload`)).toEqual({
          kind: 'repository',
          asks: 'unload',
          model,
        });
      }),
    );
  });
});
