import assert from 'node:assert/strict';
import {
  ContainerPhase,
  ContainerRecord,
  ContainerUsage,
  ImageRecord,
  SandboxRecord,
  SandboxUsage,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { describe, it } from 'mocha';
import { COMMON_LABELS, FAMILIES, metricDescriptors } from './descriptors.ts';
import { chooseFamilies, podSandboxMetrics } from './pod-metrics.ts';

/** Everything that a kernel could count; each number another one. */
const stall = { totalUs: 7_000_000n, avg10: 1, avg60: 2, avg300: 3 };
const pressure = { some: stall, full: stall };
const details = {
  cpuUserNs: 3_000_000_000n,
  cpuSystemNs: 2_000_000_000n,
  cfsPeriods: 1n,
  cfsThrottledPeriods: 1n,
  cfsThrottledNs: 1n,
  cfsBurstPeriods: 1n,
  cfsBurstNs: 1n,
  cpuShares: 1n,
  cpuPeriodUs: 1n,
  cpuQuotaUs: 1n,
  memoryCacheBytes: 1n,
  memoryMappedFileBytes: 1n,
  memoryKernelBytes: 1n,
  memoryMaxUsageBytes: 1n,
  memoryFailures: 1n,
  memoryActiveFileBytes: 1n,
  memoryInactiveFileBytes: 1n,
  memoryDirtyBytes: 1n,
  memoryWritebackBytes: 1n,
  memoryPagesScanned: 1n,
  memoryPagesReclaimed: 1n,
  memoryRefaultsFile: 1n,
  memoryRefaultsAnon: 1n,
  memoryHighEvents: 1n,
  memoryMaxEvents: 1n,
  ownPageFaults: 1n,
  ownMajorPageFaults: 1n,
  oomKills: 1n,
  memoryReservationBytes: 1n,
  memoryMigrate: 0n,
  threads: 1n,
  threadsMax: 1n,
  swapLimitBytes: 700n,
  hugePages: [{ pageSize: '2MB', usageBytes: 1n, maxUsageBytes: 2n, failures: 3n }],
  numaPages: [{ kind: 'file', scope: 'container', node: 0, pages: 9n }],
  devices: [
    {
      major: 8,
      minor: 0,
      device: '/dev/sda',
      counts: [
        ...['bytes', 'operations', 'sectors', 'merged', 'service_ns'].flatMap((what) =>
          ['Read', 'Write', 'Total'].map((operation) => ({ what, operation, value: 5n })),
        ),
        { what: 'queued', operation: 'Total', value: 1n },
        ...['usage', 'wait', 'indebt', 'indelay'].map((what) => ({
          what: `cost.${what}`,
          operation: 'Count',
          value: 2_000_000n,
        })),
      ],
    },
  ],
};
const cgroup = {
  sampledAtNs: 5_000_000_000n,
  cpuNs: 6_500_000_000n,
  memoryUsageBytes: 100n,
  memoryWorkingSetBytes: 90n,
  memoryRssBytes: 80n,
  pageFaults: 4n,
  majorPageFaults: 1n,
  swapUsageBytes: 2n,
  memoryLimitBytes: 1000n,
  swapLimitBytes: 500n,
  processCount: 3n,
  cpuPressure: pressure,
  memoryPressure: pressure,
  ioPressure: pressure,
  details,
};
const usage = ContainerUsage.fromPartial({
  cgroup,
  processes: {
    processes: 2n,
    threads: 3n,
    fileDescriptors: 4n,
    sockets: 1n,
    openFilesSoftLimit: -1n,
    running: 1n,
    runNs: 1n,
    runQueueNs: 1n,
    runPeriods: 1n,
    loadAverageMilli: 1500n,
    loadDAverageMilli: 0n,
  },
  writableLayer: { device: '/dev/vda', usedBytes: 4096n, inodesUsed: 1n },
});
const record = ContainerRecord.fromPartial({
  id: 'c'.repeat(64),
  phase: ContainerPhase.RUNNING,
  startedAtNs: 3_000_000_000n,
  createdAtNs: 2_000_000_000n,
  cgroupPath: '/kubepods/pod1/c',
  config: { metadata: { name: 'main' }, image: { image: 'sha256:1' } },
});
const sandbox = SandboxRecord.fromPartial({
  id: 'd'.repeat(64),
  config: { metadata: { name: 'pod', namespace: 'space' } },
});
const image = ImageRecord.fromPartial({ repoTags: ['docker.io/library/busybox:1'] });
const pod = SandboxUsage.fromPartial({
  cgroup,
  cgroupPath: '/kubepods/pod1',
  network: { interfaces: [{ name: 'eth0', rxBytes: 1n }] },
});
const whole = (extra: boolean) =>
  podSandboxMetrics(
    {
      record: sandbox,
      sample: { latest: pod, detailed: pod },
      containers: [{ record, sample: { latest: usage, detailed: usage }, image }],
    },
    chooseFamilies({ extra }),
  );

describe('metrics of a pod', () => {
  it('have a value for each label key, for every family that there is', () => {
    const descriptors = new Map(metricDescriptors().map((one) => [one.name, one]));
    assert.equal(descriptors.size, FAMILIES.length, 'no name twice');
    const { metrics, containerMetrics } = whole(true);
    const all = [...metrics, ...(containerMetrics[0]?.metrics ?? [])];
    for (const { name, labelValues } of all) {
      assert.equal(labelValues.length, descriptors.get(name)?.labelKeys.length, name);
    }
    const seen = new Set(all.map(({ name }) => name));
    assert.deepEqual(
      [...descriptors.keys()].filter((name) => !seen.has(name)),
      [],
    );
    const series = all.map(({ name, labelValues }) => [name, ...labelValues].join('|'));
    assert.equal(new Set(series).size, series.length, 'no series twice');
  });

  it('say whose they are as the kubelet does for cAdvisor', () => {
    assert.deepEqual(COMMON_LABELS, ['container', 'id', 'image', 'name', 'namespace', 'pod']);
    const { metrics, containerMetrics } = whole(true);
    const find = (name: string, more: readonly string[] = []) =>
      containerMetrics[0]?.metrics.find(
        (one) => one.name === name && more.every((label) => one.labelValues.includes(label)),
      );
    assert.deepEqual(find('container_memory_rss')?.labelValues, [
      'main',
      '/kubepods/pod1/c',
      'docker.io/library/busybox:1',
      record.id,
      'space',
      'pod',
    ]);
    assert.deepEqual(metrics.find(({ name }) => name === 'container_memory_rss')?.labelValues, [
      '',
      '/kubepods/pod1',
      '',
      '',
      'space',
      'pod',
    ]);
    assert.equal(find('container_cpu_usage_seconds_total')?.value?.value, 6n);
    assert.equal(find('container_pressure_io_stalled_seconds_total')?.value?.value, 7n);
    assert.equal(find('container_spec_memory_swap_limit_bytes')?.value?.value, 700n);
    assert.equal(find('container_ulimits_soft')?.value?.value, 2n ** 64n - 1n);
    assert.equal(find('container_fs_io_cost_wait_seconds_total')?.value?.value, 2n);
    assert.deepEqual(
      find('container_memory_failures_total', ['pgfault', 'hierarchy'])?.value?.value,
      4n,
    );
    assert.deepEqual(find('container_blkio_device_usage_total', ['Write'])?.labelValues.slice(6), [
      '/dev/sda',
      '8',
      '0',
      'Write',
    ]);
  });

  it('count periods of a quota only where there is one', () => {
    const { cpuQuotaUs: _quota, ...free } = details;
    const unlimited = ContainerUsage.fromPartial({
      ...usage,
      cgroup: { ...cgroup, details: free },
    });
    const namesOf = (reading: ContainerUsage) => {
      const sample = { latest: reading, detailed: reading };
      const of = { record: sandbox, sample: undefined, containers: [{ record, sample, image }] };
      const [container] = podSandboxMetrics(of, chooseFamilies({ extra: true })).containerMetrics;
      return container?.metrics.map(({ name }) => name) ?? [];
    };
    const left = namesOf(unlimited);
    const gone = namesOf(usage).filter((name) => !left.includes(name));
    assert.deepEqual(gone.sort(), [
      'container_cpu_cfs_burst_periods_total',
      'container_cpu_cfs_burst_seconds_total',
      'container_cpu_cfs_periods_total',
      'container_cpu_cfs_throttled_periods_total',
      'container_cpu_cfs_throttled_seconds_total',
      'container_spec_cpu_quota',
    ]);
  });

  it('leave out what was not counted, and the extra ones on a node with very many containers', () => {
    const names = (extra: boolean) =>
      new Set(whole(extra).containerMetrics[0]?.metrics.map(({ name }) => name));
    assert.ok(names(true).has('container_memory_numa_pages'));
    assert.ok(!names(false).has('container_memory_numa_pages'));
    assert.ok(names(false).has('container_memory_working_set_bytes'));
    const bare = ContainerUsage.fromPartial({ cgroup: { sampledAtNs: 5n, cpuNs: 1n } });
    const few = podSandboxMetrics(
      {
        record: sandbox,
        sample: undefined,
        containers: [
          { record, sample: { latest: bare }, image: undefined },
          { record, sample: undefined, image: undefined },
        ],
      },
      chooseFamilies({ extra: true }),
    );
    assert.equal(few.containerMetrics.length, 1);
    assert.equal(few.metrics.length, 0);
    const left = few.containerMetrics[0]?.metrics.map(({ name }) => name) ?? [];
    assert.ok(left.includes('container_cpu_usage_seconds_total'));
    assert.ok(!left.includes('container_memory_usage_bytes'));
  });
});
