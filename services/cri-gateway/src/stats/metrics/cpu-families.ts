// Processor time and its limits.

import type { CgroupDetails } from '@cribus/contracts/gen/node/v1/records.ts';
import { counter, detail, type Family, gauge, one, seconds } from './family.ts';

export const CPU_FAMILIES: readonly Family[] = [
  counter(
    'container_cpu_usage_seconds_total',
    { help: 'Processor time used, in seconds; cpu is always "total".', labels: ['cpu'] },
    ({ cgroup }) => one(seconds(cgroup?.cpuNs)).map(({ value }) => ({ value, labels: ['total'] })),
  ),
  detail(counter, 'container_cpu_user_seconds_total', {
    help: 'Processor time used in user mode, in seconds.',
    pick: (details) => seconds(details.cpuUserNs),
  }),
  detail(counter, 'container_cpu_system_seconds_total', {
    help: 'Processor time used in kernel mode, in seconds.',
    pick: (details) => seconds(details.cpuSystemNs),
  }),
  detail(counter, 'container_cpu_cfs_periods_total', {
    help: 'Scheduler periods that passed under a quota.',
    pick: underQuota((details) => details.cfsPeriods),
  }),
  detail(counter, 'container_cpu_cfs_throttled_periods_total', {
    help: 'Scheduler periods in which the quota ran out.',
    pick: underQuota((details) => details.cfsThrottledPeriods),
  }),
  detail(counter, 'container_cpu_cfs_throttled_seconds_total', {
    help: 'Time for which the quota held it back, in seconds.',
    pick: underQuota((details) => seconds(details.cfsThrottledNs)),
  }),
  detail(counter, 'container_cpu_cfs_burst_periods_total', {
    help: 'Scheduler periods in which it used saved quota.',
    extra: true,
    pick: underQuota((details) => details.cfsBurstPeriods),
  }),
  detail(counter, 'container_cpu_cfs_burst_seconds_total', {
    help: 'Time that it took from saved quota, in seconds.',
    extra: true,
    pick: underQuota((details) => seconds(details.cfsBurstNs)),
  }),
  counter(
    'container_cpu_schedstat_run_seconds_total',
    { help: 'Time for which its threads ran, in seconds.', extra: true },
    ({ processes }) => one(seconds(processes?.runNs)),
  ),
  counter(
    'container_cpu_schedstat_runqueue_seconds_total',
    { help: 'Time for which its threads waited for a processor, in seconds.', extra: true },
    ({ processes }) => one(seconds(processes?.runQueueNs)),
  ),
  counter(
    'container_cpu_schedstat_run_periods_total',
    { help: 'How often one of its threads was given a processor.', extra: true },
    ({ processes }) => one(processes?.runPeriods),
  ),
  gauge(
    'container_cpu_load_average_10s',
    { help: 'Runnable threads over the last ten seconds, times 1000.' },
    ({ processes }) => one(processes?.loadAverageMilli),
  ),
  gauge(
    'container_cpu_load_d_average_10s',
    {
      help: 'Threads in uninterruptible sleep over the last ten seconds, times 1000.',
      extra: true,
    },
    ({ processes }) => one(processes?.loadDAverageMilli),
  ),
  detail(gauge, 'container_spec_cpu_period', {
    help: 'Length of a scheduler period, in microseconds.',
    pick: (details) => details.cpuPeriodUs,
  }),
  detail(gauge, 'container_spec_cpu_quota', {
    help: 'Processor time per period, in microseconds; absent without a quota.',
    pick: (details) => details.cpuQuotaUs,
  }),
  detail(gauge, 'container_spec_cpu_shares', {
    help: 'Share of the processors where they are short.',
    pick: (details) => details.cpuShares,
  }),
];

/** The kernel counts zeros where there is no quota; as for cAdvisor, there is nothing to count then. */
function underQuota(
  pick: (details: CgroupDetails) => bigint | undefined,
): (details: CgroupDetails) => bigint | undefined {
  return (details) => (details.cpuQuotaUs === undefined ? undefined : pick(details));
}
