// A layer may hold `tmp/file` without `tmp/`. Merged by overlayfs, the directory that was made for it
// would hide the mode and owner that a lower layer gives `/tmp`. A layer is shared by all images that
// have it, over whatever other layers; so what those say goes into a small layer of directories of its
// own, right above it.

import { createHash } from 'node:crypto';
import { chmod, lchown, lstat, mkdir } from 'node:fs/promises';
import { isErrno } from '@cribus/host/errno.ts';
import { getXattr, listXattrs, setTimes, setXattr } from '@cribus/host/jail.ts';

/** A directory as the layers below have it. Its path is latin1: a character for each byte. */
export interface InheritedDirectory {
  readonly path: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtimeNs: string;
  /** Values in hexadecimal. */
  readonly xattrs: Readonly<Record<string, string>>;
}

const OPAQUE_XATTR = 'trusted.overlay.opaque';
const OVERLAY_PREFIX = 'trusted.overlay.';
/** A layer that implies more is unpacked with the attributes that it has. */
const DIRECTORIES_MAX = 10_000;

/**
 * What a layer's implied directories are in an image, their parents first; empty where the layers below
 * say nothing of them. No symlink is followed.
 */
export async function inheritedDirectories(
  layer: string,
  options: {
    readonly implied: readonly string[];
    readonly lowerTopmostFirst: readonly string[];
  },
): Promise<InheritedDirectory[]> {
  const inherited = new Map<string, InheritedDirectory>();
  for (const path of options.implied.slice(0, DIRECTORIES_MAX)) {
    const own = await directoryAt(layer, path);
    // Opaque, there or above: what is below shows neither its files nor its mode.
    if (typeof own !== 'object' || own.covered) continue;
    for (const lower of options.lowerTopmostFirst) {
      const found = await directoryAt(lower, path);
      if (found === 'absent') continue;
      if (found !== 'other') inherited.set(path, found.directory);
      break;
    }
  }
  if (inherited.size === 0) return [];
  // Every directory above them is in the new layer too, and must say what it says below.
  const paths = new Set(['', ...[...inherited.keys()].flatMap(withParents)]);
  const directories: InheritedDirectory[] = [];
  for (const path of [...paths].sort()) {
    const known = inherited.get(path);
    const own = known === undefined ? await directoryAt(layer, path) : undefined;
    if (known !== undefined) directories.push(known);
    else if (typeof own === 'object') directories.push(own.directory);
  }
  return directories;
}

/** A digest of what such a layer holds, by which it is shared like any other. */
export function identityOf(directories: readonly InheritedDirectory[]): string {
  return `sha256:${createHash('sha256').update(JSON.stringify(directories)).digest('hex')}`;
}

/** Makes the directories below an empty one. */
export async function writeDirectories(
  root: string,
  directories: readonly InheritedDirectory[],
): Promise<void> {
  for (const { path, mode, uid, gid, xattrs } of directories) {
    const target = below(root, path);
    if (path !== '') await mkdir(target);
    await lchown(target, uid, gid);
    await chmod(target, mode);
    for (const [name, hex] of Object.entries(xattrs)) {
      setXattr(target, name, Buffer.from(hex, 'hex'));
    }
  }
  // The deepest first: a directory's time changes with what is made in it.
  for (const { path, mtimeNs } of [...directories].reverse()) {
    setTimes(below(root, path), BigInt(mtimeNs));
  }
}

function withParents(path: string): string[] {
  const parts = path.split('/').slice(1);
  return parts.map((_, index) => `/${parts.slice(0, index + 1).join('/')}`);
}

function below(root: string, path: string): Buffer {
  return Buffer.concat([Buffer.from(root), Buffer.from(path, 'latin1')]);
}

interface Found {
  readonly directory: InheritedDirectory;
  /** It or a directory above it is opaque. */
  readonly covered: boolean;
}

/** `other` also where the layer hides what the ones below it have there. */
async function directoryAt(root: string, path: string): Promise<Found | 'absent' | 'other'> {
  let covered = false;
  let found: Found | undefined;
  for (const at of ['', ...withParents(path)]) {
    const target = below(root, at);
    try {
      const stats = await lstat(target, { bigint: true });
      if (!stats.isDirectory()) return 'other';
      const xattrs = xattrsOf(target);
      covered ||= OPAQUE_XATTR in xattrs;
      const shown = Object.entries(xattrs).filter(([name]) => !name.startsWith(OVERLAY_PREFIX));
      found = {
        directory: {
          path: at,
          mode: Number(stats.mode & 0o7777n),
          uid: Number(stats.uid),
          gid: Number(stats.gid),
          mtimeNs: String(stats.mtimeNs),
          xattrs: Object.fromEntries(shown),
        },
        covered,
      };
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return covered ? 'other' : 'absent';
      throw error;
    }
  }
  return found ?? 'absent';
}

function xattrsOf(path: Buffer): Record<string, string> {
  const names = listXattrs(path).sort();
  return Object.fromEntries(names.map((name) => [name, getXattr(path, name).toString('hex')]));
}
