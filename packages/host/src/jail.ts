// Shutting a worker thread into a directory, and the system calls that Node lacks for writing a file
// tree exactly: device nodes, extended attributes, times in nanoseconds.
//
// Only synchronous calls of the jailed thread are inside; asynchronous ones run on libuv's pool
// threads, which are outside. Those inherit the root of the thread that makes the process' first
// asynchronous call, so the pool must be up before any thread enters a jail.

import { openSync } from 'node:fs';
import { isMainThread } from 'node:worker_threads';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const unshareCall = libc.func('int unshare(int flags)');
const chrootCall = libc.func('int chroot(const char *path)');
const chdirCall = libc.func('int chdir(const char *path)');
const fchdirCall = libc.func('int fchdir(int fd)');
const umaskCall = libc.func('uint32_t umask(uint32_t mask)');
const mknodCall = libc.func('int mknod(const char *path, uint32_t mode, uint64_t device)');
const lsetxattrCall = libc.func(
  'int lsetxattr(const char *path, const char *name, const void *value, size_t size, int flags)',
);
const lgetxattrCall = libc.func(
  'int64_t lgetxattr(const char *path, const char *name, _Out_ uint8_t *value, size_t size)',
);
const llistxattrCall = libc.func(
  'int64_t llistxattr(const char *path, _Out_ uint8_t *list, size_t size)',
);
const utimensatCall = libc.func(
  'int utimensat(int directory, const char *path, const void *times, int flags)',
);
const futimensCall = libc.func('int futimens(int fd, const void *times)');
const syncfsCall = libc.func('int syncfs(int fd)');

// sched.h, fcntl.h
const CLONE_FS = 0x200;
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;
/** XATTR_SIZE_MAX of limits.h. */
const XATTR_BYTES_MAX = 65_536;

function check(result: number, call: string, path: string): void {
  if (result >= 0) return;
  const number = koffi.errno();
  const code =
    Object.entries(koffi.os.errno).find(([, value]) => value === number)?.[0] ?? `E${number}`;
  throw Object.assign(new Error(`${call} ${JSON.stringify(path)}: ${code}`), {
    code,
    errno: -number,
    syscall: call,
    path,
  });
}

/**
 * Makes `directory` the root of the calling thread, and sets its umask to 0; no other thread
 * notices. Only in a worker thread, and for good: end the thread afterwards. Throws with an errno
 * code.
 */
export function enterJail(directory: string): void {
  if (isMainThread) throw new Error('a jail is for worker threads: the main thread needs the host');
  check(unshareCall(CLONE_FS), 'unshare', directory);
  check(chrootCall(directory), 'chroot', directory);
  check(chdirCall('/'), 'chdir', '/');
  umaskCall(0);
}

/** As enterJail, with a way back for a thread that goes on to another directory. */
export function enterJailForAWhile(directory: string): { leave(): void } {
  const outside = openSync('/', 'r');
  enterJail(directory);
  return {
    leave: () => {
      check(fchdirCall(outside), 'fchdir', '/');
      check(chrootCall('.'), 'chroot', '.');
    },
  };
}

/** A name that is no UTF-8 is given as its bytes, without a NUL. */
export type NativePath = string | Uint8Array;

function cPath(path: NativePath): NativePath {
  return typeof path === 'string' ? path : Buffer.concat([path, Buffer.of(0)]);
}

function shown(path: NativePath): string {
  return typeof path === 'string' ? path : Buffer.from(path).toString('utf8');
}

/** mknod(2): `mode` has the type bits (S_IFCHR, S_IFBLK, S_IFIFO) and permissions. */
export function makeNode(
  path: NativePath,
  node: { readonly mode: number; readonly major: number; readonly minor: number },
): void {
  const device = deviceNumber(node.major, node.minor);
  check(mknodCall(cPath(path), node.mode, device), 'mknod', shown(path));
}

/** glibc's gnu_dev_makedev: 12 + 20 bits major, 8 + 24 bits minor. */
function deviceNumber(major: number, minor: number): bigint {
  const high = BigInt(major);
  const low = BigInt(minor);
  return (
    ((high & 0xfffn) << 8n) | ((high & ~0xfffn) << 32n) | (low & 0xffn) | ((low & ~0xffn) << 12n)
  );
}

/** Sets an extended attribute of the path itself, never of a symlink's target. */
export function setXattr(path: NativePath, name: string, value: Uint8Array): void {
  const result = lsetxattrCall(cPath(path), name, value, value.length, 0);
  check(result, 'lsetxattr', `${shown(path)} ${name}`);
}

/** The value of an extended attribute of the path itself. Throws ENODATA where it has none. */
export function getXattr(path: NativePath, name: string): Buffer {
  const value = Buffer.alloc(XATTR_BYTES_MAX);
  const length = Number(lgetxattrCall(cPath(path), name, value, value.length));
  check(length, 'lgetxattr', `${shown(path)} ${name}`);
  return value.subarray(0, length);
}

/** Names of the extended attributes of the path itself. */
export function listXattrs(path: NativePath): string[] {
  const list = Buffer.alloc(XATTR_BYTES_MAX);
  const length = Number(llistxattrCall(cPath(path), list, list.length));
  check(length, 'llistxattr', shown(path));
  return list.toString('utf8', 0, length).split('\0').slice(0, -1);
}

const times = new BigInt64Array(4);
const NS_PER_S = 1_000_000_000n;

function fillTimes(ns: bigint): BigInt64Array {
  // timespec wants 0 <= tv_nsec: round the seconds down, also before 1970.
  const nanoseconds = ((ns % NS_PER_S) + NS_PER_S) % NS_PER_S;
  const seconds = (ns - nanoseconds) / NS_PER_S;
  times[0] = times[2] = seconds;
  times[1] = times[3] = nanoseconds;
  return times;
}

/** Sets access and modification time of the path itself, in nanoseconds since 1970. */
export function setTimes(path: NativePath, ns: bigint): void {
  const result = utimensatCall(AT_FDCWD, cPath(path), fillTimes(ns), AT_SYMLINK_NOFOLLOW);
  check(result, 'utimensat', shown(path));
}

/** As setTimes, of an open file. */
export function setFileTimes(fd: number, ns: bigint): void {
  check(futimensCall(fd, fillTimes(ns)), 'futimens', `fd ${fd}`);
}

/** Writes everything of the filesystem that holds an open file to its disk; off the main thread. */
export async function syncFilesystem(fd: number): Promise<void> {
  const result = await new Promise<number>((resolve, reject) => {
    syncfsCall.async(fd, (error: Error | null, value: number) =>
      error === null ? resolve(value) : reject(error),
    );
  });
  if (result < 0) throw new Error(`syncfs of fd ${fd} failed`);
}
