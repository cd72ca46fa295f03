// What a container changed in its root filesystem, read from its overlay's upper directory: the files
// that are new or changed as an archive, and the paths that are gone as a list.

import { lstat } from 'node:fs/promises';
import { isErrno } from '@cribus/host/errno.ts';
import { getXattr } from '@cribus/host/jail.ts';
import type { ArchiveFile } from './archive-file.ts';
import { latin1, namesIn, utf8 } from './latin1.ts';

const OPAQUE_XATTR = 'trusted.overlay.opaque';

export interface RootfsChanges {
  /** The overlay's upper directory. */
  readonly upper: string;
  /** Of the layers, topmost first. */
  readonly lowers: readonly string[];
  /** Mount points that the engine made: nothing of the container's. */
  readonly skip: ReadonlySet<string>;
}

/** Writes the archive; answers the deleted paths, absolute within the container. */
export async function writeRootfsDiff(
  changes: RootfsChanges,
  archive: ArchiveFile,
): Promise<string[]> {
  const deleted: string[] = [];
  const upper = latin1(changes.upper);
  const lowers = changes.lowers.map(latin1);

  /** `covered`: what the layers have in this directory is hidden. */
  async function visit(path: string, covered: boolean): Promise<void> {
    const names = await namesIn(`${upper}${path}`);
    if (covered) {
      const hidden = new Set((await Promise.all(lowers.map((l) => namesIn(`${l}${path}`)))).flat());
      for (const name of names) hidden.delete(name);
      for (const name of hidden) deleted.push(utf8(`${path}/${name}`));
    }
    for (const name of names) {
      const child = `${path}/${name}`;
      if (changes.skip.has(utf8(child))) continue;
      const source = `${upper}${child}`;
      const stats = await lstat(Buffer.from(source, 'latin1'));
      if (stats.isCharacterDevice() && stats.rdev === 0) {
        deleted.push(utf8(child));
        continue;
      }
      await archive.addPath(child.slice(1), source);
      if (stats.isDirectory()) await visit(child, covered || isOpaque(source));
    }
  }

  await visit('', false);
  return deleted;
}

function isOpaque(path: string): boolean {
  try {
    return getXattr(Buffer.from(path, 'latin1'), OPAQUE_XATTR).toString() === 'y';
  } catch (error) {
    if (isErrno(error, 'ENODATA', 'ENOTSUP', 'EOPNOTSUPP')) return false;
    throw error;
  }
}
