// One reading of a cgroup v1: the same path in the hierarchy of each controller, and pressure from the
// cgroup2 mount of a hybrid host, where engines make the path too.
import { cgroupDirectory, cgroupTree, present, workingSet } from './cgroup-files.ts';
import {
  type CgroupDetails,
  type CgroupUsage,
  countProcesses,
  createDeviceTable,
  type DeviceIo,
  type HugePageUsage,
  hugePageSizes,
  limitOf,
  parseNumaStat,
  readNumber,
  readPressure,
  readTable,
  readUsageFile,
  type UsageOptions,
} from './cgroup-usage.ts';

export interface V1Roots {
  /** Where the hierarchy with this controller is mounted; undefined where none has it. */
  rootOf(controller: string): string | undefined;
  /** Where cgroup2 is mounted on a hybrid host. */
  readonly unified?: string;
}

/** cpuacct.stat counts in USER_HZ, which is 100 on every architecture that we run on (times(2)). */
const TICK_NS = 10_000_000n;

/** What blkio counts (cgroup-v1/blkio-controller.rst): the last two only with CFQ, or BFQ's debugging. */
const BLKIO_FILES: readonly (readonly [what: string, files: readonly string[]])[] = [
  ['bytes', ['throttle.io_service_bytes_recursive', 'throttle.io_service_bytes']],
  ['operations', ['throttle.io_serviced_recursive', 'throttle.io_serviced']],
  ['merged', ['bfq.io_merged_recursive', 'io_merged_recursive']],
  ['sectors', ['bfq.sectors_recursive', 'sectors_recursive']],
  ['service_ns', ['bfq.io_service_time_recursive', 'io_service_time_recursive']],
  ['queued', ['bfq.io_queued_recursive', 'io_queued_recursive']],
];

/** Reads a cgroup; empty where the path is absent. */
export function usageV1(roots: V1Roots, path: string, options: UsageOptions): CgroupUsage {
  const directory = (controller: string) => {
    const root = roots.rootOf(controller);
    return root === undefined ? undefined : cgroupDirectory(root, path);
  };
  const file = (controller: string, name: string) => {
    const at = directory(controller);
    return at === undefined ? undefined : `${at}/${name}`;
  };
  const stat = readTable(file('memory', 'memory.stat'));
  const memory = readNumber(file('memory', 'memory.usage_in_bytes'));
  // The statistics name the least limit of the cgroup and all above it: without one there is none to read.
  const ownLimit = (least: string, name: string) =>
    limitOf(stat(least)) === undefined ? undefined : limitOf(readNumber(file('memory', name)));
  const memoryLimitBytes = ownLimit('hierarchical_memory_limit', 'memory.limit_in_bytes');
  const bothLimitBytes = ownLimit('hierarchical_memsw_limit', 'memory.memsw.limit_in_bytes');
  const unified = roots.unified === undefined ? undefined : cgroupDirectory(roots.unified, path);
  const pressure = (name: string) =>
    unified === undefined ? undefined : readPressure(`${unified}/${name}.pressure`);
  return present<CgroupUsage>({
    cpuNs: readNumber(file('cpuacct', 'cpuacct.usage')),
    memoryUsageBytes: memory,
    memoryWorkingSetBytes: workingSet(memory, stat('total_inactive_file')),
    memoryRssBytes: stat('total_rss'),
    pageFaults: stat('total_pgfault'),
    majorPageFaults: stat('total_pgmajfault'),
    // Absent where the kernel does not account swap.
    swapUsageBytes: stat('total_swap'),
    memoryLimitBytes,
    swapLimitBytes:
      bothLimitBytes === undefined || memoryLimitBytes === undefined
        ? undefined
        : bothLimitBytes > memoryLimitBytes
          ? bothLimitBytes - memoryLimitBytes
          : 0n,
    processCount: countProcesses(directory('pids') ?? directory('memory')),
    cpuPressure: pressure('cpu'),
    memoryPressure: pressure('memory'),
    ioPressure: pressure('io'),
    details:
      options.details && memory !== undefined
        ? details({ file, directory, stat, bothLimitBytes })
        : undefined,
  });
}

interface Files {
  file(controller: string, name: string): string | undefined;
  directory(controller: string): string | undefined;
  /** Of memory.stat. */
  stat(key: string): bigint | undefined;
  readonly bothLimitBytes: bigint | undefined;
}

function details({ file, directory, stat, bothLimitBytes }: Files): CgroupDetails {
  const times = readTable(file('cpuacct', 'cpuacct.stat'));
  const cfs = readTable(file('cpu', 'cpu.stat'));
  const numa = file('memory', 'memory.numa_stat');
  const user = times('user');
  const system = times('system');
  return present<CgroupDetails>({
    cpuUserNs: user === undefined ? undefined : user * TICK_NS,
    cpuSystemNs: system === undefined ? undefined : system * TICK_NS,
    cfsPeriods: cfs('nr_periods'),
    cfsThrottledPeriods: cfs('nr_throttled'),
    cfsThrottledNs: cfs('throttled_time'),
    cfsBurstPeriods: cfs('nr_bursts'),
    cfsBurstNs: cfs('burst_time'),
    cpuShares: readNumber(file('cpu', 'cpu.shares')),
    cpuPeriodUs: readNumber(file('cpu', 'cpu.cfs_period_us')),
    // -1, which is no number here, where there is no quota.
    cpuQuotaUs: readNumber(file('cpu', 'cpu.cfs_quota_us')),
    memoryCacheBytes: stat('total_cache'),
    memoryMappedFileBytes: stat('total_mapped_file'),
    memoryKernelBytes: readNumber(file('memory', 'memory.kmem.usage_in_bytes')),
    memoryMaxUsageBytes: readNumber(file('memory', 'memory.max_usage_in_bytes')),
    memoryFailures: readNumber(file('memory', 'memory.failcnt')),
    memoryActiveFileBytes: stat('total_active_file'),
    memoryInactiveFileBytes: stat('total_inactive_file'),
    memoryDirtyBytes: stat('total_dirty'),
    memoryWritebackBytes: stat('total_writeback'),
    memoryPagesScanned: stat('total_pgscan'),
    memoryPagesReclaimed: stat('total_pgsteal'),
    memoryRefaultsFile: stat('total_workingset_refault_file'),
    memoryRefaultsAnon: stat('total_workingset_refault_anon'),
    ownPageFaults: stat('pgfault'),
    ownMajorPageFaults: stat('pgmajfault'),
    oomKills: oomKills(directory('memory')),
    memoryReservationBytes: limitOf(readNumber(file('memory', 'memory.soft_limit_in_bytes'))),
    memoryMigrate: readNumber(file('cpuset', 'cpuset.memory_migrate')),
    hugePages: hugePages(directory('hugetlb')),
    numaPages: numa === undefined ? [] : parseNumaStat(readUsageFile(numa) ?? '', undefined),
    devices: devices(directory('blkio')),
    threads: readNumber(file('pids', 'pids.current')),
    threadsMax: readNumber(file('pids', 'pids.max')),
    swapLimitBytes: bothLimitBytes,
  });
}

/** A kill is counted where its victim was, and a container may have cgroups of its own. */
function oomKills(directory: string | undefined): bigint | undefined {
  if (directory === undefined) return undefined;
  const kills = cgroupTree(directory).flatMap(
    (at) => readTable(`${at}/memory.oom_control`)('oom_kill') ?? [],
  );
  return kills.length === 0 ? undefined : kills.reduce((sum, count) => sum + count);
}

function hugePages(directory: string | undefined): HugePageUsage[] {
  if (directory === undefined) return [];
  const sizes = hugePageSizes(directory, /^hugetlb\.(\w+)\.usage_in_bytes$/);
  return sizes.flatMap((pageSize) => {
    const number = (name: string) => readNumber(`${directory}/hugetlb.${pageSize}.${name}`);
    const usageBytes = number('usage_in_bytes');
    if (usageBytes === undefined) return [];
    const maxUsageBytes = number('max_usage_in_bytes');
    const failures = number('failcnt');
    return [present<HugePageUsage>({ pageSize, usageBytes, maxUsageBytes, failures })];
  });
}

/** Lines `8:0 Read 4096`; the last one, `Total 0`, is of all devices together. */
function devices(directory: string | undefined): DeviceIo[] {
  const table = createDeviceTable();
  if (directory === undefined) return [];
  for (const [what, files] of BLKIO_FILES) {
    for (const line of firstText(directory, files).split('\n')) {
      const found = /^(\d+:\d+) (?:(\w+) )?(\d+)$/.exec(line);
      if (found === null) continue;
      const [, device = '', operation = 'Total', value = ''] = found;
      table.add(device, { what, operation, value: BigInt(value) });
    }
  }
  return table.all();
}

function firstText(directory: string, files: readonly string[]): string {
  for (const name of files) {
    const text = readUsageFile(`${directory}/blkio.${name}`);
    if (text !== undefined) return text;
  }
  return '';
}
