import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { linkSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeNode, setXattr } from '@cribus/host/jail.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { archiveInto } from './archive-file.ts';
import { writeRootfsDiff } from './rootfs-diff.ts';

const S_IFCHR = 0o020000;

describe('what a container changed', () => {
  let base: string;

  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), 'cribus diff:'));
    for (const path of ['upper/new/sub', 'upper/again', 'low/again/deep', 'top/again']) {
      mkdirSync(join(base, path), { recursive: true });
    }
  });
  afterEach(() => rm(base, { recursive: true }));

  async function diff(skip: readonly string[] = []) {
    const file = join(base, 'diff.tar');
    const out = await open(file, 'w');
    const signal = AbortSignal.timeout(10_000);
    const archive = archiveInto(out, { nowNs: 0n, signal });
    const lowers = [join(base, 'top'), join(base, 'low')];
    const deleted = await writeRootfsDiff(
      { upper: join(base, 'upper'), lowers, skip: new Set(skip) },
      archive,
    );
    await archive.finish();
    await out.close();
    const listed = execFileSync('tar', ['-tvf', file], { encoding: 'utf8' }).trim().split('\n');
    const names = listed.map((line) => line.replace(/^\S+ +\S+ +\S+ +\S+ +\S+ /, ''));
    return { deleted: deleted.sort(), names };
  }

  it('are its own files of every kind, and whiteouts as paths that are gone', async () => {
    const upper = join(base, 'upper');
    writeFileSync(join(upper, 'new/file'), 'x');
    linkSync(join(upper, 'new/file'), join(upper, 'new/twin'));
    symlinkSync('/etc/passwd', join(upper, 'new/link'));
    makeNode(join(upper, 'gone'), { mode: S_IFCHR, major: 0, minor: 0 });
    makeNode(join(upper, 'null'), { mode: S_IFCHR | 0o666, major: 1, minor: 3 });
    mkdirSync(join(upper, 'proc'));
    const server = createServer().listen(join(upper, 's'));
    await new Promise((resolve) => server.once('listening', resolve));
    const { deleted, names } = await diff(['/proc']);
    server.close();
    assert.deepEqual(deleted, ['/gone']);
    assert.deepEqual(names, [
      'again/',
      'new/',
      'new/file',
      'new/link -> /etc/passwd',
      'new/sub/',
      'new/twin link to new/file',
      'null',
    ]);
  });

  it('of a directory that was made anew is also what the layers had in it, at any depth', async () => {
    writeFileSync(join(base, 'low/again/deep/old'), '');
    writeFileSync(join(base, 'low/again/below'), '');
    writeFileSync(join(base, 'top/again/above'), '');
    mkdirSync(join(base, 'upper/again/deep'));
    writeFileSync(join(base, 'upper/again/above'), 'new');
    setXattr(join(base, 'upper/again'), 'trusted.overlay.opaque', Buffer.from('y'));
    const { deleted, names } = await diff();
    assert.deepEqual(deleted, ['/again/below', '/again/deep/old']);
    assert.ok(names.includes('again/above'));
  });
});
