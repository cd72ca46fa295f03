// Changing the limits of a cgroup while it is in use: which files get which values, in an order that
// the kernel accepts at each step, all of them or none.

import { constants, existsSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { readCgroupFile, readCount } from './cgroup-files.ts';
import { systemError } from './errno.ts';

/** What is absent stays as it is. */
export interface CgroupLimits {
  /** Of cgroup v1's scale, 2 to 262144; v2's weight follows from it. */
  readonly cpuShares?: bigint;
  /** What the cgroup was made with: tells by which formula its weight was found. */
  readonly cpuSharesBefore?: bigint;
  /** Microseconds in a period; negative is unlimited. */
  readonly cpuQuotaUs?: bigint;
  readonly cpuPeriodUs?: bigint;
  /** A list as `0-3,7`. */
  readonly cpus?: string;
  readonly mems?: string;
  /** Negative is unlimited. */
  readonly memoryBytes?: bigint;
  /** Memory and swap together; negative is unlimited. */
  readonly memoryAndSwapBytes?: bigint;
  readonly hugePages?: readonly { readonly pageSize: string; readonly limitBytes: bigint }[];
  /** Of processes and threads; negative is unlimited. */
  readonly pids?: bigint;
  /** Files of cgroup v2 by name. */
  readonly unified?: Readonly<Record<string, string>>;
}

/** One control file and what is written to it. */
export interface LimitWrite {
  readonly file: string;
  readonly value: string;
}

/** Puts back what a change replaced. Rejects with what the kernel says when it refuses. */
export type UndoLimits = () => Promise<void>;

/**
 * Writes in order, skipping what is already so. When a write is refused the ones before it are put
 * back and its error is thrown, with `code` of the errno: EINVAL for a value that the kernel does not
 * take, EBUSY for a memory limit below what is in use, ENOENT for a file that is not there.
 */
export async function writeLimits(writes: readonly LimitWrite[]): Promise<UndoLimits> {
  const replaced: LimitWrite[] = [];
  const undo = undoOf(replaced);
  for (const { file, value } of writes) {
    try {
      const before = readCgroupFile(file);
      if (before === undefined) throw systemError('open', 'ENOENT', basename(file));
      if (before === value) continue;
      // Before the write: one that is refused may have done a part of it.
      replaced.push({ file, value: before });
      await writeOnPool(file, value);
    } catch (error) {
      await undo().catch((kept: unknown) => {
        throw new Error(`${String(error)}; what was changed could not be put back: ${kept}`);
      });
      throw error;
    }
  }
  return undo;
}

/** Reads what is to be put back should somebody else's writes to these files have to be undone. */
export function rememberLimits(writes: readonly LimitWrite[]): UndoLimits {
  return undoOf(
    writes.flatMap(({ file }) => {
      const value = readCgroupFile(file);
      return value === undefined ? [] : [{ file, value }];
    }),
  );
}

function undoOf(replaced: LimitWrite[]): UndoLimits {
  return async () => {
    for (const { file, value } of replaced.splice(0).reverse()) await restore(file, value);
  };
}

/** A file with several lines takes one at a time; an empty one is emptied by a line of its own. */
async function restore(file: string, value: string): Promise<void> {
  if (readCgroupFile(file) === value) return;
  for (const line of value.split('\n')) await writeOnPool(file, line === '' ? '\n' : line);
}

/**
 * On a thread of the pool: for a lower memory limit the kernel first frees what it can. The error of a
 * refused value names it and the file.
 */
export async function writeOnPool(file: string, value: string): Promise<void> {
  try {
    await writeFile(file, value, { flag: constants.O_WRONLY });
  } catch (error) {
    if (!(error instanceof Error) || !('code' in error)) throw error;
    throw systemError('write', String(error.code), `'${value.trim()}' to ${basename(file)}`);
  }
}

/** v1's files; `directoryOf` answers where a controller has the cgroup, undefined if it isn't mounted. */
export function limitWritesV1(
  limits: CgroupLimits,
  directoryOf: (controller: string) => string | undefined,
): LimitWrite[] {
  const writes: LimitWrite[] = [];
  const add = (controller: string, name: string, value: bigint | string | undefined) => {
    if (value === undefined) return;
    const directory = directoryOf(controller);
    if (directory === undefined) {
      throw systemError('open', 'ENOENT', `${name}: there is no ${controller} controller`);
    }
    writes.push({ file: `${directory}/${name}`, value: String(value) });
  };
  add('cpu', 'cpu.shares', limits.cpuShares);
  for (const [name, value] of bandwidthV1(limits, directoryOf('cpu'))) add('cpu', name, value);
  add('cpuset', 'cpuset.cpus', limits.cpus);
  add('cpuset', 'cpuset.mems', limits.mems);
  for (const [name, value] of memoryV1(limits, directoryOf('memory'))) add('memory', name, value);
  for (const { pageSize, limitBytes } of limits.hugePages ?? []) {
    const name = `hugetlb.${pageSize}.limit_in_bytes`;
    if (!isMoot(directoryOf('hugetlb'), name, limitBytes)) add('hugetlb', name, limitBytes);
  }
  if (limits.pids !== undefined) add('pids', 'pids.max', orMax(limits.pids));
  const [name] = Object.keys(limits.unified ?? {});
  if (name !== undefined) throw systemError('open', 'ENOENT', `${name}: this host has cgroup v1`);
  return writes;
}

/** Of what the host does not have, pages of a size or swap, none and all that there is are the same. */
function isMoot(directory: string | undefined, name: string, limit: bigint | 'max'): boolean {
  const bounds = limit !== 0n && limit !== 'max';
  return !bounds && directory !== undefined && !existsSync(`${directory}/${name}`);
}

type NamedValue = readonly [name: string, value: bigint | undefined];

/**
 * The kernel refuses a share of time above the parent's at each step, so between the old pair and
 * the new one must be no larger share than in both: a longer period first, a shorter one last.
 */
function bandwidthV1(limits: CgroupLimits, directory: string | undefined): NamedValue[] {
  const period: NamedValue = ['cpu.cfs_period_us', limits.cpuPeriodUs];
  const quota: NamedValue = [
    'cpu.cfs_quota_us',
    limits.cpuQuotaUs === undefined ? undefined : unlimitedAs(-1n, limits.cpuQuotaUs),
  ];
  const current = directory === undefined ? undefined : readCount(`${directory}/${period[0]}`);
  return (limits.cpuPeriodUs ?? 0n) < (current ?? 0n) ? [quota, period] : [period, quota];
}

/** The limit of memory may at no time be above the one of memory and swap (cgroup-v1/memory.rst). */
function memoryV1(limits: CgroupLimits, directory: string | undefined): NamedValue[] {
  const memory: NamedValue = [
    'memory.limit_in_bytes',
    limits.memoryBytes === undefined ? undefined : unlimitedAs(-1n, limits.memoryBytes),
  ];
  const both: NamedValue = [
    'memory.memsw.limit_in_bytes',
    limits.memoryAndSwapBytes === undefined
      ? undefined
      : unlimitedAs(-1n, limits.memoryAndSwapBytes),
  ];
  const current = directory === undefined ? undefined : readCount(`${directory}/${both[0]}`);
  const raised = limits.memoryAndSwapBytes !== undefined && limits.memoryAndSwapBytes < 0n;
  return raised || (limits.memoryAndSwapBytes ?? 0n) > (current ?? 0n)
    ? [both, memory]
    : [memory, both];
}

function unlimitedAs(unlimited: bigint, value: bigint): bigint {
  return value < 0n ? unlimited : value;
}

/** Of a cgroup whose period nobody has set (sched-bwc.rst). */
const PERIOD_US_DEFAULT = '100000';

/** v2's files. The named settings of `unified` come last, so that they win. */
export function limitWritesV2(limits: CgroupLimits, directory: string): LimitWrite[] {
  const writes: LimitWrite[] = [];
  const add = (name: string, value: bigint | string | undefined) => {
    if (value !== undefined) writes.push({ file: `${directory}/${name}`, value: String(value) });
  };
  if (limits.cpuShares !== undefined) {
    const now = readCount(`${directory}/cpu.weight`);
    add('cpu.weight', weightLike(limits.cpuShares, { before: limits.cpuSharesBefore, now }));
  }
  if (limits.cpuQuotaUs !== undefined || limits.cpuPeriodUs !== undefined) {
    const [quota = 'max', period = PERIOD_US_DEFAULT] = (
      readCgroupFile(`${directory}/cpu.max`) ?? ''
    )
      .split(' ')
      .filter((word) => word !== '');
    const asked = limits.cpuQuotaUs === undefined ? quota : orMax(limits.cpuQuotaUs);
    add('cpu.max', `${asked} ${limits.cpuPeriodUs ?? period}`);
  }
  add('cpuset.cpus', limits.cpus);
  add('cpuset.mems', limits.mems);
  if (limits.memoryBytes !== undefined) add('memory.max', orMax(limits.memoryBytes));
  if (limits.memoryAndSwapBytes !== undefined) {
    const swap = swapOnly(limits.memoryAndSwapBytes, limits.memoryBytes);
    if (!isMoot(directory, 'memory.swap.max', swap)) add('memory.swap.max', swap);
  }
  for (const { pageSize, limitBytes } of limits.hugePages ?? []) {
    const name = `hugetlb.${pageSize}.max`;
    if (!isMoot(directory, name, limitBytes)) add(name, limitBytes);
  }
  if (limits.pids !== undefined) add('pids.max', orMax(limits.pids));
  for (const [name, value] of Object.entries(limits.unified ?? {})) {
    if (!UNIFIED_FILE.test(name)) throw systemError('open', 'EINVAL', `unified '${name}'`);
    add(name, value);
  }
  return writes;
}

/** A file of a controller, and no other (runtime-spec, config-linux.md, unified). */
const UNIFIED_FILE = /^[a-z]+(\.[A-Za-z0-9_]+)+$/;

function orMax(value: bigint): bigint | 'max' {
  return value < 0n ? 'max' : value;
}

function swapOnly(both: bigint, memory: bigint | undefined): bigint | 'max' {
  if (both < 0n) return 'max';
  return memory === undefined || memory < 0n || memory > both ? 0n : both - memory;
}

const SHARES_MIN = 2n;
const SHARES_MAX = 262_144n;

function cutShares(shares: bigint): bigint {
  return shares < SHARES_MIN ? SHARES_MIN : shares > SHARES_MAX ? SHARES_MAX : shares;
}

/** The straight line from 2..262144 to 1..10000 (KEP-2254), as runc up to 1.3 and crun up to 1.22. */
export function linearWeight(shares: bigint): bigint {
  return 1n + ((cutShares(shares) - SHARES_MIN) * 9999n) / (SHARES_MAX - SHARES_MIN);
}

/** The curve of later engines, on which 1024 shares are the default weight of 100. */
export function curvedWeight(shares: bigint): bigint {
  const cut = cutShares(shares);
  if (cut === SHARES_MIN || cut === SHARES_MAX) return linearWeight(cut);
  const log = Math.log2(Number(cut));
  return BigInt(Math.ceil(10 ** ((log * log + 125 * log) / 612 - 7 / 34)));
}

/** By the formula that explains the present weight: the containers of a node are weighed alike. */
export function weightLike(
  shares: bigint,
  present: { readonly before: bigint | undefined; readonly now: bigint | undefined },
): bigint {
  const { before, now } = present;
  const linear = before === undefined || now === linearWeight(before);
  return linear || now !== curvedWeight(before) ? linearWeight(shares) : curvedWeight(shares);
}
