import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'mocha';
import { makeDirectoryInRootfs, readInRootfs, resolveInRootfs } from './rootfs-files.ts';

describe('files of a root filesystem', () => {
  let base = '';
  let rootfs = '';
  before(async () => {
    base = await mkdtemp(join(tmpdir(), 'cribus-rootfs-'));
    rootfs = join(base, 'rootfs');
    await mkdir(join(rootfs, 'real'), { recursive: true });
    await writeFile(join(base, 'secret'), 'outside');
    await writeFile(join(rootfs, 'real/passwd'), 'inside');
    await symlink('../../secret', join(rootfs, 'up'));
    await symlink('/real', join(rootfs, 'etc'));
    await symlink('loop', join(rootfs, 'loop'));
    await symlink(base, join(rootfs, 'absolute'));
  });
  after(() => rm(base, { recursive: true, force: true }));

  it('are found through links that stay inside', async () => {
    assert.equal(await readInRootfs(rootfs, '/etc/passwd'), 'inside');
    assert.equal(await readInRootfs(rootfs, '/etc/none'), '');
  });

  it('are never outside', async () => {
    assert.equal(await readInRootfs(rootfs, '/up'), '');
    assert.equal(await readInRootfs(rootfs, '/absolute/secret'), '');
    assert.equal(await resolveInRootfs(rootfs, '/../../x'), join(rootfs, 'x'));
    await assert.rejects(readInRootfs(rootfs, '/loop'), { kind: 'invalid_argument' });
  });

  it('can be made below a link, inside', async () => {
    await makeDirectoryInRootfs(rootfs, '/absolute/made');
    assert.equal(existsSync(join(base, 'made')), false);
    assert.equal(existsSync(join(rootfs, base, 'made')), true);
  });
});
