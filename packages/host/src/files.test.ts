import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import {
  diskUsage,
  filesystemUse,
  listDirectory,
  lock,
  readFileIfExists,
  removeTree,
  tryLock,
  writeFileAtomic,
} from './files.ts';
import { bindMount, mountTmpfs, unmountTree } from './mounts.ts';
import { run } from './spawn.ts';

describe('files', () => {
  let directory = '';
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'files-'));
  });
  afterEach(() => {
    unmountTree(directory);
    rmSync(directory, { recursive: true });
  });

  it('replaces a file as a whole, and leaves no temporary behind', async () => {
    const path = join(directory, 'record');
    await writeFileAtomic(path, 'first');
    await writeFileAtomic(path, Buffer.from('second'), { durable: true, mode: 0o640 });
    assert.equal((await readFileIfExists(path))?.toString(), 'second');
    assert.equal(statSync(path).mode & 0o777, 0o640);
    mkdirSync(join(directory, 'taken', 'within'), { recursive: true });
    await assert.rejects(writeFileAtomic(join(directory, 'taken'), 'x'), { code: 'EISDIR' });
    assert.deepEqual(readdirSync(directory).sort(), ['record', 'taken']);
    await Promise.all(
      Array.from({ length: 20 }, (_, i) => writeFileAtomic(path, `${i}`.repeat(99))),
    );
    assert.match(readFileSync(path, 'utf8'), /^(\d+?)\1{98}$/);
  });

  it('takes absence for emptiness, and nothing else', async () => {
    assert.equal(await readFileIfExists(join(directory, 'absent')), undefined);
    assert.deepEqual(await listDirectory(join(directory, 'absent')), []);
    await assert.rejects(readFileIfExists(directory), { code: 'EISDIR' });
    writeFileSync(join(directory, 'file'), '');
    await assert.rejects(listDirectory(join(directory, 'file')), { code: 'ENOTDIR' });
    await removeTree(join(directory, 'absent'));
  });

  it('removes a tree of odd names and links without following them', async () => {
    const tree = join(directory, 'tree');
    const outside = join(directory, 'outside');
    mkdirSync(outside);
    writeFileSync(join(outside, 'kept'), '');
    mkdirSync(join(tree, 'a', 'b'), { recursive: true });
    symlinkSync(outside, join(tree, 'a', 'link'));
    symlinkSync('/absent', join(tree, 'dangling'));
    writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), Buffer.from([0xff, 0xfe])]), '');
    mkdirSync(Buffer.concat([Buffer.from(`${tree}/a/`), Buffer.from([0xe9])]));
    for (let index = 0; index < 50; index += 1) writeFileSync(join(tree, 'a', 'b', `${index}`), '');
    chmodSync(join(tree, 'a', 'b'), 0);
    symlinkSync(outside, join(directory, 'top'));
    await removeTree(tree);
    await removeTree(join(directory, 'top'));
    assert.deepEqual(readdirSync(directory), ['outside']);
    assert.deepEqual(readdirSync(outside), ['kept']);
  });

  it('refuses a tree that holds a mount, before removing anything', async () => {
    const tree = join(directory, 'tree');
    mkdirSync(join(tree, 'a'), { recursive: true });
    writeFileSync(join(tree, 'file'), '');
    mountTmpfs(join(tree, 'a'), 'size=1m');
    await assert.rejects(removeTree(tree), { code: 'EBUSY' });
    unmountTree(tree);
    mkdirSync(join(directory, 'source'));
    writeFileSync(join(directory, 'source', 'kept'), '');
    bindMount(join(directory, 'source'), join(tree, 'a'));
    await assert.rejects(removeTree(tree), { code: 'EBUSY' });
    assert.ok(existsSync(join(tree, 'file')) && existsSync(join(directory, 'source', 'kept')));
    unmountTree(tree);
    await removeTree(tree);
    assert.ok(!existsSync(tree));
  });

  it('counts bytes and inodes, names of one file once, other filesystems never', async () => {
    const { signal } = new AbortController();
    mkdirSync(join(directory, 'other'));
    mountTmpfs(join(directory, 'other'), 'size=1m');
    const empty = await diskUsage(directory, signal);
    assert.equal(empty.inodes, 1n);
    writeFileSync(join(directory, 'file'), Buffer.alloc(1_000_000));
    linkSync(join(directory, 'file'), join(directory, 'link'));
    writeFileSync(join(directory, 'other', 'big'), Buffer.alloc(100_000));
    const full = await diskUsage(directory, signal);
    assert.equal(full.inodes, 2n);
    const grown = full.bytes - empty.bytes;
    assert.ok(grown >= 1_000_000n && grown < 1_100_000n, `${grown}`);
    const aborted = AbortSignal.abort(new Error('enough'));
    await assert.rejects(diskUsage(directory, aborted), /enough/);
    const use = filesystemUse(join(directory, 'other'));
    assert.equal(use.type, 0x01021994);
    assert.equal(use.bytesTotal, 1024n * 1024n);
    assert.ok(use.bytesUsed >= 100_000n && use.inodesUsed >= 1n);
  });

  it('locks out this process and others until closed', async () => {
    const path = join(directory, 'lock');
    const held = tryLock(path);
    assert.ok(held);
    assert.equal(tryLock(path), undefined);
    const signal = AbortSignal.timeout(5000);
    const args = ['-n', path, 'true'];
    assert.equal((await run({ command: 'flock', args, signal })).exitCode, 1);
    await assert.rejects(lock(path, AbortSignal.timeout(20)), { name: 'TimeoutError' });
    const waiting = lock(path, signal);
    held.close();
    held.close();
    (await waiting).close();
    assert.equal((await run({ command: 'flock', args, signal })).exitCode, 0);
  });
});
