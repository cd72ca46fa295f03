// A tar archive that is written to an open file, entry by entry, from files of the host.

import { constants } from 'node:fs';
import { type FileHandle, lstat, open, readlink } from 'node:fs/promises';
import type { TarEntry } from '@cribus/archive/tar-reader.ts';
import { encodeHeader, endOfArchive, padding } from '@cribus/archive/tar-writer.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { getXattr, listXattrs } from '@cribus/host/jail.ts';

const CHUNK_BYTES = 256 * 1024;
/** overlayfs' own bookkeeping says nothing to another filesystem. */
const OVERLAY_XATTRS = /^(?:trusted|user)\.overlay\./;

export interface ArchiveFile {
  /** Adds what is at `path`; a socket, which no archive can hold, is left out. Latin1 names. */
  addPath(name: string, path: string): Promise<void>;
  addData(name: string, data: Uint8Array | string): Promise<void>;
  finish(): Promise<void>;
}

/** `nowNs` is the time of entries without one of their own. Each write looks at the signal. */
export function archiveInto(
  out: FileHandle,
  options: { readonly nowNs: bigint; readonly signal: AbortSignal },
): ArchiveFile {
  /** Of files with several names: the first one, by device and inode. */
  const known = new Map<string, string>();
  const write = async (data: Uint8Array) => {
    options.signal.throwIfAborted();
    for (let at = 0; at < data.length; ) at += (await out.write(data, at)).bytesWritten;
  };
  return {
    addPath: async (name, path) => {
      const entry = await entryOf(name, path, known);
      if (entry === undefined) return;
      await write(encodeHeader(entry));
      if (entry.kind !== 'file') return;
      await copyContent(path, entry.sizeBytes, write);
      await write(padding(entry.sizeBytes));
    },
    addData: async (name, data) => {
      const bytes = Buffer.from(data);
      await write(encodeHeader(plainFile(name, bytes.length, options.nowNs)));
      await write(bytes);
      await write(padding(bytes.length));
    },
    finish: () => write(endOfArchive()),
  };
}

function plainFile(name: string, sizeBytes: number, mtimeNs: bigint): TarEntry {
  const owner = { mode: 0o600, uid: 0, gid: 0, major: 0, minor: 0 };
  return { kind: 'file', name, linkName: '', ...owner, sizeBytes, mtimeNs, xattrs: new Map() };
}

async function entryOf(
  name: string,
  path: string,
  known: Map<string, string>,
): Promise<TarEntry | undefined> {
  const bytes = Buffer.from(path, 'latin1');
  const stats = await lstat(bytes, { bigint: true });
  const entry = {
    name,
    linkName: '',
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    sizeBytes: 0,
    mtimeNs: stats.mtimeNs,
    major: Number((stats.rdev >> 8n) & 0xfffn),
    minor: Number((stats.rdev & 0xffn) | ((stats.rdev >> 12n) & 0xfff00n)),
    xattrs: xattrsOf(bytes),
  };
  if (stats.isSocket()) return undefined;
  if (stats.isDirectory()) return { ...entry, kind: 'directory' };
  const key = `${stats.dev}:${stats.ino}`;
  const first = stats.nlink > 1n ? known.get(key) : undefined;
  if (first !== undefined) return { ...entry, kind: 'link', linkName: first };
  known.set(key, name);
  if (stats.isSymbolicLink()) {
    const linkName = (await readlink(bytes, { encoding: 'buffer' })).toString('latin1');
    return { ...entry, kind: 'symlink', linkName };
  }
  if (stats.isFile()) return { ...entry, kind: 'file', sizeBytes: Number(stats.size) };
  if (stats.isFIFO()) return { ...entry, kind: 'fifo' };
  return { ...entry, kind: stats.isCharacterDevice() ? 'character' : 'block' };
}

function xattrsOf(path: Buffer): ReadonlyMap<string, Buffer> {
  try {
    const names = listXattrs(path).filter((name) => !OVERLAY_XATTRS.test(name));
    return new Map(names.map((name) => [name, Buffer.from(getXattr(path, name))]));
  } catch (error) {
    if (isErrno(error, 'ENOTSUP', 'EOPNOTSUPP')) return new Map();
    throw error;
  }
}

/** Exactly as many bytes as the header says, whatever writes to the file meanwhile. */
async function copyContent(
  path: string,
  sizeBytes: number,
  write: (data: Uint8Array) => Promise<void>,
): Promise<void> {
  const file = await open(Buffer.from(path, 'latin1'), constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const chunk = Buffer.alloc(Math.min(CHUNK_BYTES, Math.max(sizeBytes, 1)));
    for (let left = sizeBytes; left > 0; ) {
      const { bytesRead } = await file.read(chunk, 0, Math.min(left, chunk.length));
      if (bytesRead === 0) chunk.fill(0);
      const taken = bytesRead === 0 ? Math.min(left, chunk.length) : bytesRead;
      await write(chunk.subarray(0, taken));
      left -= taken;
    }
  } finally {
    await file.close();
  }
}
