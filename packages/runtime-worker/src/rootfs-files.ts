// Reading and making files inside a container's root filesystem without ever leaving it: an image
// may hold symlinks to anywhere, and they are meant from the root filesystem's own `/`.

import { constants } from 'node:fs';
import { chown, lstat, mkdir, open, readlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { isErrno } from '@cribus/host/errno.ts';

/** Linux follows at most 40 symlinks in one path (path_resolution(7)). */
const SYMLINKS_MAX = 40;
/** /etc/passwd of a real image has a few KiB. */
const FILE_BYTES_MAX = 4 * 1024 * 1024;

/**
 * Where a path of the container lies on the host, every symlink of it resolved below `rootfs`.
 * Nothing runs in the root filesystem yet, so what was resolved stays so. Parts that do not exist
 * are taken as they are.
 */
export async function resolveInRootfs(rootfs: string, path: string): Promise<string> {
  let todo = path.split('/').filter((part) => part !== '' && part !== '.');
  let done: string[] = [];
  let links = 0;
  while (todo.length > 0) {
    const [part = '', ...rest] = todo;
    todo = rest;
    if (part === '..') {
      done = done.slice(0, -1);
      continue;
    }
    const target = await linkTarget(join(rootfs, ...done, part));
    if (target === undefined) {
      done = [...done, part];
      continue;
    }
    links += 1;
    if (links > SYMLINKS_MAX) {
      throw new Failure('invalid_argument', `${path} in the image has too many symlinks`);
    }
    if (target.startsWith('/')) done = [];
    todo = [...target.split('/').filter((piece) => piece !== '' && piece !== '.'), ...todo];
  }
  return join(rootfs, ...done);
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return (await lstat(path)).isSymbolicLink() ? await readlink(path) : undefined;
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** A regular file's text; empty where there is none, or where it isn't a regular file. */
export async function readInRootfs(rootfs: string, path: string): Promise<string> {
  const place = await resolveInRootfs(rootfs, path);
  try {
    // Non-blocking, so that a fifo of that name can't hold us.
    const file = await open(
      place,
      constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK,
    );
    try {
      const { size } = await file.stat();
      if (!(await file.stat()).isFile()) return '';
      if (size > FILE_BYTES_MAX) {
        throw new Failure('limit', `${path} of the image has ${size} bytes`);
      }
      return await file.readFile('utf8');
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return '';
    throw error;
  }
}

/** Makes a directory and its parents where they are absent, as 0755 of the container's root. */
export async function makeDirectoryInRootfs(
  rootfs: string,
  path: string,
  root?: { readonly uid: number; readonly gid: number },
): Promise<void> {
  const place = await resolveInRootfs(rootfs, path);
  if (dirname(place) === place) return;
  const made = await mkdir(place, { recursive: true, mode: 0o755 }).catch((error: unknown) => {
    if (!isErrno(error, 'EEXIST', 'ENOTDIR')) throw error;
    throw new Failure('invalid_argument', `working directory ${path} is a file in the image`);
  });
  if (made === undefined || root === undefined) return;
  for (let each = place; each.length >= made.length; each = dirname(each)) {
    await chown(each, root.uid, root.gid);
  }
}
