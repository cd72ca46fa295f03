// cgroup v1 (also hybrid) and v2 behind one interface. Paths are as the OCI runtime gets them:
// absolute below the hierarchy (`/kubepods/pod1`) for cgroupfs.

export interface CgroupHost {
  readonly version: 'v1' | 'v2';
  /** Controllers that are mounted. */
  readonly controllers: readonly string[];
  /** True if the path exists (in every hierarchy that we use). */
  exists(path: string): boolean;
  /** Creates the path in every hierarchy; true if it was absent before. */
  create(path: string): boolean;
  /** Removes an empty cgroup (and its empty children) everywhere; nothing when absent. Throws EBUSY while it holds processes. */
  remove(path: string): void;
  /** Kills every process below the path (cgroup.kill, or freeze and kill by pid) until none is left. */
  killAll(path: string, signal: AbortSignal): Promise<void>;
  /** Moves a process into it. */
  join(path: string, pid: number): void;
  /** Pids at or below the path. */
  pids(path: string): number[];
  /** How many times the OOM killer struck in it (memory.oom_control oom_kill, memory.events). Undefined when it can't be read. */
  oomKills(path: string): number | undefined;
  /** Current limits and use, for stats; each absent where the kernel lacks it. */
  usage(path: string): CgroupUsage;
}

export interface CgroupUsage {
  readonly cpuUsageNs?: bigint;
  readonly memoryUsageBytes?: bigint;
  /** Usage less inactive file pages, as the kubelet computes it. */
  readonly memoryWorkingSetBytes?: bigint;
  readonly memoryRssBytes?: bigint;
  readonly pageFaults?: bigint;
  readonly majorPageFaults?: bigint;
  readonly swapUsageBytes?: bigint;
  readonly processCount?: bigint;
}

/** Finds out what this host has, from /proc/self/mountinfo and statfs of /sys/fs/cgroup. */
export function detectCgroups(): CgroupHost {
  throw new Error('not built');
}
