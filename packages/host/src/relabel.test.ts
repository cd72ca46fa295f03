import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'mocha';
import { getXattr } from './jail.ts';
import { relabelTree } from './relabel.ts';

const CONTEXT = 'system_u:object_r:container_file_t:s0:c1,c2';

describe('SELinux contexts', () => {
  it('are given to a directory and all below it, or to one file, and not beyond a symlink', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'relabel-'));
    const at = (...names: string[]) => join(directory, ...names);
    const contextOf = (path: string) => {
      try {
        return getXattr(path, 'security.selinux').toString('utf8');
      } catch {
        return 'none';
      }
    };
    try {
      mkdirSync(at('volume', 'below'), { recursive: true });
      for (const name of ['outside', 'volume/file', 'volume/below/file']) {
        writeFileSync(at(name), '');
      }
      symlinkSync(at('outside'), at('volume', 'link'));
      const before = contextOf(at('outside'));
      await relabelTree(at('volume'), CONTEXT);
      for (const name of ['volume', 'volume/file', 'volume/below', 'volume/below/file']) {
        assert.equal(contextOf(at(name)), `${CONTEXT}\0`, name);
      }
      assert.equal(contextOf(at('outside')), before);
      await relabelTree(at('outside'), CONTEXT);
      assert.equal(contextOf(at('outside')), `${CONTEXT}\0`);
      await assert.rejects(relabelTree(at('absent'), CONTEXT), { code: 'ENOENT' });
    } finally {
      rmSync(directory, { recursive: true });
    }
  });
});
