// cgroup v2: one hierarchy, whose controllers each level hands down through cgroup.subtree_control.

import {
  cgroupDirectory,
  cgroupLevels,
  collectPids,
  isDirectory,
  joinCgroup,
  killPids,
  makeBelow,
  makeDirectory,
  ownCgroupDirectory,
  readCgroupFile,
  readCount,
  readCounts,
  removeCgroupTree,
  removeEmptyCgroup,
  untilEmpty,
  writeCgroupFile,
} from './cgroup-files.ts';
import {
  type CgroupLimits,
  limitWritesV2,
  rememberLimits,
  writeLimits,
  writeOnPool,
} from './cgroup-limits.ts';
import { usageV2 } from './cgroup-usage-v2.ts';
import type { CgroupHost } from './cgroups.ts';
import { isErrno, systemError } from './errno.ts';

/** The host whose hierarchy is mounted at `root`. */
export function cgroupV2(root: string): CgroupHost {
  const pids = (path: string) => {
    const found = new Set<number>();
    collectPids(cgroupDirectory(root, path), found);
    return [...found];
  };
  return {
    version: 'v2',
    controllers: words(readCgroupFile(`${root}/cgroup.controllers`)),
    exists: (path) => isDirectory(cgroupDirectory(root, path)),
    isAbsent: (path) => !isDirectory(cgroupDirectory(root, path)),
    create: (path) => {
      let created = false;
      let parent = root;
      for (const directory of cgroupLevels(root, path)) {
        handDownControllers(parent);
        created = makeDirectory(directory);
        parent = directory;
      }
      return created;
    },
    createBelow: (parent, name) => makeBelow([root], parent, name),
    remove: (path) => {
      const directory = ownCgroupDirectory(root, path);
      const [pid] = pids(path);
      if (pid !== undefined) throw systemError('rmdir', 'EBUSY', `cgroup '${path}' holds ${pid}`);
      removeCgroupTree(directory);
    },
    removeEmpty: (path) => removeEmptyCgroup(ownCgroupDirectory(root, path)),
    killAll: async (path, signal) => {
      const directory = ownCgroupDirectory(root, path);
      const strike = (left: readonly number[]) => {
        if (!killWhole(directory)) killFrozen(directory, left);
      };
      await untilEmpty(() => pids(path), strike, signal);
    },
    join: (path, pid) => joinCgroup(ownCgroupDirectory(root, path), pid),
    pids,
    setLimits: async (path, limits) => {
      const directory = ownCgroupDirectory(root, path);
      await makeRoom(directory, limits);
      return await writeLimits(limitWritesV2(limits, directory));
    },
    makeRoom: (path, limits) => makeRoom(ownCgroupDirectory(root, path), limits),
    rememberLimits: (path, limits) =>
      rememberLimits(limitWritesV2(limits, ownCgroupDirectory(root, path))),
    oomKills: (path) => {
      const kills = readCounts(`${cgroupDirectory(root, path)}/memory.events`).get('oom_kill');
      return kills === undefined ? undefined : Number(kills);
    },
    usage: (path, options) => usageV2(cgroupDirectory(root, path), options ?? { details: false }),
  };
}

function words(text: string | undefined): string[] {
  return (text ?? '').split(/\s+/).filter((word) => word !== '');
}

/**
 * v1 refuses a limit below what is in use; v2 takes it and kills until it holds (cgroup-v2.rst,
 * memory.max). So what can be reclaimed is reclaimed before, and the limit refused if that is not
 * enough.
 */
async function makeRoom(directory: string, limits: CgroupLimits): Promise<void> {
  const named = limits.unified?.['memory.max'] ?? '';
  const limitBytes = /^\d+$/.test(named) ? BigInt(named) : (limits.memoryBytes ?? -1n);
  const usage = () => readCount(`${directory}/memory.current`) ?? 0n;
  const excess = usage() - limitBytes;
  if (limitBytes < 0n || excess <= 0n) return;
  try {
    await writeOnPool(`${directory}/memory.reclaim`, String(excess));
  } catch (error) {
    // EAGAIN: less could be had; ENOENT: before Linux 5.19.
    if (!isErrno(error, 'EAGAIN', 'ENOENT', 'EINVAL')) throw error;
  }
  const used = usage();
  if (used <= limitBytes) return;
  throw systemError('write', 'EBUSY', `memory.max ${limitBytes}: ${used} bytes are in use`);
}

/** Enables in a cgroup's children every controller that it has itself. */
function handDownControllers(directory: string): void {
  const given = new Set(words(readCgroupFile(`${directory}/cgroup.subtree_control`)));
  const available = words(readCgroupFile(`${directory}/cgroup.controllers`));
  const missing = available.filter((controller) => !given.has(controller));
  if (missing.length === 0) return;
  const file = `${directory}/cgroup.subtree_control`;
  try {
    writeCgroupFile(file, missing.map((controller) => `+${controller}`).join(' '));
  } catch {
    // The write is all or nothing, so one refused controller (cpu while there are realtime
    // processes, cgroup-v2.rst) must not cost the others.
    for (const controller of missing) handDown(file, controller);
  }
}

function handDown(file: string, controller: string): void {
  try {
    writeCgroupFile(file, `+${controller}`);
  } catch (error) {
    if (!isErrno(error, 'EBUSY', 'EINVAL', 'EOPNOTSUPP', 'ENOENT')) throw error;
  }
}

/** By cgroup.kill (Linux 5.14); false where the kernel lacks it, or the cgroup is threaded. */
function killWhole(directory: string): boolean {
  try {
    writeCgroupFile(`${directory}/cgroup.kill`, '1');
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'EOPNOTSUPP')) return false;
    throw error;
  }
}

/** A process of a frozen v2 cgroup dies from SIGKILL at once. */
function killFrozen(directory: string, pids: readonly number[]): void {
  const freeze = (value: '0' | '1') => {
    try {
      writeCgroupFile(`${directory}/cgroup.freeze`, value);
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENODEV')) throw error;
    }
  };
  freeze('1');
  try {
    killPids(pids);
  } finally {
    freeze('0');
  }
}
