// Writes the entries of a layer's archive into the root directory of the calling thread, which must
// be jailed in the layer's own directory: whatever a name or a symlink says, it ends in there.
// Whiteouts become overlayfs' (a 0:0 character device, the opaque attribute), since each layer is
// unpacked by itself and merged only by the mount (overlayfs.rst, "whiteouts and opaque directories").

import {
  chmodSync,
  closeSync,
  constants,
  fchmodSync,
  fchownSync,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  rmSync,
  type Stats,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { isErrno } from '@cribus/host/errno.ts';
import { makeNode, setFileTimes, setTimes, setXattr } from '@cribus/host/jail.ts';
import { badTar, readable } from './tar-header.ts';
import type { TarEntry, TarSink } from './tar-reader.ts';

export interface WrittenLayer {
  /** As the filesystem counts them, to a block of 4 KiB each. */
  readonly usedBytes: number;
  readonly inodes: number;
  /** Directories that entries lie in without having one of their own; parents first, latin1. */
  readonly impliedDirectories: readonly string[];
}

/** PATH_MAX of limits.h, with its NUL. */
const PATH_BYTES_MAX = 4095;
const NAME_BYTES_MAX = 255;
/** Of all files of one layer. */
const LAYER_BYTES_MAX = 256 * 2 ** 30;
const BLOCK_BYTES = 4096;
const IMPLIED_DIRECTORY_MODE = 0o755;
const WHITEOUT_PREFIX = '.wh.';
const OPAQUE_MARK = '.wh..wh..opq';
const OPAQUE_XATTR = 'trusted.overlay.opaque';
const WRITE_NEW = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Makes the sink that writes below `/`, which must be an empty directory. */
export class LayerWriter implements TarSink {
  /** Times are set at the end: every entry made inside a directory changes them. */
  readonly #directoryTimes = new Map<string, bigint>();
  readonly #implied = new Set<string>();
  readonly #whiteouts = new Set<string>();
  #file: { readonly fd: number; readonly path: string; readonly entry: TarEntry } | undefined;
  #usedBytes = 0;
  #inodes = 0;
  #written = 0;
  /** Where the next data of a sparse file goes; null: behind the last. */
  #position: number | null = null;

  entry(entry: TarEntry): void {
    const path = containedPath(entry.name);
    const slash = path.lastIndexOf('/');
    const name = path.slice(slash + 1);
    const parent = path.slice(0, slash);
    if (name.startsWith(WHITEOUT_PREFIX)) {
      this.#whiteout(parent, name);
      return;
    }
    this.#implyDirectories(parent);
    if (path === '') {
      if (entry.kind !== 'directory') throw badTar(`the root is a ${entry.kind}`);
      this.#directory('/', entry);
      return;
    }
    this.#create(path, entry);
  }

  data(chunk: Uint8Array): void {
    if (this.#file === undefined) return;
    this.#written += chunk.length;
    if (this.#written > LAYER_BYTES_MAX)
      throw badTar(`it unpacks to over ${LAYER_BYTES_MAX} bytes`);
    const { fd } = this.#file;
    for (let at = 0; at < chunk.length; ) {
      const written = writeSync(fd, chunk, at, chunk.length - at, this.#position);
      at += written;
      if (this.#position === null) continue;
      this.#position += written;
      this.#usedBytes += written;
    }
  }

  seek(offset: number): void {
    this.#position = offset;
  }

  end(): void {
    if (this.#file === undefined) return;
    const { fd, path, entry } = this.#file;
    this.#file = undefined;
    try {
      if (entry.sparse === true) ftruncateSync(fd, entry.sizeBytes);
      // After the data: write(2) takes file capabilities away.
      setXattrs(path, entry);
      setFileTimes(fd, entry.mtimeNs);
    } finally {
      closeSync(fd);
    }
  }

  /** Sets the times of the directories; nothing may be written afterwards. */
  finish(): WrittenLayer {
    for (const [path, mtimeNs] of [...this.#directoryTimes].reverse()) {
      const now = lstatIfThere(path);
      if (now?.isDirectory()) setTimes(pathOf(path), mtimeNs);
    }
    return {
      usedBytes: this.#usedBytes,
      inodes: this.#inodes,
      impliedDirectories: [...this.#implied],
    };
  }

  close(): void {
    if (this.#file !== undefined) closeSync(this.#file.fd);
    this.#file = undefined;
  }

  #create(path: string, entry: TarEntry): void {
    if (entry.kind === 'directory') {
      this.#directory(path, entry);
      return;
    }
    this.#makeRoom(path);
    this.#inodes += entry.kind === 'link' ? 0 : 1;
    switch (entry.kind) {
      case 'file':
        this.#openFile(path, entry);
        return;
      case 'link':
        this.#hardLink(path, entry);
        return;
      case 'symlink':
        if (entry.linkName === '') {
          throw badTar(`${JSON.stringify(readable(path))} is a symlink to nothing`);
        }
        symlinkSync(pathOf(entry.linkName), pathOf(path));
        break;
      case 'character':
      case 'block':
      case 'fifo':
        makeNode(pathOf(path), {
          mode: NODE_TYPE[entry.kind] | entry.mode,
          major: entry.major,
          minor: entry.minor,
        });
        break;
      default:
        entry.kind satisfies never;
    }
    lchownSync(pathOf(path), entry.uid, entry.gid);
    if (entry.kind !== 'symlink') chmodSync(pathOf(path), entry.mode);
    setXattrs(path, entry);
    setTimes(pathOf(path), entry.mtimeNs);
  }

  #openFile(path: string, entry: TarEntry): void {
    const fd = openSync(pathOf(path), WRITE_NEW, 0o600);
    this.#file = { fd, path, entry };
    this.#position = null;
    if (entry.sparse !== true)
      this.#usedBytes += Math.ceil(entry.sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
    // The owner first: chown(2) clears setuid bits and file capabilities.
    fchownSync(fd, entry.uid, entry.gid);
    fchmodSync(fd, entry.mode);
  }

  #hardLink(path: string, entry: TarEntry): void {
    const target = containedPath(entry.linkName);
    const found = lstatIfThere(target);
    if (found === undefined || found.isDirectory()) {
      const why = found === undefined ? 'is not in the layer' : 'is a directory';
      throw badTar(
        `the hard link ${JSON.stringify(readable(path))}: its target ${JSON.stringify(readable(target))} ${why}`,
      );
    }
    linkSync(pathOf(target), pathOf(path));
  }

  #directory(path: string, entry: TarEntry): void {
    const found = lstatIfThere(path);
    if (found !== undefined && !found.isDirectory()) this.#makeRoom(path);
    if (found === undefined || !found.isDirectory()) {
      mkdirSync(pathOf(path), 0o700);
      this.#inodes += 1;
      this.#usedBytes += BLOCK_BYTES;
      // Its namesake below was whited out: nothing of that may show through.
      if (this.#whiteouts.delete(path)) setXattr(pathOf(path), OPAQUE_XATTR, Buffer.from('y'));
    }
    this.#implied.delete(path);
    lchownSync(pathOf(path), entry.uid, entry.gid);
    chmodSync(pathOf(path), entry.mode);
    setXattrs(path, entry);
    this.#directoryTimes.set(path, entry.mtimeNs);
  }

  /** An entry replaces an earlier one of its name; a directory with all that is in it. */
  #makeRoom(path: string): void {
    const found = lstatIfThere(path);
    if (found === undefined) return;
    rmSync(pathOf(path), { recursive: true });
    for (const set of [this.#implied, this.#directoryTimes]) {
      for (const known of set.keys()) {
        if (known === path || known.startsWith(`${path}/`)) set.delete(known);
      }
    }
  }

  #implyDirectories(parent: string): void {
    if (parent === '' || this.#directoryTimes.has(parent) || this.#implied.has(parent)) return;
    this.#implyDirectories(parent.slice(0, parent.lastIndexOf('/')));
    const found = lstatIfThere(parent);
    if (found?.isDirectory()) return;
    if (found?.isSymbolicLink()) return; // The kernel follows it, within the jail.
    if (found !== undefined) this.#makeRoom(parent);
    mkdirSync(pathOf(parent), IMPLIED_DIRECTORY_MODE);
    chmodSync(pathOf(parent), IMPLIED_DIRECTORY_MODE);
    this.#inodes += 1;
    this.#usedBytes += BLOCK_BYTES;
    if (this.#whiteouts.delete(parent)) setXattr(pathOf(parent), OPAQUE_XATTR, Buffer.from('y'));
    this.#implied.add(parent);
  }

  /** A whiteout hides what lower layers have, never what this one has. */
  #whiteout(parent: string, name: string): void {
    if (name === OPAQUE_MARK) {
      this.#implyDirectories(parent);
      setXattr(pathOf(parent === '' ? '/' : parent), OPAQUE_XATTR, Buffer.from('y'));
      return;
    }
    if (name.startsWith(`${WHITEOUT_PREFIX}${WHITEOUT_PREFIX}`)) return; // aufs' own bookkeeping.
    const hidden = name.slice(WHITEOUT_PREFIX.length);
    if (hidden === '' || hidden === '.' || hidden === '..') {
      throw badTar(`${JSON.stringify(readable(`${parent}/${name}`))} is a whiteout of no file`);
    }
    this.#implyDirectories(parent);
    const path = `${parent}/${hidden}`;
    const found = lstatIfThere(path);
    if (found === undefined) {
      makeNode(pathOf(path), { mode: constants.S_IFCHR, major: 0, minor: 0 });
      this.#inodes += 1;
      this.#whiteouts.add(path);
    } else if (found.isDirectory()) {
      setXattr(pathOf(path), OPAQUE_XATTR, Buffer.from('y'));
    }
  }
}

const NODE_TYPE = {
  character: constants.S_IFCHR,
  block: constants.S_IFBLK,
  fifo: constants.S_IFIFO,
} as const;

/**
 * An absolute path within the layer, `''` for its root. A leading slash is dropped as every
 * unpacker does; a name that climbs out is refused, since only an attack has one.
 */
export function containedPath(name: string): string {
  if (name.includes('\0')) throw badTar('a name holds a NUL');
  const parts: string[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part !== '..') {
      if (part.length > NAME_BYTES_MAX)
        throw badTar(`${JSON.stringify(readable(part).slice(0, 80))}… is too long`);
      parts.push(part);
    } else if (parts.pop() === undefined) {
      throw badTar(`${JSON.stringify(readable(name))} leads out of the layer`);
    }
  }
  const path = parts.map((part) => `/${part}`).join('');
  if (path.length > PATH_BYTES_MAX) throw badTar('a name is longer than a path may be');
  return path;
}

/** Names are kept with a character for each byte; the kernel gets the bytes. */
export function pathOf(name: string): string | Buffer {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII, which is its own bytes.
  return /^[\x01-\x7f]*$/.test(name) ? name : Buffer.from(name, 'latin1');
}

function lstatIfThere(path: string): Stats | undefined {
  try {
    return lstatSync(pathOf(path), { throwIfNoEntry: false });
  } catch (error) {
    if (isErrno(error, 'ENOTDIR')) return undefined;
    throw error;
  }
}

function setXattrs(path: string, entry: TarEntry): void {
  for (const [name, value] of entry.xattrs) {
    // These would let a layer redirect overlayfs itself; a layer says such things by whiteouts.
    if (name.startsWith('trusted.overlay.') || name.startsWith('user.overlay.')) continue;
    try {
      setXattr(pathOf(path), name, value);
    } catch (error) {
      // A filesystem without such attributes loses them, as with every other unpacker; user.* is
      // refused on everything but files and directories (xattr(7)).
      if (isErrno(error, 'ENOTSUP', 'EOPNOTSUPP')) continue;
      if (isErrno(error, 'EPERM') && name.startsWith('user.')) continue;
      throw error;
    }
  }
}
