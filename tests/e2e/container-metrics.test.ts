// Metrics of containers: cAdvisor's names with cAdvisor's labels, and figures that are true.

import assert from 'node:assert/strict';
import {
  ListMetricDescriptorsRequest,
  ListPodSandboxMetricsRequest,
  type Metric,
  MetricType,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { describe, it } from 'mocha';
import { exec, runPod } from './harness/pods.ts';
import { eventually } from './harness/stack.ts';
import { stackSuite } from './harness/suite.ts';

const BUSY = "trap 'exit 0' TERM; while :; do :; done";
const MIB = 1024n * 1024n;

/** The names that the kubelet's own cAdvisor gives out for containers with a quota on any Linux host. */
const CADVISOR_NAMES = `
container_cpu_usage_seconds_total container_cpu_user_seconds_total container_cpu_system_seconds_total
container_cpu_cfs_periods_total container_cpu_cfs_throttled_periods_total
container_cpu_cfs_throttled_seconds_total container_cpu_load_average_10s container_tasks_state
container_file_descriptors container_sockets container_processes container_threads
container_threads_max container_ulimits_soft container_last_seen container_start_time_seconds
container_fs_inodes_free container_fs_inodes_total container_fs_limit_bytes container_fs_usage_bytes
container_memory_cache container_memory_failcnt container_memory_failures_total
container_memory_kernel_usage container_memory_mapped_file container_memory_max_usage_bytes
container_memory_rss container_memory_swap container_memory_usage_bytes
container_memory_working_set_bytes container_memory_total_active_file_bytes
container_memory_total_inactive_file_bytes container_oom_events_total
container_spec_cpu_period container_spec_cpu_shares container_spec_memory_limit_bytes
container_spec_memory_reservation_limit_bytes container_spec_memory_swap_limit_bytes`
  .trim()
  .split(/\s+/);
const NETWORK_NAMES = ['receive', 'transmit'].flatMap((way) =>
  ['bytes', 'packets', 'packets_dropped', 'errors'].map(
    (what) => `container_network_${way}_${what}_total`,
  ),
);
/** Only where the kernel, a scheduler or a block device counts them. */
const OTHER_NAMES = `
container_blkio_device_usage_total container_fs_reads_bytes_total container_fs_reads_total
container_fs_writes_bytes_total container_fs_writes_total container_fs_io_current
container_fs_io_time_seconds_total container_fs_read_seconds_total container_fs_write_seconds_total
container_fs_sector_reads_total container_fs_sector_writes_total container_fs_reads_merged_total
container_fs_writes_merged_total container_hugetlb_usage_bytes container_hugetlb_max_usage_bytes
container_hugetlb_failcnt container_pressure_cpu_stalled_seconds_total
container_pressure_cpu_waiting_seconds_total container_pressure_memory_stalled_seconds_total
container_pressure_memory_waiting_seconds_total container_pressure_io_stalled_seconds_total
container_pressure_io_waiting_seconds_total container_spec_cpu_quota`
  .trim()
  .split(/\s+/);

describe('metrics of containers', () => {
  const suite = stackSuite();
  const metrics = async () =>
    (await suite.cri.call('listPodSandboxMetrics', ListPodSandboxMetricsRequest.fromPartial({})))
      .podMetrics;
  const descriptors = async () => {
    const request = ListMetricDescriptorsRequest.fromPartial({});
    const answer = await suite.cri.call('listMetricDescriptors', request);
    return new Map(answer.descriptors.map((one) => [one.name, one]));
  };

  it("has cAdvisor's names with cAdvisor's labels, and a value for each label key", async () => {
    const { stack, image } = suite;
    const pod = await runPod(stack, {
      image,
      script: BUSY,
      container: {
        linux: { resources: { cpuQuota: 200_000n, cpuPeriod: 100_000n, cpuShares: 512n } },
      },
    });
    const known = await descriptors();
    for (const name of [...CADVISOR_NAMES, ...NETWORK_NAMES, ...OTHER_NAMES]) {
      const keys = known.get(name)?.labelKeys ?? [];
      assert.deepEqual(
        keys.slice(0, 6),
        ['container', 'id', 'image', 'name', 'namespace', 'pod'],
        name,
      );
      assert.notEqual(known.get(name)?.help, '');
    }
    const labelsOf = (name: string) => known.get(name)?.labelKeys.slice(6);
    assert.deepEqual(labelsOf('container_cpu_usage_seconds_total'), ['cpu']);
    assert.deepEqual(labelsOf('container_memory_failures_total'), ['failure_type', 'scope']);
    assert.deepEqual(labelsOf('container_network_receive_bytes_total'), ['interface']);
    assert.deepEqual(labelsOf('container_fs_usage_bytes'), ['device']);
    assert.deepEqual(labelsOf('container_tasks_state'), ['state']);
    assert.deepEqual(await descriptors(), known, 'they never change');

    const [of, ...others] = await metrics();
    assert.deepEqual([of?.podSandboxId, others], [pod.podId, []]);
    const [container] = of?.containerMetrics ?? [];
    assert.equal(container?.containerId, pod.containerId);
    const all: readonly Metric[] = [...(of?.metrics ?? []), ...(container?.metrics ?? [])];
    const seen = new Set<string>();
    for (const metric of all) {
      const descriptor = known.get(metric.name);
      assert.equal(metric.labelValues.length, descriptor?.labelKeys.length, metric.name);
      assert.ok(metric.timestamp > 0n && metric.value !== undefined, metric.name);
      const key = [metric.name, ...metric.labelValues].join('\0');
      assert.ok(!seen.has(key), `${key} is there twice`);
      seen.add(key);
    }
    const names = new Set(container?.metrics.map(({ name }) => name));
    assert.deepEqual(
      CADVISOR_NAMES.filter((name) => !names.has(name)),
      [],
    );
    assert.deepEqual(
      NETWORK_NAMES.filter((name) => !of?.metrics.some((metric) => metric.name === name)),
      [],
    );
    const measured = (name: string) => container?.metrics.find((one) => one.name === name);
    const usage = measured('container_cpu_usage_seconds_total');
    const { name = '', namespace = '' } = pod.config.metadata ?? {};
    assert.deepEqual(
      [usage?.metricType, usage?.labelValues],
      [
        MetricType.COUNTER,
        ['main', usage?.labelValues[1], image, pod.containerId, namespace, name, 'total'],
      ],
    );
    assert.ok(usage?.labelValues[1]?.endsWith(`/${pod.containerId}`), 'id is the cgroup');
    assert.equal(measured('container_spec_cpu_quota')?.value?.value, 200_000n);
    assert.equal(measured('container_spec_cpu_shares')?.value?.value, 512n);
    assert.equal(measured('container_processes')?.value?.value, 1n);
    assert.ok((measured('container_file_descriptors')?.value?.value ?? 0n) >= 3n);
  });

  it('metrics count what a container did: processor time, memory, disk and tasks', async () => {
    const { stack, cri, image } = suite;
    const pod = await runPod(stack, { image, script: BUSY });
    const read = async () => {
      const [of] = await metrics();
      const values = new Map<string, bigint>();
      for (const { name, labelValues, value } of of?.containerMetrics[0]?.metrics ?? []) {
        values.set([name, ...labelValues.slice(6)].join(' '), value?.value ?? 0n);
      }
      return values;
    };
    const first = await read();
    await exec(cri, pod.containerId, [
      'sh',
      '-c',
      'dd if=/dev/zero of=/file bs=1M count=8 conv=fsync && dd if=/dev/zero of=/dev/shm/x bs=1M count=16',
    ]);
    const second = await eventually(
      'a later sample',
      async () => {
        const values = await read();
        const seconds = values.get('container_cpu_usage_seconds_total total') ?? 0n;
        const grown = (name: string) => (values.get(name) ?? 0n) - (first.get(name) ?? 0n);
        return seconds >= 1n && grown('container_memory_working_set_bytes') >= 8n * MIB
          ? values
          : undefined;
      },
      30_000,
    );
    assert.ok((second.get('container_tasks_state running') ?? 0n) >= 1n);
    assert.ok(!second.has('container_cpu_cfs_periods_total'), 'it has no quota');
    const onDisk = [...second].find(([key]) => key.startsWith('container_fs_usage_bytes '));
    assert.ok((onDisk?.[1] ?? 0n) >= 8n * MIB);
    const lastSeen = (values: ReadonlyMap<string, bigint>) =>
      values.get('container_last_seen') ?? 0n;
    assert.ok(lastSeen(second) > lastSeen(first));
  });
});
