// Files that must be whole or absent, and trees of files.
import { closeSync, constants, lstatSync, openSync, realpathSync, statfsSync } from 'node:fs';
import { lstat, open, readdir, readFile, rename, rmdir, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { systemClock } from './clock.ts';
import { isErrno, systemError } from './errno.ts';
import { libc } from './libc.ts';
import { mountIdOf, mountsBelow, OPEN_DIRECTORY_ONLY } from './mounts.ts';

/** flock(2) operations, from <sys/file.h>. */
const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_RETRY_MS = 50;
/** Removals or stat calls in flight at once per directory: libuv has four pool threads. */
const PARALLEL_MAX = 8;

const SLASH = Buffer.from('/');

let temporaryCount = 0;

/**
 * Writes a temporary file beside `path` (`.<name>.<pid>-<n>.tmp`) and renames it over. With
 * `durable` the file and its directory are fsynced: for records whose loss after a power cut would
 * leak or mislead. The mode is 0600 unless given.
 */
export async function writeFileAtomic(
  path: string,
  data: Uint8Array | string,
  options: { readonly durable?: boolean; readonly mode?: number } = {},
): Promise<void> {
  temporaryCount += 1;
  const name = `.${basename(path)}.${process.pid}-${temporaryCount}.tmp`;
  const temporary = join(dirname(path), name);
  const file = await open(temporary, 'wx', options.mode ?? 0o600);
  try {
    try {
      await file.writeFile(data);
      if (options.durable === true) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => undefined);
    throw error;
  }
  if (options.durable === true) await syncDirectory(dirname(path));
}

/** Makes the names in a directory (created, renamed, removed) outlast a power cut. */
export async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** The content, or undefined where there is no such file. */
export async function readFileIfExists(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return undefined;
    throw error;
  }
}

/** Names in a directory; none where it does not exist. */
export async function listDirectory(path: string): Promise<string[]> {
  try {
    return await readdir(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/**
 * Removes a tree, never following a symlink nor crossing into a mount; nothing when absent. Throws
 * EBUSY, before removing anything, when there is a mount point within. Directories are held open
 * and reached through /proc/self/fd, so that one swapped for a symlink meanwhile leads nowhere.
 */
export async function removeTree(path: string): Promise<void> {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return;
  if (!stat.isDirectory()) {
    await ignoringAbsence(unlink(path));
    return;
  }
  const [mount] = mountsBelow(realpathSync(path));
  if (mount !== undefined) {
    throw systemError('rmdir', 'EBUSY', `'${path}': ${mount.mountPoint} is mounted`);
  }
  await removeDirectory(path, undefined);
}

async function removeDirectory(path: string | Buffer, mountId: number | undefined): Promise<void> {
  const directory = await open(path, OPEN_DIRECTORY_ONLY);
  try {
    const ownMountId = mountIdOf(directory.fd);
    if (mountId !== undefined && mountId !== ownMountId) {
      throw systemError('rmdir', 'EBUSY', `'${path}' is mounted`);
    }
    const base = `/proc/self/fd/${directory.fd}`;
    // latin1 keeps every byte of a name that is no UTF-8; `base` is ASCII.
    const entries = await readdir(base, { withFileTypes: true, encoding: 'latin1' });
    const within = (name: string) => Buffer.from(`${base}/${name}`, 'latin1');
    const files = entries.filter((entry) => !entry.isDirectory());
    await inParallel(files, (entry) => ignoringAbsence(unlink(within(entry.name))));
    for (const entry of entries) {
      if (entry.isDirectory()) {
        await ignoringAbsence(removeDirectory(within(entry.name), ownMountId));
      }
    }
  } finally {
    await directory.close();
  }
  await ignoringAbsence(rmdir(path));
}

async function ignoringAbsence(removal: Promise<void>): Promise<void> {
  try {
    await removal;
  } catch (error) {
    if (!isErrno(error, 'ENOENT')) throw error;
  }
}

async function inParallel<T>(items: readonly T[], work: (item: T) => Promise<void>) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const item = items[next] as T;
      next += 1;
      await work(item);
    }
  };
  await Promise.all(Array.from({ length: Math.min(PARALLEL_MAX, items.length) }, lane));
}

/**
 * Bytes (blocks × 512) and inodes of a directory and all below it, on its own filesystem; a file
 * with several names counts once. Nothing for what vanishes meanwhile. Rejects with the signal's
 * reason.
 */
export async function diskUsage(
  path: string,
  signal: AbortSignal,
): Promise<{ bytes: bigint; inodes: bigint }> {
  const top = await lstat(path, { bigint: true });
  const use = { bytes: top.blocks * 512n, inodes: 1n };
  const linked = new Set<bigint>();
  const directories = top.isDirectory() ? [Buffer.from(path)] : [];
  for (let at = directories.pop(); at !== undefined; at = directories.pop()) {
    signal.throwIfAborted();
    const directory = at;
    await inParallel(await listNames(directory), async (name) => {
      const child = Buffer.concat([directory, SLASH, name]);
      const stat = await lstat(child, { bigint: true }).catch((error: unknown) => {
        if (isErrno(error, 'ENOENT')) return undefined;
        throw error;
      });
      if (stat === undefined || stat.dev !== top.dev) return;
      if (stat.isDirectory()) directories.push(child);
      else if (stat.nlink > 1n) {
        if (linked.has(stat.ino)) return;
        linked.add(stat.ino);
      }
      use.bytes += stat.blocks * 512n;
      use.inodes += 1n;
    });
  }
  return use;
}

/** True when both are on one filesystem, or one is not there yet. */
export function isSameFilesystem(a: string, b: string): boolean {
  const [one, other] = [a, b].map((path) => lstatSync(path, { throwIfNoEntry: false }));
  return one === undefined || other === undefined || one.dev === other.dev;
}

/** As bytes, for a container may have made names that are no UTF-8. */
async function listNames(directory: Buffer): Promise<Buffer[]> {
  try {
    return await readdir(directory, { encoding: 'buffer' });
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return [];
    throw error;
  }
}

/**
 * An advisory lock by flock(2), held until closed or the process ends. Undefined when another holds
 * it. The file is created where absent, and must never be removed: a new file is another lock.
 */
export function tryLock(path: string): { close(): void } | undefined {
  const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
  if (libc().flock(fd, LOCK_EX | LOCK_NB) < 0) {
    const error = systemError('flock', libc().errno(), `'${path}'`);
    closeSync(fd);
    if (error.code === 'EAGAIN') return undefined;
    throw error;
  }
  let open = true;
  return {
    close: () => {
      if (open) closeSync(fd);
      open = false;
    },
  };
}

/** Waits for it, trying every 50 ms. Rejects with the signal's reason. */
export async function lock(path: string, signal: AbortSignal): Promise<{ close(): void }> {
  for (;;) {
    signal.throwIfAborted();
    const held = tryLock(path);
    if (held !== undefined) return held;
    await systemClock.sleep(LOCK_RETRY_MS, signal);
  }
}

export interface FilesystemUse {
  /** The magic number of statfs(2). */
  readonly type: number;
  readonly bytesUsed: bigint;
  readonly bytesTotal: bigint;
  readonly inodesUsed: bigint;
  readonly inodesTotal: bigint;
}

/** statfs(2) of the filesystem that holds a path. */
export function filesystemUse(path: string): FilesystemUse {
  const stat = statfsSync(path, { bigint: true });
  return {
    type: Number(stat.type),
    bytesUsed: (stat.blocks - stat.bfree) * stat.bsize,
    bytesTotal: stat.blocks * stat.bsize,
    inodesUsed: stat.files - stat.ffree,
    inodesTotal: stat.files,
  };
}
