import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'mocha';
import { parsePressure } from './cgroup-usage.ts';
import { usageV1 } from './cgroup-usage-v1.ts';
import { sharesOfWeight, usageV2 } from './cgroup-usage-v2.ts';

const details = { details: true } as const;
let root = '';

function write(files: Readonly<Record<string, string>>): void {
  for (const [name, text] of Object.entries(files)) {
    const path = join(root, name);
    mkdirSync(join(path, '..'), { recursive: true });
    writeFileSync(path, text);
  }
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'usage-'));
});
afterEach(() => rmSync(root, { recursive: true }));

describe('usage of a cgroup v2', () => {
  it('has everything that the files of a busy cgroup tell', () => {
    write({
      'a/cpu.stat':
        'usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 10\nnr_throttled 2\nthrottled_usec 7\nnr_bursts 1\nburst_usec 3\n',
      'a/cpu.max': '50000 100000\n',
      'a/cpu.weight': '100\n',
      'a/cpu.pressure': 'some avg10=1.00 avg60=2.00 avg300=3.00 total=4\n',
      'a/io.pressure':
        'some avg10=0.00 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=5\n',
      'a/memory.current': '1000\n',
      'a/memory.peak': '2000\n',
      'a/memory.max': '4000\n',
      'a/memory.swap.max': 'max\n',
      'a/memory.low': '4096\n',
      'a/memory.min': '0\n',
      'a/memory.stat':
        'anon 300\nfile 450\nkernel 50\nfile_mapped 20\nfile_dirty 4\ninactive_file 400\nactive_file 50\npgfault 5\npgmajfault 1\npgscan 6\npgsteal 3\n',
      'a/memory.events': 'low 0\nhigh 8\nmax 9\noom 3\noom_kill 2\n',
      'a/memory.numa_stat': 'anon N0=8192 N1=4096\nfile N0=0 N1=0\nshmem N0=4096\n',
      'a/hugetlb.2MB.current': '2097152\n',
      'a/hugetlb.2MB.events': 'max 4\n',
      'a/pids.current': '4\n',
      'a/pids.max': 'max\n',
      'a/cgroup.procs': '12\n13\n',
      'a/below/cgroup.procs': '14\n',
      'a/io.stat':
        '259:9 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0 cost.usage=77\n8:200 \n',
    });
    const usage = usageV2(join(root, 'a'), details);
    assert.equal(usage.memoryWorkingSetBytes, 600n);
    assert.equal(usage.memoryLimitBytes, 4000n);
    assert.equal('swapLimitBytes' in usage, false);
    assert.equal(usage.processCount, 3n);
    assert.deepEqual(usage.cpuPressure, { some: { totalUs: 4n, avg10: 1, avg60: 2, avg300: 3 } });
    assert.equal(usage.ioPressure?.full?.avg10, 0.5);
    const found = usage.details;
    assert.deepEqual(
      [found?.cpuUserNs, found?.cfsThrottledNs, found?.cfsBurstNs, found?.cpuShares],
      [1_000_000n, 7_000n, 3_000n, sharesOfWeight(100n)],
    );
    assert.deepEqual([found?.cpuQuotaUs, found?.cpuPeriodUs], [50_000n, 100_000n]);
    assert.deepEqual(
      [found?.memoryKernelBytes, found?.memoryMaxUsageBytes, found?.oomKills],
      [50n, 2000n, 2n],
    );
    assert.equal(found !== undefined && 'memoryReservationBytes' in found, false);
    assert.equal(found !== undefined && 'threadsMax' in found, false);
    assert.equal(found !== undefined && 'swapLimitBytes' in found, false);
    assert.deepEqual(found?.hugePages, [{ pageSize: '2MB', usageBytes: 2_097_152n, failures: 4n }]);
    assert.deepEqual(
      found?.numaPages?.map(({ kind, scope, node, pages }) => [kind, scope, node, pages]),
      [
        ['anon', 'hierarchy', 0, 2n],
        ['anon', 'hierarchy', 1, 1n],
        ['file', 'hierarchy', 0, 0n],
        ['file', 'hierarchy', 1, 0n],
      ],
    );
    const [device, ...others] = found?.devices ?? [];
    assert.equal(others.length, 0);
    assert.deepEqual([device?.major, device?.minor], [259, 9]);
    assert.deepEqual(device?.counts[1], { what: 'bytes', operation: 'Write', value: 8192n });
    assert.deepEqual(device?.counts.at(-1), {
      what: 'cost.usage',
      operation: 'Count',
      value: 77n,
    });
  });

  it('has a reservation as cAdvisor has it, and the limit of swap by itself', () => {
    write({
      'a/memory.current': '1000\n',
      'a/memory.max': '4000\n',
      'a/memory.swap.max': '500\n',
      'a/memory.low': '300\n',
      'a/memory.min': '200\n',
    });
    const { details: found, ...plain } = usageV2(join(root, 'a'), details);
    assert.deepEqual([plain.memoryLimitBytes, plain.swapLimitBytes], [4000n, 500n]);
    assert.deepEqual([found?.memoryReservationBytes, found?.swapLimitBytes], [200n, 500n]);
  });

  it('counts every process of a list that takes several readings', () => {
    const pids = (count: number) =>
      Array.from({ length: count }, (_, at) => `${at + 1}\n`).join('');
    write({
      'a/memory.current': '1\n',
      'a/cgroup.procs': pids(30_000),
      'a/below/cgroup.procs': pids(7),
      'a/below/empty/cgroup.procs': '',
    });
    assert.equal(usageV2(join(root, 'a'), { details: false }).processCount, 30_007n);
  });

  it('is empty for a cgroup that is not there', () => {
    assert.deepEqual(usageV2(join(root, 'absent'), details), {});
  });
});

describe('usage of a cgroup v1', () => {
  const roots = (unified = false) => ({
    rootOf: (controller: string) =>
      controller === 'hugetlb' && unified ? undefined : join(root, controller),
    ...(unified ? { unified: join(root, 'unified') } : {}),
  });

  it('has everything that the files of its hierarchies tell', () => {
    write({
      'cpuacct/p/cpuacct.usage': '1500\n',
      'cpuacct/p/cpuacct.stat': 'user 3\nsystem 2\n',
      'cpu/p/cpu.stat': 'nr_periods 10\nnr_throttled 2\nthrottled_time 7\n',
      'cpu/p/cpu.shares': '512\n',
      'cpu/p/cpu.cfs_period_us': '100000\n',
      'cpu/p/cpu.cfs_quota_us': '-1\n',
      'memory/p/memory.usage_in_bytes': '1000\n',
      'memory/p/memory.limit_in_bytes': '4000\n',
      'memory/p/memory.memsw.limit_in_bytes': '6000\n',
      'memory/p/memory.soft_limit_in_bytes': '9223372036854771712\n',
      'memory/p/memory.stat':
        'pgfault 4\ninactive_file 1\nhierarchical_memory_limit 3000\nhierarchical_memsw_limit 3000\ntotal_cache 450\ntotal_rss 300\ntotal_inactive_file 400\ntotal_pgfault 5\ntotal_swap 6\n',
      'memory/p/memory.oom_control': 'oom_kill_disable 0\nunder_oom 0\noom_kill 1\n',
      'memory/p/below/memory.oom_control': 'oom_kill 2\n',
      'memory/p/memory.numa_stat': 'total=2 N0=2\nanon=3 N0=3\nhierarchical_anon=5 N0=5\n',
      'hugetlb/p/hugetlb.2MB.usage_in_bytes': '4\n',
      'hugetlb/p/hugetlb.2MB.max_usage_in_bytes': '8\n',
      'hugetlb/p/hugetlb.2MB.failcnt': '1\n',
      'pids/p/cgroup.procs': '12\n',
      'pids/p/pids.current': '3\n',
      'pids/p/pids.max': '100\n',
      'blkio/p/blkio.throttle.io_service_bytes_recursive':
        '259:9 Read 4096\n259:9 Write 512\nTotal 4608\n',
      'blkio/p/blkio.throttle.io_serviced': '259:9 Read 1\n',
      'blkio/p/blkio.sectors_recursive': '259:9 9\n',
    });
    const usage = usageV1(roots(), '/p', details);
    const { details: found, ...plain } = usage;
    assert.deepEqual(plain, {
      cpuNs: 1500n,
      memoryUsageBytes: 1000n,
      memoryWorkingSetBytes: 600n,
      memoryRssBytes: 300n,
      pageFaults: 5n,
      swapUsageBytes: 6n,
      memoryLimitBytes: 4000n,
      swapLimitBytes: 2000n,
      processCount: 1n,
    });
    assert.deepEqual([found?.cpuUserNs, found?.cpuSystemNs], [30_000_000n, 20_000_000n]);
    assert.deepEqual([found?.cpuShares, found?.cpuPeriodUs], [512n, 100_000n]);
    assert.equal(found !== undefined && 'cpuQuotaUs' in found, false);
    assert.equal(found !== undefined && 'memoryReservationBytes' in found, false);
    assert.equal(found?.oomKills, 3n, 'also of the cgroups below');
    assert.equal(found?.swapLimitBytes, 6000n, 'with memory');
    assert.deepEqual([found?.ownPageFaults, found?.threads, found?.threadsMax], [4n, 3n, 100n]);
    assert.deepEqual(found?.hugePages, [
      { pageSize: '2MB', usageBytes: 4n, maxUsageBytes: 8n, failures: 1n },
    ]);
    assert.deepEqual(
      found?.numaPages?.map(({ scope, pages }) => [scope, pages]),
      [
        ['container', 3n],
        ['hierarchy', 5n],
      ],
    );
    assert.deepEqual(found?.devices?.[0]?.counts, [
      { what: 'bytes', operation: 'Read', value: 4096n },
      { what: 'bytes', operation: 'Write', value: 512n },
      { what: 'operations', operation: 'Read', value: 1n },
      { what: 'sectors', operation: 'Total', value: 9n },
    ]);
  });

  it('has no limit where only a cgroup above has one', () => {
    const unlimited = '9223372036854771712\n';
    write({
      'memory/p/memory.usage_in_bytes': '1000\n',
      'memory/p/memory.stat': 'hierarchical_memory_limit 3000\nhierarchical_memsw_limit 3000\n',
      'memory/p/memory.limit_in_bytes': unlimited,
      'memory/p/memory.memsw.limit_in_bytes': unlimited,
    });
    const { details: found, ...plain } = usageV1(roots(), '/p', details);
    assert.deepEqual(plain, { memoryUsageBytes: 1000n, memoryWorkingSetBytes: 1000n });
    assert.equal(found !== undefined && 'swapLimitBytes' in found, false);
  });

  it('takes pressure from the cgroup2 mount of a hybrid host, and leaves out what is not counted', () => {
    write({
      'memory/p/memory.usage_in_bytes': '1000\n',
      'memory/p/memory.stat':
        'hierarchical_memory_limit 9223372036854771712\ntotal_inactive_file 4000\n',
      'unified/p/memory.pressure': 'some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n',
    });
    assert.deepEqual(usageV1(roots(true), '/p', { details: false }), {
      memoryUsageBytes: 1000n,
      memoryWorkingSetBytes: 0n,
      memoryPressure: { some: { totalUs: 12n, avg10: 0, avg60: 0, avg300: 0 } },
    });
  });
});

describe('pressure', () => {
  it('is undefined for a text that tells none', () => {
    assert.equal(parsePressure(''), undefined);
    assert.equal(parsePressure('some avg10=x'), undefined);
  });
});
