import assert from 'node:assert/strict';
import { linkSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { systemClock } from './clock.ts';
import { directoryUsage, filesystemCapacity } from './directory-usage.ts';

describe('what a directory holds', () => {
  let root = '';
  const options = {
    clock: systemClock,
    signal: AbortSignal.timeout(10_000),
    sliceMs: 5,
    pauseMs: 0,
  };
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'directory-'));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  it('counts blocks and inodes, a hard-linked file once, and follows no link', async () => {
    const before = await directoryUsage(root, options);
    assert.equal(before.inodesUsed, 1n);
    mkdirSync(join(root, 'a', 'b'), { recursive: true });
    writeFileSync(join(root, 'a', 'b', 'file'), Buffer.alloc(1024 * 1024));
    linkSync(join(root, 'a', 'b', 'file'), join(root, 'again'));
    symlinkSync('/usr', join(root, 'away'));
    writeFileSync(Buffer.from(`${root}/\xff\xfe`, 'latin1'), '');
    const after = await directoryUsage(root, options);
    assert.equal(after.inodesUsed, 6n);
    const bytes = after.usedBytes - before.usedBytes;
    assert.ok(bytes >= 1024n * 1024n && bytes < 1024n * 1024n + 64n * 1024n, String(bytes));
  });

  it('holds nothing where it is absent, and lets others run while it walks', async () => {
    assert.deepEqual(await directoryUsage(join(root, 'absent'), options), {
      usedBytes: 0n,
      inodesUsed: 0n,
    });
    for (let index = 0; index < 300; index += 1) writeFileSync(join(root, String(index)), '');
    let turns = 0;
    const timer = setInterval(() => {
      turns += 1;
    }, 0);
    const { inodesUsed } = await directoryUsage(root, { ...options, sliceMs: 0 });
    clearInterval(timer);
    assert.equal(inodesUsed, 301n);
    assert.ok(turns > 10, `${turns} turns`);
  });

  it('ends with the reason of its signal', async () => {
    writeFileSync(join(root, 'file'), '');
    const signal = AbortSignal.abort(new Error('enough'));
    await assert.rejects(directoryUsage(root, { ...options, signal, sliceMs: 0 }), /enough/);
  });

  it('knows the filesystem that it is on', () => {
    const { device, capacityBytes, inodesTotal, inodesFree } = filesystemCapacity(root);
    assert.ok(device !== '');
    assert.ok(capacityBytes > 0n && inodesTotal >= inodesFree);
  });
});
