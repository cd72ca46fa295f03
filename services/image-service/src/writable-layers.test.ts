import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseConfig } from '@cribus/chassis/config.ts';
import { systemClock } from '@cribus/host/clock.ts';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { createWritableLayers } from './writable-layers.ts';

describe('the usage of writable layers', () => {
  let directory: string;

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'cribus-writable-'));
    await mkdir(join(directory, 'state', 'images'), { recursive: true });
    await mkdir(join(directory, 'state', 'handlers'), { recursive: true });
  });
  afterEach(() => rm(directory, { recursive: true }));

  const open = () =>
    createWritableLayers({
      config: parseConfig('', { file: 'test.toml', directory }),
      clock: systemClock,
      stopping: new AbortController().signal,
    });

  async function write(handler: string): Promise<void> {
    const upper = join(directory, 'state', 'handlers', handler, 'containers', 'id', 'upper');
    await mkdir(upper, { recursive: true });
    await writeFile(join(upper, 'data'), Buffer.alloc(64 * 1024, 'x'));
  }

  it('counts those of all handlers, on the filesystem of the images', async () => {
    await write('runc');
    await write('gvisor');
    const layers = open();
    await layers.measure();
    const { mountpoint, bytes, inodes } = layers.usage();
    assert.equal(mountpoint, join(directory, 'state', 'images'));
    assert.ok(bytes >= 128n * 1024n && bytes < 256n * 1024n, String(bytes));
    assert.equal(inodes, 8n);
  });

  it('has a mount point of its own where the containers are on another filesystem', async () => {
    const handlers = join(directory, 'state', 'handlers');
    execFileSync('mount', ['-t', 'tmpfs', 'none', handlers]);
    try {
      await write('runc');
      const layers = open();
      assert.equal(layers.usage().mountpoint, handlers, 'before anything was measured');
      await layers.measure();
      assert.equal(layers.usage().mountpoint, handlers);
      assert.ok(layers.usage().bytes >= 64n * 1024n);
    } finally {
      execFileSync('umount', [handlers]);
    }
  });

  it('measures at most every ten seconds, and not when nobody has asked for five', async () => {
    let nowMs = 0;
    const layers = createWritableLayers({
      config: parseConfig('', { file: 'test.toml', directory }),
      clock: { ...systemClock, monotonicMs: () => nowMs },
      stopping: new AbortController().signal,
    });
    await layers.measure();
    await write('runc');
    nowMs = 9_000;
    await layers.measure();
    assert.equal(layers.usage().inodes, 0n);
    nowMs = 330_000;
    await layers.measure();
    assert.equal(layers.usage().inodes, 0n);
    await layers.measure();
    assert.equal(layers.usage().inodes, 4n);
  });
});
