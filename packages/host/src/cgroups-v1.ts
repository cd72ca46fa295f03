// cgroup v1: one hierarchy of directories per controller (or group of them), a cgroup being the
// same path in each.

import {
  cgroupDirectory,
  cgroupLevels,
  cgroupTree,
  collectPids,
  isDirectory,
  joinCgroup,
  killPids,
  makeBelow,
  makeDirectory,
  ownCgroupDirectory,
  readCgroupFile,
  readCounts,
  removeCgroupTree,
  removeEmptyCgroup,
  untilEmpty,
  writeCgroupFile,
} from './cgroup-files.ts';
import { type CgroupLimits, limitWritesV1, rememberLimits, writeLimits } from './cgroup-limits.ts';
import { usageV1, type V1Roots } from './cgroup-usage-v1.ts';
import type { CgroupHost } from './cgroups.ts';
import { isErrno, systemError } from './errno.ts';

export interface Hierarchy {
  /** Where it is mounted. */
  readonly directory: string;
  /** `name=systemd` for a named one. */
  readonly controllers: readonly string[];
}

/**
 * The host of these hierarchies. `unified` are cgroup2 mounts beside them: nothing is put there, but
 * engines make their paths there too and leave the parents, so that a removal goes there as well.
 */
export function cgroupV1(
  hierarchies: readonly Hierarchy[],
  unified: readonly string[] = [],
): CgroupHost {
  const roots = hierarchies.map(({ directory }) => directory);
  const rootOf = (controller: string) =>
    hierarchies.find(({ controllers }) => controllers.includes(controller))?.directory;
  const [mixed] = unified;
  const usageRoots: V1Roots = { rootOf, ...(mixed === undefined ? {} : { unified: mixed }) };
  const pids = (path: string) => {
    const found = new Set<number>();
    // A runtime may put a process into some of the hierarchies only.
    for (const root of roots) collectPids(cgroupDirectory(root, path), found);
    return [...found];
  };
  const limitWrites = (path: string, limits: CgroupLimits) =>
    limitWritesV1(limits, (controller) => {
      const root = rootOf(controller);
      return root === undefined ? undefined : ownCgroupDirectory(root, path);
    });
  return {
    version: 'v1',
    controllers: hierarchies.flatMap(({ controllers }) => controllers),
    exists: (path) => roots.every((root) => isDirectory(cgroupDirectory(root, path))),
    isAbsent: (path) => roots.every((root) => !isDirectory(cgroupDirectory(root, path))),
    create: (path) => {
      const absent = roots.every((root) => !isDirectory(ownCgroupDirectory(root, path)));
      for (const hierarchy of hierarchies) createIn(hierarchy, path);
      return absent;
    },
    createBelow: (parent, name) => makeBelow(roots, parent, name),
    remove: (path) => {
      const directories = [...roots, ...unified].map((root) => ownCgroupDirectory(root, path));
      // Looked at before, so that a busy cgroup does not lose some of its hierarchies.
      const [pid] = pids(path);
      if (pid !== undefined) throw systemError('rmdir', 'EBUSY', `cgroup '${path}' holds ${pid}`);
      for (const directory of directories) removeCgroupTree(directory);
    },
    removeEmpty: (path) =>
      [...roots, ...unified]
        .map((root) => removeEmptyCgroup(ownCgroupDirectory(root, path)))
        .every(Boolean),
    killAll: async (path, signal) => {
      const directories = roots.map((root) => ownCgroupDirectory(root, path));
      const freezer = rootOf('freezer');
      const own = freezer === undefined ? undefined : directories[roots.indexOf(freezer)];
      const strike = () => killFrozen(own, () => pids(path));
      await untilEmpty(() => pids(path), strike, signal);
    },
    join: async (path, pid) => {
      // One after the other: the kernel lets one in at a time, and the rest would hold the pool.
      for (const root of roots) await joinCgroup(ownCgroupDirectory(root, path), pid);
    },
    pids,
    setLimits: async (path, limits) => await writeLimits(limitWrites(path, limits)),
    makeRoom: async () => undefined,
    rememberLimits: (path, limits) => rememberLimits(limitWrites(path, limits)),
    oomKills: (path) => {
      const memory = rootOf('memory');
      if (memory === undefined) return undefined;
      // v1 counts a kill where the victim was, and a container may have cgroups of its own.
      const kills = cgroupTree(cgroupDirectory(memory, path))
        .map((directory) => readCounts(`${directory}/memory.oom_control`).get('oom_kill'))
        .filter((count) => count !== undefined);
      return kills.length === 0 ? undefined : Number(kills.reduce((sum, count) => sum + count));
    },
    usage: (path, options) => usageV1(usageRoots, path, options ?? { details: false }),
  };
}

function createIn(hierarchy: Hierarchy, path: string): void {
  let parent = hierarchy.directory;
  for (const directory of cgroupLevels(hierarchy.directory, path)) {
    makeDirectory(directory);
    if (hierarchy.controllers.includes('cpuset')) {
      // A new cpuset has neither processors nor memory nodes, and takes no process until it does.
      for (const file of ['cpuset.cpus', 'cpuset.mems']) {
        if (readCgroupFile(`${directory}/${file}`) !== '') continue;
        writeCgroupFile(`${directory}/${file}`, readCgroupFile(`${parent}/${file}`) ?? '');
      }
    }
    parent = directory;
  }
}

/** Frozen, no process can fork away from the list of pids; a killed one dies once thawed. */
function killFrozen(freezerDirectory: string | undefined, pids: () => number[]): void {
  const setState = (state: 'FROZEN' | 'THAWED') => {
    if (freezerDirectory === undefined) return;
    try {
      writeCgroupFile(`${freezerDirectory}/freezer.state`, state);
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENODEV')) throw error;
    }
  };
  setState('FROZEN');
  try {
    killPids(pids());
  } finally {
    setState('THAWED');
  }
}
