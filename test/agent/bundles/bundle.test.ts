import {
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTar } from 'nanotar';
import { describe, expect, test } from 'vitest';
import { packFiles, unpackFiles } from '../../../agent/bundles/archive.ts';
import { openBundle, packBundle, writeBundle } from '../../../agent/bundles/bundle.ts';
import { SetpointError } from '../../../protocol/errors.ts';
import { RELU, tinyBundle } from './tiny-onnx.ts';

function scratch(): string {
  return mkdtempSync(join(tmpdir(), 'setpoint-test-'));
}

/** A folder with the tiny bundle. */
function written(): string {
  const folder = join(scratch(), 'bundle');
  writeBundle(folder, tinyBundle());
  return folder;
}

function refusal(path: string): { code: string; message: string } {
  try {
    openBundle(path);
  } catch (thrown) {
    if (thrown instanceof SetpointError) return { code: thrown.code, message: thrown.message };
    throw thrown;
  }
  return { code: 'accepted', message: '' };
}

describe('openBundle()', () => {
  test('opens what writeBundle() wrote; the id is the SHA-256 of the manifest', () => {
    const bundle = openBundle(written());
    expect(bundle.bundleId).toBe(tinyBundle().bundleId);
    expect(Buffer.from(bundle.bundleIdBytes).toString('hex')).toBe(bundle.bundleId);
    expect(bundle.read('model.onnx')).toEqual(RELU);
    expect(() => bundle.read('other')).toThrow('other is not listed');
  });

  test('refuses a bundle with any byte of any file changed, in a folder and in a single file', () => {
    const folder = written();
    const { bundleId } = tinyBundle();
    let changes = 0;
    const file = join(scratch(), 'tiny.setpoint');
    packBundle(tinyBundle(), file);
    const paths = [...readdirSync(folder).map((name) => join(folder, name)), file];
    for (const path of paths) {
      const original = readFileSync(path);
      // All bits of the byte in the folder; one bit where the archive pads with zeros.
      const step = path === file ? 7 : 1;
      for (let at = 0; at < original.byteLength; at += step) {
        const changed = Buffer.from(original);
        changed[at] = (changed[at] ?? 0) ^ (1 << (at % 8));
        writeFileSync(path, changed);
        const opened = path === file ? file : folder;
        // A manifest may still be one, with another id: signatures are on the id.
        let id: string | null = null;
        try {
          id = openBundle(opened).bundleId;
        } catch (thrown) {
          expect(thrown).toBeInstanceOf(SetpointError);
        }
        expect(id, `${path} at ${at}`).not.toBe(bundleId);
        if (!path.endsWith('manifest.json') && path !== file) expect(id).toBeNull();
        changes += 1;
      }
      writeFileSync(path, original);
      expect(openBundle(path === file ? file : folder).bundleId).toBe(bundleId);
    }
    expect(changes).toBeGreaterThan(2000);
  });

  test('says that a folder is incomplete, retryable, while a file is missing or short', () => {
    const folder = written();
    renameSync(join(folder, 'golden.json'), join(folder, '..', 'away'));
    expect(refusal(folder)).toEqual({ code: 'not_ready', message: `Cannot open bundle ${folder}: golden.json is missing` });
    renameSync(join(folder, '..', 'away'), join(folder, 'golden.json'));
    truncateSync(join(folder, 'model.onnx'), 10);
    expect(refusal(folder)).toEqual({
      code: 'not_ready',
      message: `Cannot open bundle ${folder}: model.onnx has 10 of ${RELU.byteLength} bytes`,
    });
    rmSync(join(folder, 'manifest.json'));
    expect(refusal(folder).message).toContain('manifest.json is missing');
    expect(new SetpointError('not_ready', '').retryable).toBe(true);
  });

  test('refuses files that the manifest does not list, and longer ones', () => {
    const folder = written();
    writeFileSync(join(folder, 'extra'), '');
    expect(refusal(folder).message).toContain('extra is not listed in the manifest');
    rmSync(join(folder, 'extra'));
    mkdirSync(join(folder, 'deep'));
    writeFileSync(join(folder, 'deep/.hidden'), '');
    expect(refusal(folder).message).toContain('deep/.hidden is not listed');
    rmSync(join(folder, 'deep'), { recursive: true });
    writeFileSync(join(folder, 'model.onnx'), Buffer.concat([RELU, Buffer.from('x')]));
    expect(refusal(folder).message).toContain(`model.onnx has ${RELU.byteLength + 1} bytes, the manifest says ${RELU.byteLength}`);
  });

  test('refuses symbolic links to files, to folders and to nowhere, but takes a link to the bundle itself', () => {
    const folder = written();
    const outside = join(folder, '..', 'outside');
    renameSync(join(folder, 'model.onnx'), outside);
    symlinkSync(outside, join(folder, 'model.onnx'));
    expect(refusal(folder).message).toContain('it is a symbolic link');
    rmSync(join(folder, 'model.onnx'));
    symlinkSync('/nowhere', join(folder, 'model.onnx'));
    expect(refusal(folder).message).toContain('it is a symbolic link');
    rmSync(join(folder, 'model.onnx'));
    linkSync(outside, join(folder, 'model.onnx'));
    symlinkSync('/', join(folder, 'root'));
    expect(refusal(folder).message).toContain('root: it is a symbolic link');
    rmSync(join(folder, 'root'));
    const link = join(scratch(), 'link');
    symlinkSync(folder, link);
    expect(openBundle(link).bundleId).toBe(tinyBundle().bundleId);
  });

  test('refuses a file that changes after it was opened', () => {
    const folder = written();
    const bundle = openBundle(folder);
    const changed = RELU.slice();
    changed[20] = (changed[20] ?? 0) ^ 1;
    writeFileSync(join(folder, 'model.onnx'), changed);
    expect(() => bundle.read('model.onnx')).toThrow('model.onnx has SHA-256');
  });

  test('refuses manifests that escape the folder, list a file twice or leave out the model', () => {
    const { files } = tinyBundle().manifest;
    const [model, golden] = files;
    for (const path of ['../model.onnx', '/etc/passwd', 'a/../../b', '.hidden', 'a\\b', 'a//b', './a', '']) {
      expect(() => tinyBundle({ manifest: { files: [model, { ...golden, path }] } }), path).toThrow('files.1.path');
    }
    expect(() => tinyBundle({ manifest: { files: [model, model, golden] } })).toThrow('each file is there once');
    expect(() => tinyBundle({ manifest: { model: { path: 'other.onnx', externalData: [] } } })).toThrow(
      'uses other.onnx and does not list it',
    );
    expect(() => tinyBundle({ manifest: { files: [model, golden, { ...model, path: 'manifest.json' }] } })).toThrow();
  });

  test('names a path where there is nothing', () => {
    expect(refusal('/nowhere/bundle')).toEqual({ code: 'not_found', message: 'Cannot open bundle /nowhere/bundle: there is none' });
  });
});

describe('writeBundle() and packBundle()', () => {
  test('do nothing where the same bundle is, and never overwrite anything else', () => {
    const folder = written();
    expect(writeBundle(folder, tinyBundle())).toBe(false);
    const other = tinyBundle({ manifest: { version: '2' } });
    expect(() => writeBundle(folder, other)).toThrow('something else is already there');
    expect(openBundle(folder).bundleId).toBe(tinyBundle().bundleId);
    const file = join(scratch(), 'a.setpoint');
    expect(packBundle(other, file)).toBe(true);
    expect(packBundle(other, file)).toBe(false);
    expect(() => packBundle(tinyBundle(), file)).toThrow('something else is already there');
    expect(() => writeBundle(file, other)).toThrow('something else');
    expect(() => writeBundle('/nowhere/a', other)).toThrow('its parent folder does not exist');
  });

  test('leave no temporary files behind', () => {
    const parent = scratch();
    writeBundle(join(parent, 'bundle'), tinyBundle());
    packBundle(tinyBundle(), join(parent, 'b.setpoint'));
    expect(readdirSync(parent).sort()).toEqual(['b.setpoint', 'bundle']);
  });

  test('write files in folders', () => {
    const content = new Uint8Array([1]);
    const { manifest } = tinyBundle();
    expect(manifest.files).toHaveLength(2);
    const folder = join(scratch(), 'x');
    const archive = packFiles([{ path: 'a/b/c', bytes: content }]);
    expect(unpackFiles(archive, 3, 'x')).toEqual([{ path: 'a/b/c', bytes: content }]);
    expect(existsSync(folder)).toBe(false);
  });
});

describe('the single-file form', () => {
  const files = [
    { path: 'manifest.json', bytes: new Uint8Array(600).fill(7) },
    { path: 'empty', bytes: new Uint8Array(0) },
  ];

  test('is the same bytes every time, and keeps empty files', () => {
    const archive = packFiles(files);
    expect(packFiles(files)).toEqual(archive);
    expect(archive.byteLength % 10240).toBe(0);
    expect(unpackFiles(archive, 3, 'x')).toEqual(files);
  });

  test('keeps the end marker where the files fill the last record', () => {
    const full = [{ path: 'a', bytes: new Uint8Array(10240 - 512).fill(1) }];
    const archive = packFiles(full);
    expect(archive.byteLength).toBe(20480);
    expect(unpackFiles(archive, 3, 'x')).toEqual(full);
  });

  test('is read from a view into a larger buffer', () => {
    const archive = packFiles(files);
    const larger = new Uint8Array(archive.byteLength + 1024);
    larger.set(archive, 512);
    expect(unpackFiles(larger.subarray(512, 512 + archive.byteLength), 3, 'x')).toEqual(files);
  });

  test('is refused when it was packed otherwise: other times, links, folders, paths outside, too many files', () => {
    const one = { name: 'a', data: new Uint8Array([1]) };
    const end = new Uint8Array(1024);
    const withEnd = (tar: Uint8Array): Uint8Array => new Uint8Array(Buffer.concat([tar, end]));
    expect(() => unpackFiles(withEnd(createTar([{ ...one, attrs: { mtime: 5000 } }])), 3, 'x')).toThrow('not written as');
    expect(() => unpackFiles(withEnd(createTar([{ name: 'folder' }])), 3, 'x')).toThrow('entry 1 is not a regular file');
    expect(() => unpackFiles(withEnd(createTar([{ ...one, name: '../a' }])), 3, 'x')).toThrow('not written as');
    expect(() => unpackFiles(packFiles([...files, ...files]), 3, 'x')).toThrow('more than 3 files');
    expect(() => packFiles([{ path: 'a'.repeat(101), bytes: end }])).toThrow('a single file holds 100');
  });

  test('is refused when a size is not plain octal digits, which would send the tar reader in circles', () => {
    for (const size of ['-0000001000', '00000000x00', '           ', '77777777777']) {
      const archive = packFiles(files);
      archive.set(new TextEncoder().encode(size), 124);
      expect(() => unpackFiles(archive, 3, 'x')).toThrow(SetpointError);
    }
  });

  test('is incomplete, retryable, when it is cut short', () => {
    const archive = packFiles(files);
    expect(() => unpackFiles(archive.subarray(0, 700), 3, 'x')).toThrow('it is cut short');
    expect(() => unpackFiles(archive.subarray(0, 100), 3, 'x')).toThrow('not a ustar archive');
    expect(() => unpackFiles(new Uint8Array(20480), 3, 'x')).toThrow('not a ustar archive');
  });
});
