// Mounts that show other owners than the file system has (mount_setattr(2), MOUNT_ATTR_IDMAP): the
// files of host user 0 belong to the root of a user namespace there, and what that root writes is
// host user 0's on disk. Made by us, for the engines of today's distributions can't.

import { closeSync, constants, mkdirSync, openSync, rmdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { isErrno, systemError } from './errno.ts';
import { mountOf, mountOverlay, type OverlayMount, unmount } from './mounts.ts';

/** asm-generic/unistd.h; the same on x86-64 and arm64. */
const SYS_OPEN_TREE = 428;
const SYS_MOVE_MOUNT = 429;
const SYS_MOUNT_SETATTR = 442;
/** linux/fcntl.h, linux/mount.h. */
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const AT_RECURSIVE = 0x8000;
const OPEN_TREE_CLONE = 1;
const OPEN_TREE_CLOEXEC = 0o2000000;
const MOVE_MOUNT_F_EMPTY_PATH = 4;
const MOUNT_ATTR_IDMAP = 0x00100000n;
const PROPAGATION = { private: 1n << 18n, slave: 1n << 19n } as const;
/** struct mount_attr: attr_set, attr_clr, propagation, userns_fd, each of 64 bits. */
const MOUNT_ATTR_BYTES = 32;

export interface IdmapOptions {
  /** Path of the user namespace (a pin, or /proc/<pid>/ns/user) whose mappings are applied. */
  readonly userNamespace: string;
  /** With the mounts below, as in an rbind. Default: the mount itself only. */
  readonly recursive?: boolean;
  /** Of the new mount: `slave` goes on receiving what is mounted below the source. */
  readonly propagation?: 'private' | 'slave';
}

/**
 * Mounts `source` on `target` (both exist; two directories, or two files) with the owners of its
 * files mapped by a user namespace. A mount below the source whose file system can't be mapped
 * stays as it is. On a failure nothing stays mounted. Take it away by `unmount`. Throws with an errno
 * code: EINVAL where the file system can't be mapped (its type is in the message), EPERM for a
 * source that is mapped already.
 */
export function idmapMount(source: string, target: string, options: IdmapOptions): void {
  const { openTree, moveMount } = calls();
  const recursive = options.recursive === true ? AT_RECURSIVE : 0;
  const flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | recursive;
  const tree = openTree(AT_FDCWD, source, flags, `'${source}'`);
  try {
    const userns = openSync(options.userNamespace, constants.O_RDONLY);
    try {
      mapTree(tree, { source, userns, recursive, propagation: options.propagation ?? 'private' });
    } finally {
      closeSync(userns);
    }
    moveMount(tree, target, `'${source}' on '${target}'`);
  } finally {
    closeSync(tree);
  }
}

function mapTree(
  tree: number,
  mount: {
    readonly source: string;
    readonly userns: number;
    readonly recursive: number;
    readonly propagation: 'private' | 'slave';
  },
): void {
  const { setMountAttributes } = calls();
  const { source, userns, recursive } = mount;
  const propagation = PROPAGATION[mount.propagation];
  // Before the rest, which may be refused for one of the mounts: none may stay a peer of the host's.
  const detail = `'${source}' ${mount.propagation}`;
  setMountAttributes(tree, recursive, { propagation, userns: 0, set: 0n, detail });
  const map = (depth: number) =>
    setMountAttributes(tree, depth, {
      propagation: 0n,
      userns,
      set: MOUNT_ATTR_IDMAP,
      detail: `'${source}' with mapped owners (${mountOf(source)?.filesystem ?? 'unknown'})`,
    });
  try {
    map(recursive);
  } catch (error) {
    if (recursive === 0 || !isErrno(error, 'EINVAL', 'EPERM')) throw error;
    map(0);
  }
}

/**
 * As mountOverlay, with the layers' owners mapped by a user namespace: overlayfs itself can't be
 * mapped, its layers can (Linux 5.19). The layers' directory is mounted mapped for the moment of
 * the call beside the target, as `<target>.layers`; the overlay keeps clones of its own. `upper` and
 * `work` are to belong to the namespace's root.
 */
export function mountIdmappedOverlay(
  mount: OverlayMount,
  options: { readonly userNamespace: string },
): void {
  const place = `${mount.target}.layers`;
  mkdirSync(place, { mode: 0o700 });
  try {
    idmapMount(mount.layersDirectory, place, options);
    try {
      mountOverlay({ ...mount, layersDirectory: place });
    } finally {
      unmount(place);
    }
  } finally {
    rmdirSync(place);
  }
}

interface Calls {
  openTree(directory: number, path: string, flags: number, detail: string): number;
  moveMount(tree: number, target: string, detail: string): void;
  setMountAttributes(
    tree: number,
    flags: number,
    change: {
      readonly set: bigint;
      readonly propagation: bigint;
      readonly userns: number;
      readonly detail: string;
    },
  ): void;
}

let loaded: Calls | undefined;

/** By number: the C library has names for them from glibc 2.36 on only. */
function calls(): Calls {
  loaded ??= load();
  return loaded;
}

function load(): Calls {
  const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
  const library = koffi.load('libc.so.6');
  const call = (types: string) => library.func(`long syscall(long, ${types})`);
  const openTree = call('long, const char *, unsigned int');
  const moveMount = call('long, const char *, long, const char *, unsigned int');
  const setAttributes = call('long, const char *, unsigned int, void *, size_t');
  const checked = (result: unknown, name: string, detail: string): number => {
    const value = Number(result);
    if (value < 0) throw systemError(name, koffi.errno(), detail);
    return value;
  };
  return {
    openTree: (directory, path, flags, detail) =>
      checked(openTree(SYS_OPEN_TREE, directory, path, flags), 'open_tree', detail),
    moveMount: (tree, target, detail) => {
      const flags = MOVE_MOUNT_F_EMPTY_PATH;
      const result = moveMount(SYS_MOVE_MOUNT, tree, '', AT_FDCWD, target, flags);
      checked(result, 'move_mount', detail);
    },
    setMountAttributes: (tree, flags, change) => {
      const attributes = Buffer.alloc(MOUNT_ATTR_BYTES);
      attributes.writeBigUInt64LE(change.set, 0);
      attributes.writeBigUInt64LE(change.propagation, 16);
      attributes.writeBigUInt64LE(BigInt(change.userns), 24);
      const all = flags | AT_EMPTY_PATH;
      const size = MOUNT_ATTR_BYTES;
      const result = setAttributes(SYS_MOUNT_SETATTR, tree, '', all, attributes, size);
      checked(result, 'mount_setattr', change.detail);
    },
  };
}
