import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import {
  type CgroupLimits,
  curvedWeight,
  limitWritesV1,
  limitWritesV2,
  linearWeight,
  weightLike,
  writeLimits,
} from './cgroup-limits.ts';
import { detectCgroups } from './cgroups.ts';
import { cgroupV2 } from './cgroups-v2.ts';

const MIB = 1024n * 1024n;

describe('limits of cgroups on trees of plain files', () => {
  let root = '';
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'limits-'));
  });
  afterEach(() => rmSync(root, { recursive: true }));

  const put = (files: Readonly<Record<string, string>>) => {
    for (const [name, text] of Object.entries(files)) writeFileSync(join(root, name), text);
  };
  const v1 = (limits: CgroupLimits) =>
    limitWritesV1(limits, () => root).map(({ file, value }) => [file.split('/').at(-1), value]);
  const v2 = (limits: CgroupLimits) =>
    limitWritesV2(limits, root).map(({ file, value }) => [file.split('/').at(-1), value]);

  it('writes a longer period of v1 before the quota and a shorter one after it', () => {
    put({ 'cpu.cfs_period_us': '100000\n', 'cpu.cfs_quota_us': '50000\n' });
    assert.deepEqual(v1({ cpuPeriodUs: 200_000n, cpuQuotaUs: 80_000n }), [
      ['cpu.cfs_period_us', '200000'],
      ['cpu.cfs_quota_us', '80000'],
    ]);
    assert.deepEqual(v1({ cpuPeriodUs: 50_000n, cpuQuotaUs: -7n }), [
      ['cpu.cfs_quota_us', '-1'],
      ['cpu.cfs_period_us', '50000'],
    ]);
  });

  it('raises the limit of memory and swap of v1 first and lowers the one of memory first', () => {
    put({ 'memory.memsw.limit_in_bytes': String(64n * MIB) });
    const both = (bytes: bigint) =>
      v1({ memoryBytes: bytes, memoryAndSwapBytes: bytes }).map(([name]) => name);
    const [memory, memsw] = ['memory.limit_in_bytes', 'memory.memsw.limit_in_bytes'];
    assert.deepEqual(both(128n * MIB), [memsw, memory]);
    assert.deepEqual(both(-1n), [memsw, memory]);
    assert.deepEqual(both(32n * MIB), [memory, memsw]);
  });

  it('names the controller of v1 that is not mounted, and refuses unified settings', () => {
    const hugePages = [{ pageSize: '2MB', limitBytes: 0n }];
    assert.throws(() => limitWritesV1({ hugePages }, () => undefined), {
      code: 'ENOENT',
      message: /hugetlb\.2MB\.limit_in_bytes.*hugetlb/,
    });
    assert.throws(() => v1({ unified: { 'memory.high': '1' } }), { code: 'ENOENT' });
  });

  it('spells every limit in the files of v2', () => {
    put({ 'cpu.max': 'max 100000\n', 'cpu.weight': '39\n' });
    assert.deepEqual(
      v2({
        cpuShares: 2048n,
        cpuSharesBefore: 1024n,
        cpuQuotaUs: 25_000n,
        cpus: '0-1',
        mems: '0',
        memoryBytes: 64n * MIB,
        memoryAndSwapBytes: 96n * MIB,
        hugePages: [
          { pageSize: '2MB', limitBytes: 4n * MIB },
          { pageSize: '1GB', limitBytes: 0n },
        ],
        unified: { 'memory.high': '1000', 'memory.max': '2000' },
      }),
      [
        ['cpu.weight', '79'],
        ['cpu.max', '25000 100000'],
        ['cpuset.cpus', '0-1'],
        ['cpuset.mems', '0'],
        ['memory.max', String(64n * MIB)],
        ['memory.swap.max', String(32n * MIB)],
        ['hugetlb.2MB.max', String(4n * MIB)],
        ['memory.high', '1000'],
        ['memory.max', '2000'],
      ],
    );
    put({ 'memory.swap.max': '0\n' });
    assert.deepEqual(v2({ cpuPeriodUs: 50_000n, memoryBytes: -1n, memoryAndSwapBytes: -1n }), [
      ['cpu.max', 'max 50000'],
      ['memory.max', 'max'],
      ['memory.swap.max', 'max'],
    ]);
    assert.throws(() => v2({ unified: { '../cgroup.procs': '1' } }), { code: 'EINVAL' });
  });

  it('limits no swap of v2 where the kernel has none, unless some of it is asked for', () => {
    const names = (memoryBytes: bigint, memoryAndSwapBytes: bigint) =>
      v2({ memoryBytes, memoryAndSwapBytes }).map(([name]) => name);
    assert.deepEqual(names(64n * MIB, 64n * MIB), ['memory.max']);
    assert.deepEqual(names(64n * MIB, -1n), ['memory.max']);
    assert.deepEqual(names(64n * MIB, 96n * MIB), ['memory.max', 'memory.swap.max']);
    put({ 'memory.swap.max': 'max\n' });
    assert.deepEqual(names(64n * MIB, 64n * MIB), ['memory.max', 'memory.swap.max']);
  });

  it('weighs by the formula that explains the weight that is there', () => {
    assert.deepEqual([2n, 1024n, 262_144n].map(linearWeight), [1n, 39n, 10_000n]);
    assert.deepEqual([2n, 1024n, 262_144n].map(curvedWeight), [1n, 100n, 10_000n]);
    assert.equal(weightLike(2048n, { before: 1024n, now: 39n }), linearWeight(2048n));
    assert.equal(weightLike(2048n, { before: 1024n, now: 100n }), curvedWeight(2048n));
    assert.equal(weightLike(2048n, { before: undefined, now: 100n }), linearWeight(2048n));
  });

  it('puts everything back when a later file is not there, and when it is asked to', async () => {
    put({ a: '1\n', b: '2\n', c: '3\n' });
    const files = () => ['a', 'b', 'c'].map((name) => readFileSync(join(root, name), 'utf8'));
    const write = (name: string, value: string) => ({ file: join(root, name), value });
    const before = files().map((text) => text.trim());
    const broken = [write('a', '10'), write('b', '20'), write('absent', '0'), write('c', '30')];
    await assert.rejects(writeLimits(broken), { code: 'ENOENT' });
    assert.deepEqual(
      files().map((text) => text[0]),
      before,
    );
    const undo = await writeLimits([write('a', '7'), write('c', '3')]);
    assert.deepEqual(
      files().map((text) => text[0]),
      ['7', '2', '3'],
    );
    await undo();
    assert.deepEqual(
      files().map((text) => text[0]),
      before,
    );
  });

  it('refuses a limit of v2 below what is in use, before anybody is killed for it', async () => {
    mkdirSync(join(root, 'pod'));
    const host = cgroupV2(root);
    put({ 'pod/memory.max': 'max\n', 'pod/memory.current': `${50n * MIB}\n` });
    await assert.rejects(host.setLimits('/pod', { memoryBytes: 32n * MIB }), {
      code: 'EBUSY',
      message: /52428800 bytes are in use/,
    });
    assert.equal(readFileSync(join(root, 'pod/memory.max'), 'utf8'), 'max\n');
    const unified = { 'memory.max': String(32n * MIB) };
    for (const limits of [{ memoryBytes: 32n * MIB }, { memoryBytes: 64n * MIB, unified }]) {
      await assert.rejects(host.makeRoom('/pod', limits), { code: 'EBUSY' });
    }
    for (const memoryBytes of [-1n, 64n * MIB]) await host.makeRoom('/pod', { memoryBytes });
    await host.makeRoom('/pod', { unified: { 'memory.max': 'max' } });
    await host.setLimits('/pod', { memoryBytes: 64n * MIB });
    assert.equal(readFileSync(join(root, 'pod/memory.max'), 'utf8'), String(64n * MIB));
  });
});

describe('limits of cgroups of this host', () => {
  const host = detectCgroups();
  const top = `/limits-test-${process.pid}`;
  const path = `${top}/container`;
  const read = (controller: string, name: string) =>
    host.version === 'v1'
      ? readFileSync(`/sys/fs/cgroup/${controller}${path}/${name}`, 'utf8').trim()
      : readFileSync(`/sys/fs/cgroup${path}/${name}`, 'utf8').trim();
  const memory = () =>
    host.version === 'v1' ? read('memory', 'memory.limit_in_bytes') : read('', 'memory.max');
  afterEach(() => host.remove(top));

  it('raises and lowers memory, and leaves all as it was when one limit is refused', async () => {
    host.create(path);
    const limit = (bytes: bigint) => ({ memoryBytes: bytes, memoryAndSwapBytes: bytes });
    await host.setLimits(path, limit(64n * MIB));
    await host.setLimits(path, limit(256n * MIB));
    await host.setLimits(path, { ...limit(32n * MIB), cpuQuotaUs: 50_000n });
    assert.equal(memory(), String(32n * MIB));
    // Neither version takes a processor that isn't there, and it comes before memory's turn or after.
    await assert.rejects(host.setLimits(path, { ...limit(16n * MIB), cpus: '4000' }), {
      code: /E(INVAL|RANGE|ACCES|PERM)/,
    });
    assert.equal(memory(), String(32n * MIB));
    const undo = await host.setLimits(path, limit(128n * MIB));
    await undo();
    assert.equal(memory(), String(32n * MIB));
    await assert.rejects(host.setLimits('/absent-cgroup', limit(MIB)), { code: 'ENOENT' });
  });

  it('keeps to the share of time of the parent at each step', async () => {
    host.create(path);
    await host.setLimits(top, { cpuQuotaUs: 50_000n, cpuPeriodUs: 100_000n });
    await host.setLimits(path, { cpuQuotaUs: 50_000n, cpuPeriodUs: 100_000n });
    await host.setLimits(path, { cpuQuotaUs: 100_000n, cpuPeriodUs: 200_000n });
    await host.setLimits(path, { cpuQuotaUs: 5_000n, cpuPeriodUs: 10_000n });
    if (host.version === 'v2') return;
    assert.equal(read('cpu', 'cpu.cfs_quota_us'), '5000');
    const above = { cpuQuotaUs: 9_000n, cpuPeriodUs: 10_000n, cpuShares: 77n };
    await assert.rejects(host.setLimits(path, above), { code: 'EINVAL' });
    assert.equal(read('cpu', 'cpu.cfs_quota_us'), '5000');
    assert.equal(read('cpu', 'cpu.shares'), '1024');
  });
});
