// What a reading of a cgroup holds, and how its small files are read: synchronously and with few
// system calls, because a node's containers are read once a second.
import { closeSync, openSync, readdirSync, readlinkSync, readSync, statSync } from 'node:fs';
import { isErrno } from './errno.ts';

/** As records.proto has it: a key that is absent is not counted by this kernel, or has no limit. */
export interface CgroupUsage {
  readonly cpuNs?: bigint;
  readonly memoryUsageBytes?: bigint;
  /** Usage less inactive file pages, as the kubelet computes it. */
  readonly memoryWorkingSetBytes?: bigint;
  readonly memoryRssBytes?: bigint;
  readonly pageFaults?: bigint;
  readonly majorPageFaults?: bigint;
  readonly swapUsageBytes?: bigint;
  readonly memoryLimitBytes?: bigint;
  /** Of swap alone. */
  readonly swapLimitBytes?: bigint;
  /** Processes in it and in the cgroups below. */
  readonly processCount?: bigint;
  readonly cpuPressure?: Pressure;
  readonly memoryPressure?: Pressure;
  readonly ioPressure?: Pressure;
  readonly details?: CgroupDetails;
}

/** Which part of a reading is wanted. */
export interface UsageOptions {
  /** Also what only metrics show: some twenty files more. */
  readonly details: boolean;
}

export interface CgroupDetails {
  readonly cpuUserNs?: bigint;
  readonly cpuSystemNs?: bigint;
  readonly cfsPeriods?: bigint;
  readonly cfsThrottledPeriods?: bigint;
  readonly cfsThrottledNs?: bigint;
  readonly cfsBurstPeriods?: bigint;
  readonly cfsBurstNs?: bigint;
  readonly cpuShares?: bigint;
  readonly cpuPeriodUs?: bigint;
  readonly cpuQuotaUs?: bigint;
  readonly memoryCacheBytes?: bigint;
  readonly memoryMappedFileBytes?: bigint;
  readonly memoryKernelBytes?: bigint;
  readonly memoryMaxUsageBytes?: bigint;
  /** How often the limit was hit. */
  readonly memoryFailures?: bigint;
  readonly memoryActiveFileBytes?: bigint;
  readonly memoryInactiveFileBytes?: bigint;
  readonly memoryDirtyBytes?: bigint;
  readonly memoryWritebackBytes?: bigint;
  readonly memoryPagesScanned?: bigint;
  readonly memoryPagesReclaimed?: bigint;
  readonly memoryRefaultsFile?: bigint;
  readonly memoryRefaultsAnon?: bigint;
  readonly memoryHighEvents?: bigint;
  readonly memoryMaxEvents?: bigint;
  /** Without those of the cgroups below. */
  readonly ownPageFaults?: bigint;
  readonly ownMajorPageFaults?: bigint;
  readonly oomKills?: bigint;
  readonly memoryReservationBytes?: bigint;
  readonly memoryMigrate?: bigint;
  readonly hugePages?: HugePageUsage[];
  readonly numaPages?: NumaPages[];
  readonly devices?: DeviceIo[];
  readonly threads?: bigint;
  readonly threadsMax?: bigint;
  /** As the kernel limits it: on v1 of memory and swap together, on v2 of swap alone. */
  readonly swapLimitBytes?: bigint;
}

export interface HugePageUsage {
  /** As the kernel writes it: 2MB. */
  readonly pageSize: string;
  readonly usageBytes: bigint;
  readonly maxUsageBytes?: bigint;
  readonly failures?: bigint;
}

export interface NumaPages {
  readonly kind: 'file' | 'anon' | 'unevictable';
  readonly scope: 'container' | 'hierarchy';
  readonly node: number;
  readonly pages: bigint;
}

export interface DeviceCount {
  readonly what: string;
  readonly operation: string;
  readonly value: bigint;
}

export interface DeviceIo {
  readonly major: number;
  readonly minor: number;
  /** As /dev/vda; empty when the device has no name any more. */
  readonly device: string;
  readonly counts: DeviceCount[];
}

/** Time for which tasks waited (Documentation/accounting/psi.rst). */
export interface PressureStall {
  readonly totalUs: bigint;
  readonly avg10: number;
  readonly avg60: number;
  readonly avg300: number;
}

export interface Pressure {
  readonly some?: PressureStall;
  readonly full?: PressureStall;
}

/** v1 writes the largest multiple of a page below 2^63 for "no limit"; nobody has 2^62 bytes. */
const UNLIMITED_BYTES = 1n << 62n;
const BUFFER_BYTES = 64 * 1024;
const LINE_FEED = 10;
let buffer: Buffer | undefined;

/** The text of a small file without its last newline; undefined where it is not there. */
export function readUsageFile(path: string): string | undefined {
  // One read: the kernel gives these files whole, and none of them is near 64 KiB.
  return withUsageFile(path, (fd, into) =>
    into.toString('latin1', 0, readSync(fd, into, 0, BUFFER_BYTES, 0)).trimEnd(),
  );
}

/** Lists of processes alone come in pieces of at most a page, each of whole lines (seq_file). */
function countLines(path: string): bigint | undefined {
  return withUsageFile(path, (fd, into) => {
    for (let count = 0n; ; ) {
      const bytes = readSync(fd, into, 0, BUFFER_BYTES, null);
      if (bytes === 0) return count;
      for (const byte of into.subarray(0, bytes)) if (byte === LINE_FEED) count += 1n;
    }
  });
}

function withUsageFile<T>(path: string, read: (fd: number, into: Buffer) => T): T | undefined {
  buffer ??= Buffer.allocUnsafe(BUFFER_BYTES);
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'ENOTDIR')) return undefined;
    throw error;
  }
  try {
    return read(fd, buffer);
  } catch (error) {
    // Of a cgroup that is removed meanwhile, and of pressure where the kernel does not account it.
    if (isErrno(error, 'ENODEV', 'EOPNOTSUPP', 'ENOENT')) return undefined;
    throw error;
  } finally {
    closeSync(fd);
  }
}

/** A file with one number; undefined when it is absent or says something else, as `max`. */
export function readNumber(path: string | undefined): bigint | undefined {
  const text = path === undefined ? undefined : readUsageFile(path);
  return text !== undefined && /^\d+$/.test(text) ? BigInt(text) : undefined;
}

/** Undefined for v1's way to write "no limit". */
export function limitOf(value: bigint | undefined): bigint | undefined {
  return value === undefined || value >= UNLIMITED_BYTES ? undefined : value;
}

/** Lines `key value` as a function from the key to its number: nothing is parsed that nobody asks for. */
export function readTable(path: string | undefined): (key: string) => bigint | undefined {
  const text = path === undefined ? undefined : readUsageFile(path);
  if (text === undefined) return () => undefined;
  const lines = `\n${text}\n`;
  return (key) => {
    const at = lines.indexOf(`\n${key} `);
    if (at < 0) return undefined;
    const start = at + key.length + 2;
    const value = lines.slice(start, lines.indexOf('\n', start));
    return /^\d+$/.test(value) ? BigInt(value) : undefined;
  };
}

/** Reads a pressure file; undefined where the kernel does not account it. */
export function readPressure(path: string): Pressure | undefined {
  const text = readUsageFile(path);
  return text === undefined ? undefined : parsePressure(text);
}

/** `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full` likewise. */
export function parsePressure(text: string): Pressure | undefined {
  const pressure: { some?: PressureStall; full?: PressureStall } = {};
  for (const line of text.split('\n')) {
    const found = /^(some|full) avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) total=(\d+)$/.exec(
      line,
    );
    if (found === null) continue;
    const [, kind = '', avg10, avg60, avg300, total = ''] = found;
    pressure[kind as 'some' | 'full'] = {
      totalUs: BigInt(total),
      avg10: Number(avg10),
      avg60: Number(avg60),
      avg300: Number(avg300),
    };
  }
  return pressure.some === undefined && pressure.full === undefined ? undefined : pressure;
}

/** Processes in a cgroup and below it, by one hierarchy's cgroup.procs; undefined where it is absent. */
export function countProcesses(directory: string | undefined): bigint | undefined {
  if (directory === undefined) return undefined;
  let count = countLines(`${directory}/cgroup.procs`);
  if (count === undefined) return undefined;
  // A directory has a link from itself, one from above, and one from each below.
  if ((statSync(directory, { throwIfNoEntry: false })?.nlink ?? 0) <= 2) return count;
  for (const name of childDirectories(directory)) {
    count += countProcesses(`${directory}/${name}`) ?? 0n;
  }
  return count;
}

function childDirectories(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return [];
    throw error;
  }
}

/** Devices keep their names while the host runs; one that was looked for in vain may come back. */
const deviceNames = new Map<string, string>();
const DEVICE_NAMES_MAX = 1_000;

/** The name of a block device, as /dev/vda, from sysfs; empty where it has none. */
export function blockDeviceName(major: number, minor: number): string {
  const key = `${major}:${minor}`;
  const known = deviceNames.get(key);
  if (known !== undefined) return known;
  if (deviceNames.size >= DEVICE_NAMES_MAX) deviceNames.clear();
  try {
    const name = `/dev/${readlinkSync(`/sys/dev/block/${key}`).split('/').at(-1) ?? ''}`;
    deviceNames.set(key, name);
    return name;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EINVAL')) return '';
    throw error;
  }
}

/** Collects counts by device, in the order in which devices appear. */
export function createDeviceTable() {
  const devices = new Map<string, DeviceCount[]>();
  return {
    add: (device: string, count: DeviceCount): void => {
      const counts = devices.get(device);
      if (counts === undefined) devices.set(device, [count]);
      else counts.push(count);
    },
    all: (): DeviceIo[] =>
      [...devices].map(([key, counts]) => {
        const [major = 0, minor = 0] = key.split(':').map(Number);
        return { major, minor, device: blockDeviceName(major, minor), counts };
      }),
  };
}

/** The sizes of huge pages that a cgroup counts, by the names of its files; none where it is gone. */
export function hugePageSizes(directory: string, fileOfSize: RegExp): string[] {
  try {
    return readdirSync(directory).flatMap((name) => fileOfSize.exec(name)?.[1] ?? []);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV')) return [];
    throw error;
  }
}

/** Reads memory.numa_stat: v1 in pages (`file=106 N0=106`), v2 in bytes (`anon N0=4096`). */
export function parseNumaStat(text: string, pageBytes: bigint | undefined): NumaPages[] {
  const found: NumaPages[] = [];
  for (const line of text.split('\n')) {
    const [head = '', ...nodes] = line.split(' ');
    const name = head.split('=')[0] ?? '';
    const hierarchical = name.startsWith('hierarchical_');
    const kind = hierarchical ? name.slice('hierarchical_'.length) : name;
    if (kind !== 'file' && kind !== 'anon' && kind !== 'unevictable') continue;
    for (const node of nodes) {
      const match = /^N(\d+)=(\d+)$/.exec(node);
      if (match === null) continue;
      const value = BigInt(match[2] ?? '');
      found.push({
        kind,
        // v2 counts everything below in each cgroup.
        scope: hierarchical || pageBytes !== undefined ? 'hierarchy' : 'container',
        node: Number(match[1]),
        pages: pageBytes === undefined ? value : value / pageBytes,
      });
    }
  }
  return found;
}
