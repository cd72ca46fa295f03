// Memory, swap, huge pages, and what ran out of them.

import type { HugePageUsage } from '@cribus/contracts/gen/node/v1/records.ts';
import { counter, detail, type Family, gauge, one } from './family.ts';

export const MEMORY_FAMILIES: readonly Family[] = [
  gauge(
    'container_memory_usage_bytes',
    { help: 'Memory in use, with everything that is cached.' },
    ({ cgroup }) => one(cgroup?.memoryUsageBytes),
  ),
  gauge(
    'container_memory_working_set_bytes',
    { help: 'Memory in use without inactive file pages, as the kubelet looks at it.' },
    ({ cgroup }) => one(cgroup?.memoryWorkingSetBytes),
  ),
  gauge('container_memory_rss', { help: 'Anonymous memory, in bytes.' }, ({ cgroup }) =>
    one(cgroup?.memoryRssBytes),
  ),
  gauge('container_memory_swap', { help: 'Swap in use, in bytes.' }, ({ cgroup }) =>
    one(cgroup?.swapUsageBytes),
  ),
  detail(gauge, 'container_memory_cache', {
    help: 'Page cache, in bytes.',
    pick: (details) => details.memoryCacheBytes,
  }),
  detail(gauge, 'container_memory_mapped_file', {
    help: 'Files mapped into memory, in bytes.',
    pick: (details) => details.memoryMappedFileBytes,
  }),
  detail(gauge, 'container_memory_kernel_usage', {
    help: 'Memory that the kernel allocated for it, in bytes.',
    pick: (details) => details.memoryKernelBytes,
  }),
  detail(gauge, 'container_memory_max_usage_bytes', {
    help: 'The most memory that was in use at once.',
    pick: (details) => details.memoryMaxUsageBytes,
  }),
  detail(counter, 'container_memory_failcnt', {
    help: 'How often the memory limit was hit.',
    pick: (details) => details.memoryFailures,
  }),
  detail(gauge, 'container_memory_total_active_file_bytes', {
    help: 'File pages used of late.',
    pick: (details) => details.memoryActiveFileBytes,
  }),
  detail(gauge, 'container_memory_total_inactive_file_bytes', {
    help: 'File pages not used of late.',
    pick: (details) => details.memoryInactiveFileBytes,
  }),
  counter(
    'container_memory_failures_total',
    {
      help: 'Page faults, minor and major, of itself and with the cgroups below.',
      labels: ['failure_type', 'scope'],
    },
    ({ cgroup }) => [
      ...labelled(cgroup?.details?.ownPageFaults, 'pgfault', 'container'),
      ...labelled(cgroup?.details?.ownMajorPageFaults, 'pgmajfault', 'container'),
      ...labelled(cgroup?.pageFaults, 'pgfault', 'hierarchy'),
      ...labelled(cgroup?.majorPageFaults, 'pgmajfault', 'hierarchy'),
    ],
  ),
  detail(counter, 'container_memory_events_high_total', {
    help: 'How often memory.high slowed it down.',
    extra: true,
    pick: (details) => details.memoryHighEvents,
  }),
  detail(counter, 'container_memory_events_max_total', {
    help: 'How often memory.max was hit.',
    extra: true,
    pick: (details) => details.memoryMaxEvents,
  }),
  detail(gauge, 'container_memory_file_dirty_bytes', {
    help: 'File pages not written back yet.',
    extra: true,
    pick: (details) => details.memoryDirtyBytes,
  }),
  detail(gauge, 'container_memory_file_writeback_bytes', {
    help: 'File pages being written back.',
    extra: true,
    pick: (details) => details.memoryWritebackBytes,
  }),
  detail(counter, 'container_memory_pgscan_total', {
    help: 'Pages looked at for reclaim.',
    extra: true,
    pick: (details) => details.memoryPagesScanned,
  }),
  detail(counter, 'container_memory_pgsteal_total', {
    help: 'Pages reclaimed.',
    extra: true,
    pick: (details) => details.memoryPagesReclaimed,
  }),
  detail(counter, 'container_memory_workingset_refault_file_total', {
    help: 'File pages that had to come back soon after their reclaim.',
    extra: true,
    pick: (details) => details.memoryRefaultsFile,
  }),
  detail(counter, 'container_memory_workingset_refault_anon_total', {
    help: 'Anonymous pages that had to come back soon after their reclaim.',
    extra: true,
    pick: (details) => details.memoryRefaultsAnon,
  }),
  detail(gauge, 'container_memory_migrate', {
    help: '1 where memory follows a change of its NUMA nodes.',
    extra: true,
    pick: (details) => details.memoryMigrate,
  }),
  gauge(
    'container_memory_numa_pages',
    { help: 'Pages by NUMA node.', labels: ['type', 'scope', 'node'], extra: true },
    ({ cgroup }) =>
      (cgroup?.details?.numaPages ?? []).map(({ kind, scope, node, pages }) => ({
        value: pages,
        labels: [kind, scope, String(node)],
      })),
  ),
  detail(counter, 'container_oom_events_total', {
    help: 'Processes that the out-of-memory killer took.',
    pick: (details) => details.oomKills,
  }),
  gauge(
    'container_spec_memory_limit_bytes',
    { help: 'Memory limit; 0 without one.' },
    ({ cgroup }) => limit(cgroup, cgroup?.memoryLimitBytes),
  ),
  gauge(
    'container_spec_memory_swap_limit_bytes',
    { help: 'Limit of swap, with cgroup v1 of memory and swap together; 0 without one.' },
    ({ cgroup }) => limit(cgroup, cgroup?.details?.swapLimitBytes),
  ),
  gauge(
    'container_spec_memory_reservation_limit_bytes',
    { help: 'Memory that is spared by reclaim; 0 without.' },
    ({ cgroup }) => limit(cgroup, cgroup?.details?.memoryReservationBytes),
  ),
  hugePages(gauge, 'container_hugetlb_usage_bytes', {
    help: 'Huge pages in use, in bytes.',
    pick: (of) => of.usageBytes,
  }),
  hugePages(gauge, 'container_hugetlb_max_usage_bytes', {
    help: 'The most huge pages in use at once, in bytes.',
    pick: (of) => of.maxUsageBytes,
  }),
  hugePages(counter, 'container_hugetlb_failcnt', {
    help: 'How often the limit of huge pages was hit.',
    pick: (of) => of.failures,
  }),
];

function labelled(value: bigint | undefined, ...labels: readonly string[]) {
  return value === undefined ? [] : [{ value, labels }];
}

/** "No limit" is 0 for cAdvisor, and dashboards look for it; what is not sampled has no value. */
function limit(cgroup: object | undefined, value: bigint | undefined) {
  return cgroup === undefined ? [] : one(value ?? 0n);
}

function hugePages(
  make: typeof counter,
  name: string,
  text: { readonly help: string; readonly pick: (of: HugePageUsage) => bigint | undefined },
): Family {
  return make(name, { help: text.help, labels: ['pagesize'] }, ({ cgroup }) =>
    (cgroup?.details?.hugePages ?? []).flatMap((of) => labelled(text.pick(of), of.pageSize)),
  );
}
