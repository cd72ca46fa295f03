// One reading of a cgroup v2, from the files of its one directory (cgroup-v2.rst).
import { present, workingSet } from './cgroup-files.ts';
import {
  type CgroupDetails,
  type CgroupUsage,
  countProcesses,
  createDeviceTable,
  type DeviceIo,
  type HugePageUsage,
  hugePageSizes,
  parseNumaStat,
  readNumber,
  readPressure,
  readTable,
  readUsageFile,
  type UsageOptions,
} from './cgroup-usage.ts';

/** memory.numa_stat of v2 is in bytes; all kernels that run here have pages of this size. */
const PAGE_BYTES = 4096n;

/** Reads a cgroup; empty where it is absent. */
export function usageV2(directory: string, options: UsageOptions): CgroupUsage {
  const stat = readTable(`${directory}/memory.stat`);
  const memory = readNumber(`${directory}/memory.current`);
  const cpu = readTable(`${directory}/cpu.stat`);
  const pressure = (name: string) => readPressure(`${directory}/${name}.pressure`);
  return present<CgroupUsage>({
    cpuNs: nanoseconds(cpu('usage_usec')),
    memoryUsageBytes: memory,
    memoryWorkingSetBytes: workingSet(memory, stat('inactive_file')),
    memoryRssBytes: stat('anon'),
    pageFaults: stat('pgfault'),
    majorPageFaults: stat('pgmajfault'),
    swapUsageBytes: readNumber(`${directory}/memory.swap.current`),
    memoryLimitBytes: readNumber(`${directory}/memory.max`),
    swapLimitBytes: readNumber(`${directory}/memory.swap.max`),
    processCount: countProcesses(directory),
    cpuPressure: pressure('cpu'),
    memoryPressure: pressure('memory'),
    ioPressure: pressure('io'),
    details:
      options.details && memory !== undefined ? details(directory, { stat, cpu }) : undefined,
  });
}

function nanoseconds(microseconds: bigint | undefined): bigint | undefined {
  return microseconds === undefined ? undefined : microseconds * 1000n;
}

type Table = (key: string) => bigint | undefined;

function details(
  directory: string,
  { stat, cpu }: { readonly stat: Table; readonly cpu: Table },
): CgroupDetails {
  const events = readTable(`${directory}/memory.events`);
  const [quota, period] = (readUsageFile(`${directory}/cpu.max`) ?? '').split(' ');
  const weight = readNumber(`${directory}/cpu.weight`);
  // What cAdvisor calls so on v2; memory.low it doesn't tell.
  const reservation = readNumber(`${directory}/memory.min`);
  return present<CgroupDetails>({
    cpuUserNs: nanoseconds(cpu('user_usec')),
    cpuSystemNs: nanoseconds(cpu('system_usec')),
    cfsPeriods: cpu('nr_periods'),
    cfsThrottledPeriods: cpu('nr_throttled'),
    cfsThrottledNs: nanoseconds(cpu('throttled_usec')),
    cfsBurstPeriods: cpu('nr_bursts'),
    cfsBurstNs: nanoseconds(cpu('burst_usec')),
    cpuShares: weight === undefined ? undefined : sharesOfWeight(weight),
    cpuPeriodUs: period === undefined ? undefined : BigInt(period),
    cpuQuotaUs: quota !== undefined && /^\d+$/.test(quota) ? BigInt(quota) : undefined,
    memoryCacheBytes: stat('file'),
    memoryMappedFileBytes: stat('file_mapped'),
    // `kernel` is of Linux 5.18; before, its largest parts.
    memoryKernelBytes:
      stat('kernel') ?? sum(stat('kernel_stack'), stat('slab'), stat('pagetables')),
    memoryMaxUsageBytes: readNumber(`${directory}/memory.peak`),
    memoryFailures: events('max'),
    memoryActiveFileBytes: stat('active_file'),
    memoryInactiveFileBytes: stat('inactive_file'),
    memoryDirtyBytes: stat('file_dirty'),
    memoryWritebackBytes: stat('file_writeback'),
    memoryPagesScanned: stat('pgscan'),
    memoryPagesReclaimed: stat('pgsteal'),
    memoryRefaultsFile: stat('workingset_refault_file'),
    memoryRefaultsAnon: stat('workingset_refault_anon'),
    memoryHighEvents: events('high'),
    memoryMaxEvents: events('max'),
    ownPageFaults: stat('pgfault'),
    ownMajorPageFaults: stat('pgmajfault'),
    oomKills: events('oom_kill'),
    memoryReservationBytes: reservation === 0n ? undefined : reservation,
    hugePages: hugePages(directory),
    numaPages: parseNumaStat(readUsageFile(`${directory}/memory.numa_stat`) ?? '', PAGE_BYTES),
    devices: devices(readUsageFile(`${directory}/io.stat`) ?? ''),
    threads: readNumber(`${directory}/pids.current`),
    threadsMax: readNumber(`${directory}/pids.max`),
    swapLimitBytes: readNumber(`${directory}/memory.swap.max`),
  });
}

function sum(...values: readonly (bigint | undefined)[]): bigint | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === 0 ? undefined : known.reduce((total, value) => total + value, 0n);
}

/** The shares from which an engine made this weight (runc: weight = 1 + (shares - 2) * 9999 / 262142). */
export function sharesOfWeight(weight: bigint): bigint {
  return 2n + ((weight - 1n) * 262142n) / 9999n;
}

function hugePages(directory: string): HugePageUsage[] {
  const sizes = hugePageSizes(directory, /^hugetlb\.(\w+)\.current$/);
  return sizes.flatMap((pageSize) => {
    const usageBytes = readNumber(`${directory}/hugetlb.${pageSize}.current`);
    if (usageBytes === undefined) return [];
    const failures = readTable(`${directory}/hugetlb.${pageSize}.events`)('max');
    return [present<HugePageUsage>({ pageSize, usageBytes, maxUsageBytes: undefined, failures })];
  });
}

/** What each key of io.stat counts; `cost.*` only where io.cost is on, in microseconds. */
const IO_KEYS: Readonly<Record<string, readonly [what: string, operation: string]>> = {
  rbytes: ['bytes', 'Read'],
  wbytes: ['bytes', 'Write'],
  dbytes: ['bytes', 'Discard'],
  rios: ['operations', 'Read'],
  wios: ['operations', 'Write'],
  dios: ['operations', 'Discard'],
  'cost.usage': ['cost.usage', 'Count'],
  'cost.wait': ['cost.wait', 'Count'],
  'cost.indebt': ['cost.indebt', 'Count'],
  'cost.indelay': ['cost.indelay', 'Count'],
};

/** Lines `8:0 rbytes=4096 wbytes=0 …`. */
function devices(text: string): DeviceIo[] {
  const table = createDeviceTable();
  for (const line of text.split('\n')) {
    const [device = '', ...pairs] = line.split(' ');
    if (!/^\d+:\d+$/.test(device)) continue;
    for (const pair of pairs) {
      const [key = '', value = ''] = pair.split('=');
      const meaning = IO_KEYS[key];
      if (meaning === undefined || !/^\d+$/.test(value)) continue;
      table.add(device, { what: meaning[0], operation: meaning[1], value: BigInt(value) });
    }
  }
  return table.all();
}
