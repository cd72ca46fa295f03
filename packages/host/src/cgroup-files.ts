// What the files of cgroup v1 and v2 have in common: trees of directories with small text files.
import {
  closeSync,
  constants,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  statSync,
  writeSync,
} from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { constants as osConstants } from 'node:os';
import { systemClock } from './clock.ts';
import { isErrno, systemError } from './errno.ts';

const POLL_MS_FIRST = 5;
const POLL_MS_MAX = 100;

/** The directory of a cgroup. Throws EINVAL on a path that is not absolute or leads upwards. */
export function cgroupDirectory(root: string, path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.');
  if (!path.startsWith('/') || parts.includes('..')) {
    throw systemError('open', 'EINVAL', `cgroup '${path}'`);
  }
  return [root, ...parts].join('/');
}

/** As cgroupDirectory, but refuses the root of the hierarchy, which is the whole host. */
export function ownCgroupDirectory(root: string, path: string): string {
  const directory = cgroupDirectory(root, path);
  if (directory === root) throw systemError('open', 'EINVAL', `cgroup '${path}' is the root`);
  return directory;
}

/** The directories from the first below the root to the cgroup itself. */
export function cgroupLevels(root: string, path: string): string[] {
  const directory = ownCgroupDirectory(root, path);
  const levels: string[] = [];
  for (const part of directory.slice(root.length + 1).split('/')) {
    levels.push(`${levels.at(-1) ?? root}/${part}`);
  }
  return levels;
}

/** False for what is not there, also for a link that leads nowhere. */
export function isDirectory(directory: string): boolean {
  return statSync(directory, { throwIfNoEntry: false })?.isDirectory() === true;
}

/** Makes one level; false when it was there. */
export function makeDirectory(directory: string): boolean {
  try {
    mkdirSync(directory, 0o755);
    return true;
  } catch (error) {
    if (isErrno(error, 'EEXIST')) return false;
    throw error;
  }
}

/** A cgroup directory and all below it, parents before children; none where it is absent. */
export function cgroupTree(directory: string): string[] {
  const found = [directory];
  // The list grows while it is walked.
  for (const at of found) {
    try {
      for (const entry of readdirSync(at, { withFileTypes: true })) {
        if (entry.isDirectory()) found.push(`${at}/${entry.name}`);
      }
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENODEV')) throw error;
      if (at === directory) return [];
    }
  }
  return found;
}

/** Removes a tree of cgroups, children first; nothing when absent. Throws EBUSY. */
export function removeCgroupTree(directory: string): void {
  for (const at of cgroupTree(directory).reverse()) {
    try {
      rmdirSync(at);
    } catch (error) {
      if (!isErrno(error, 'ENOENT')) throw error;
    }
  }
}

/** Makes one level below the same cgroup of each root that has it; false where none has. */
export function makeBelow(roots: readonly string[], parent: string, name: string): boolean {
  const parents = roots.map((root) => ownCgroupDirectory(root, parent)).filter(isDirectory);
  for (const directory of parents) makeDirectory(`${directory}/${name}`);
  return parents.length > 0;
}

/** Removes one cgroup; false when it holds processes or other cgroups. */
export function removeEmptyCgroup(directory: string): boolean {
  try {
    rmdirSync(directory);
    return true;
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return true;
    if (isErrno(error, 'EBUSY', 'ENOTEMPTY')) return false;
    throw error;
  }
}

/** The content without its last newline; undefined when the file or the cgroup is not there. */
export function readCgroupFile(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1').trimEnd();
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENODEV', 'ENOTDIR', 'EOPNOTSUPP')) return undefined;
    throw error;
  }
}

/** Moves a process into one directory; ESRCH when it has ended. */
export async function joinCgroup(directory: string, pid: number): Promise<void> {
  await writeFile(`${directory}/cgroup.procs`, String(pid), { flag: constants.O_WRONLY });
}

/** Writes to a control file in one write(2), as the kernel wants it; never creates the file. */
export function writeCgroupFile(path: string, value: string): void {
  const fd = openSync(path, constants.O_WRONLY);
  try {
    writeSync(fd, value);
  } finally {
    closeSync(fd);
  }
}

/** A file with one number; undefined when it is absent or says `max`. */
export function readCount(path: string): bigint | undefined {
  const text = readCgroupFile(path);
  return text !== undefined && /^\d+$/.test(text) ? BigInt(text) : undefined;
}

/** A file of lines `key value`; empty when absent. */
export function readCounts(path: string): ReadonlyMap<string, bigint> {
  const counts = new Map<string, bigint>();
  for (const line of (readCgroupFile(path) ?? '').split('\n')) {
    const [key, value] = line.split(' ');
    if (key !== undefined && value !== undefined && /^\d+$/.test(value)) {
      counts.set(key, BigInt(value));
    }
  }
  return counts;
}

/** Adds the pids of a cgroup and of all below it. */
export function collectPids(directory: string, pids: Set<number>): void {
  for (const at of cgroupTree(directory)) {
    for (const pid of (readCgroupFile(`${at}/cgroup.procs`) ?? '').split('\n')) {
      // 0 is a process of an outer PID namespace: not ours to touch.
      if (pid !== '' && pid !== '0') pids.add(Number(pid));
    }
  }
}

/** Sends SIGKILL to each; one that is gone already is as good. */
export function killPids(pids: readonly number[]): void {
  for (const pid of pids) {
    try {
      process.kill(pid, osConstants.signals.SIGKILL);
    } catch (error) {
      if (!isErrno(error, 'ESRCH')) throw error;
    }
  }
}

/** Strikes again and again, with growing pauses, until no pid is left. */
export async function untilEmpty(
  pids: () => readonly number[],
  strike: (pids: readonly number[]) => void,
  signal: AbortSignal,
): Promise<void> {
  for (let pauseMs = POLL_MS_FIRST; ; pauseMs = Math.min(pauseMs * 2, POLL_MS_MAX)) {
    const left = pids();
    if (left.length === 0) return;
    signal.throwIfAborted();
    strike(left);
    await systemClock.sleep(pauseMs, signal);
  }
}

/** Drops what is undefined: under exact optional types an absent value must be an absent key. */
export function present<T extends object>(values: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;
}

/** Never below zero: the two files are not read at one instant. */
export function workingSet(usage: bigint | undefined, inactive: bigint | undefined) {
  if (usage === undefined || inactive === undefined) return usage;
  return usage > inactive ? usage - inactive : 0n;
}
