// cgroup v1 (also hybrid) and v2 behind one interface. Paths are as the OCI runtime gets them:
// absolute below the hierarchy (`/kubepods/pod1`) for cgroupfs.
import type { CgroupLimits, UndoLimits } from './cgroup-limits.ts';
import type { CgroupUsage, UsageOptions } from './cgroup-usage.ts';
import { cgroupV1 } from './cgroups-v1.ts';
import { cgroupV2 } from './cgroups-v2.ts';
import { systemError } from './errno.ts';
import { listMounts, type MountEntry } from './mounts.ts';

export interface CgroupHost {
  readonly version: 'v1' | 'v2';
  /** Controllers that are mounted. */
  readonly controllers: readonly string[];
  /** True if the path exists (in every hierarchy that we use). */
  exists(path: string): boolean;
  /** True if the path exists in no hierarchy. */
  isAbsent(path: string): boolean;
  /** Creates the path in every hierarchy; true if it was absent before (in all of them). */
  create(path: string): boolean;
  /**
   * Creates one level, for no process, in each hierarchy that has the one above; false where none has.
   * Nothing above is touched: it is somebody else's.
   */
  createBelow(parent: string, name: string): boolean;
  /**
   * Removes an empty cgroup (and its empty children) everywhere; nothing when absent. Throws EBUSY
   * while it holds processes.
   */
  remove(path: string): void;
  /** Removes one level wherever it is empty; false when it holds anything somewhere. */
  removeEmpty(path: string): boolean;
  /**
   * Kills every process below the path (cgroup.kill, or freeze and kill by pid) until none is left.
   * Rejects with the signal's reason.
   */
  killAll(path: string, signal: AbortSignal): Promise<void>;
  /** Moves a process into it, on a thread of the pool: the kernel may take 10 ms for it. */
  join(path: string, pid: number): Promise<void>;
  /** Pids at or below the path. */
  pids(path: string): number[];
  /**
   * Changes limits, all of them or none; the answer puts the former ones back. Rejects with ENOENT for a
   * cgroup or a file that is not there, EINVAL for what the kernel refuses, EBUSY for a memory limit
   * below what is in use and can't be reclaimed.
   */
  setLimits(path: string, limits: CgroupLimits): Promise<UndoLimits>;
  /**
   * Before somebody else sets these limits: reclaims what is in use above the one of memory. Rejects with
   * EBUSY where that can't be done and the kernel would kill for it; v1's refuses such a limit itself.
   */
  makeRoom(path: string, limits: CgroupLimits): Promise<void>;
  /** Changes nothing: what puts these limits back as they are now, whoever changes them meanwhile. */
  rememberLimits(path: string, limits: CgroupLimits): UndoLimits;
  /**
   * How many times the OOM killer struck in it (memory.oom_control oom_kill, memory.events).
   * Undefined when it can't be read.
   */
  oomKills(path: string): number | undefined;
  /** Current limits and use, for stats; each absent where the kernel lacks it. */
  usage(path: string, options?: UsageOptions): CgroupUsage;
}

const MOUNTED_AT = '/sys/fs/cgroup';

/**
 * Finds out what this host has, from the mounts at and below /sys/fs/cgroup. A hybrid host counts
 * as v1: its cgroup2 mount holds no controller that we use. Throws ENODEV when there is neither.
 */
export function detectCgroups(mounts: readonly MountEntry[] = listMounts()): CgroupHost {
  const top = mounts.findLast((mount) => mount.mountPoint === MOUNTED_AT);
  if (top?.filesystem === 'cgroup2') return cgroupV2(MOUNTED_AT);
  const hierarchies = mounts
    .filter((mount) => mount.filesystem === 'cgroup')
    .filter((mount) => mount.mountPoint.startsWith(`${MOUNTED_AT}/`))
    .map((mount) => ({
      directory: mount.mountPoint,
      controllers: mount.superOptions.split(',').filter(isController),
    }))
    .filter(({ controllers }) => controllers.length > 0);
  const unified = mounts
    .filter(({ filesystem }) => filesystem === 'cgroup2')
    .map(({ mountPoint }) => mountPoint)
    .filter((mountPoint) => mountPoint.startsWith(`${MOUNTED_AT}/`));
  if (hierarchies.length > 0) return cgroupV1(hierarchies, unified);
  throw systemError('statfs', 'ENODEV', `no cgroup is mounted at ${MOUNTED_AT}`);
}

/** Among the options of a v1 mount are some that name no controller (cgroup-v1/cgroups.rst). */
function isController(option: string): boolean {
  const others = ['rw', 'ro', 'xattr', 'noprefix', 'clone_children', 'none', 'seclabel'];
  const assigned = option.includes('=') && !option.startsWith('name=');
  return option !== '' && !assigned && !others.includes(option) && !option.startsWith('cpuset_v2');
}
