import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  type BigIntStats,
  closeSync,
  existsSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readFileSync,
  readlinkSync,
  writeSync,
} from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSemaphore } from '@cribus/chassis/queue.ts';
import { isFailure } from '@cribus/contracts/failure.ts';
import { getXattr, listXattrs } from '@cribus/host/jail.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { buildTar, type TarPart } from '../testing/tar-builder.ts';
import { startUnpacking } from './unpack.ts';

describe('unpacking a layer', () => {
  let base: string;
  let layer: string;
  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), 'cribus-unpack-'));
    layer = join(base, 'layer');
    await mkdir(layer);
    await writeFile(join(base, 'outside'), 'untouched');
  });
  afterEach(() => rm(base, { recursive: true }));

  const unpack = async (tar: Buffer, pieceBytes = tar.length) => {
    const unpacking = await startUnpacking(layer, createSemaphore(1), new AbortController().signal);
    try {
      for (let at = 0; at < tar.length; at += pieceBytes) {
        await unpacking.write(tar.subarray(at, at + pieceBytes));
      }
      return await unpacking.finish();
    } finally {
      await unpacking.close();
    }
  };
  const stat = (path: string): BigIntStats => lstatSync(join(layer, path), { bigint: true });

  it('keeps kinds, owners, modes, times in nanoseconds, links and attributes', async () => {
    const long = `long/${'d'.repeat(100)}/${'f'.repeat(200)}`;
    const result = await unpack(
      buildTar([
        { name: 'dir/', type: '5', mode: 0o1777, uid: 5, gid: 6, mtime: 1_000_000_000 },
        {
          name: 'dir/file',
          data: 'x'.repeat(1000),
          mode: 0o6755,
          uid: 70_000,
          gid: 2 ** 31,
          pax: {
            mtime: '1234567890.123456789',
            'SCHILY.xattr.user.note': Buffer.from([1, 0, 255]),
            'SCHILY.xattr.trusted.overlay.redirect': '/x',
          },
        },
        { name: 'before', data: '', pax: { mtime: '-1.5' } },
        { name: 'dir/hard', type: '1', linkName: 'dir/file' },
        { name: 'sym', type: '2', linkName: '/nowhere', uid: 3, mtime: 77 },
        { name: 'null', type: '3', major: 1, minor: 300, mode: 0o666 },
        { name: 'pipe', type: '6', mode: 0o600 },
        { name: 'short', data: 'long name', pax: { path: long } },
        { name: '././@LongLink', type: 'L', data: `gnu${'g'.repeat(150)}\0` },
        { name: 'cut', data: 'gnu' },
      ]),
      777,
    );
    assert.deepEqual(
      [stat('dir').mode & 0o7777n, stat('dir').uid, stat('dir').mtimeNs],
      [0o1777n, 5n, 1_000_000_000_000_000_000n],
    );
    const file = stat('dir/file');
    assert.deepEqual([file.mode & 0o7777n, file.uid, file.gid], [0o6755n, 70_000n, 2n ** 31n]);
    assert.deepEqual(
      [file.mtimeNs, file.nlink, file.size],
      [1_234_567_890_123_456_789n, 2n, 1000n],
    );
    assert.deepEqual([...getXattr(join(layer, 'dir/file'), 'user.note')], [1, 0, 255]);
    assert.deepEqual(listXattrs(join(layer, 'dir/file')), ['user.note']);
    assert.equal(stat('before').mtimeNs, -1_500_000_000n);
    assert.equal(readlinkSync(join(layer, 'sym')), '/nowhere');
    assert.deepEqual([stat('sym').uid, stat('sym').mtimeNs], [3n, 77_000_000_000n]);
    assert.ok(
      stat('null').isCharacterDevice() && stat('null').rdev === (1n << 8n) + (256n << 12n) + 44n,
    );
    assert.ok(stat('pipe').isFIFO());
    assert.equal(readFileSync(join(layer, long), 'utf8'), 'long name');
    assert.equal(readFileSync(join(layer, `gnu${'g'.repeat(150)}`), 'utf8'), 'gnu');
    assert.deepEqual(result.impliedDirectories, ['/long', `/long/${'d'.repeat(100)}`]);
  });

  it('contains what goes through symlinks, and leaves the main thread outside', async () => {
    await unpack(
      buildTar([
        { name: 'up', type: '2', linkName: '../../../../..' },
        { name: 'up/escaped', data: 'in' },
        { name: 'abs', type: '2', linkName: base },
        { name: '/etc/rooted', data: 'in' },
        { name: 'out', type: '2', linkName: '../outside' },
        { name: 'out', data: 'a file in place of the link' },
      ]),
    );
    assert.equal(readFileSync(join(layer, 'escaped'), 'utf8'), 'in');
    assert.equal(readFileSync(join(layer, 'etc/rooted'), 'utf8'), 'in');
    assert.ok(stat('out').isFile());
    assert.equal(await readFile(join(base, 'outside'), 'utf8'), 'untouched');
    assert.deepEqual((await readdir(base)).sort(), ['layer', 'outside']);
  });

  it('turns whiteouts into those of overlayfs, without hiding its own files', async () => {
    await unpack(
      buildTar([
        { name: 'a/own', data: 'kept' },
        { name: 'a/.wh.own' },
        { name: '.wh.was', type: '0' },
        { name: 'was/', type: '5' },
        { name: '.wh..wh.plnk', type: '5' },
      ]),
    );
    assert.equal(readFileSync(join(layer, 'a/own'), 'utf8'), 'kept');
    assert.equal(getXattr(join(layer, 'was'), 'trusted.overlay.opaque').toString(), 'y');
    assert.ok(!existsSync(join(layer, '.wh..wh.plnk')));
  });

  const sparseForms: readonly (readonly string[])[] = [
    ['--format=gnu'],
    ['--format=posix', '--sparse-version=0.0'],
    ['--format=posix', '--sparse-version=0.1'],
    ['--format=posix', '--sparse-version=1.0'],
  ];
  for (const form of sparseForms) {
    it(`keeps the holes of sparse files that GNU tar wrote with ${form.join(' ')}`, async () => {
      const source = join(base, 'source');
      mkdirSync(source);
      const long = `${'long/'.repeat(30)}name`;
      mkdirSync(join(source, 'long/'.repeat(30)), { recursive: true });
      for (const [name, regions] of [
        ['few', 2],
        // More than a header of the old form, and one extension of it, have room for.
        [long, 60],
        ['hole', 0],
      ] as const) {
        const fd = openSync(join(source, name), 'w');
        for (let at = 0; at < regions; at += 1) {
          writeSync(fd, Buffer.alloc(5000, `${at}.`), 0, 5000, 100_000 * (at + 1));
        }
        ftruncateSync(fd, 7_000_000);
        closeSync(fd);
      }
      const names = ['few', long, 'hole'];
      const tar = execFileSync('tar', ['-S', ...form, '-C', source, '-c', ...names]);
      assert.ok(tar.length < 1_000_000, 'it was stored with its holes');
      // In pieces that cut headers, maps and data anywhere.
      await unpack(tar, 1_237);
      for (const name of names) {
        const [there, here] = [join(source, name), join(layer, name)];
        assert.ok(readFileSync(there).equals(readFileSync(here)), name);
        assert.ok(lstatSync(here).blocks * 512 < 1_000_000, `${name} has its holes`);
      }
    });
  }

  const hostile: readonly [string, readonly TarPart[] | Buffer, RegExp][] = [
    ['a name that climbs out', [{ name: '../evil', data: '' }], /leads out/],
    ['a hard link outwards', [{ name: 'h', type: '1', linkName: '../outside' }], /leads out/],
    [
      'a hard link to nothing',
      [{ name: 'h', type: '1', linkName: '/etc/passwd' }],
      /not in the layer/,
    ],
    ['a whiteout of the root', [{ name: '.wh.' }], /whiteout of no file/],
    ['a whiteout of the parent', [{ name: 'd/.wh...' }], /whiteout of no file/],
    ['a root that is a file', [{ name: './', type: '2', linkName: 'x' }], /the root is/],
    ['a wrong checksum', [{ name: 'x', badChecksum: true }], /checksum/],
    ['a huge claim', [{ name: 'x', claimedSize: 2 ** 45 }], /claims/],
    ['a size without its bytes', [{ name: 'x', claimedSize: 9999 }], /ends within/],
    ['a huge extended header', [{ name: 'x', type: 'x', claimedSize: 2 ** 30 }], /extended header/],
    ['a broken extended header', [{ name: 'x', type: 'x', data: '99 path=x\n' }], /broken record/],
    ['an unknown type', [{ name: 'x', type: 'Z' }], /unknown type/],
    [
      'a sparse file whose regions lie behind its end',
      [{ name: 'x', data: 'abc', pax: { 'GNU.sparse.map': '8,3', 'GNU.sparse.size': '10' } }],
      /regions out of place/,
    ],
    [
      'a sparse file whose regions overlap',
      [{ name: 'x', data: 'abcd', pax: { 'GNU.sparse.map': '0,3,2,1', 'GNU.sparse.size': '10' } }],
      /regions out of place/,
    ],
    [
      'a sparse file with more data than regions',
      [{ name: 'x', data: 'abcd', pax: { 'GNU.sparse.map': '0,3', 'GNU.sparse.size': '10' } }],
      /regions that are not its data/,
    ],
    [
      'a sparse file whose map is no numbers',
      [{ name: 'x', data: 'abc', pax: { 'GNU.sparse.map': '0,x', 'GNU.sparse.size': '10' } }],
      /broken map/,
    ],
    [
      'a sparse file whose map is cut',
      [{ name: 'x', data: '2\n0\n', pax: { 'GNU.sparse.major': '1', 'GNU.sparse.realsize': '9' } }],
      /map of "x" is cut/,
    ],
    ['an archive cut in a header', buildTar([{ name: 'x' }]).subarray(0, 300), /ends within/],
    ['a cut gzip stream', Buffer.from('1f8b0800', 'hex'), /decompressed/],
  ];
  for (const [what, parts, message] of hostile) {
    it(`refuses ${what}`, async () => {
      const tar = Buffer.isBuffer(parts) ? parts : buildTar(parts as readonly TarPart[]);
      await assert.rejects(unpack(tar), (error) => {
        assert.ok(isFailure(error, 'data_loss'), String(error));
        assert.match(error.message, message);
        return true;
      });
      assert.equal(readFileSync(join(base, 'outside'), 'utf8'), 'untouched');
    });
  }
});
