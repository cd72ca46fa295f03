// SELinux contexts of files on disk: what chcon(1) does to a volume that a container is to use.

import { lstat, open, readdir } from 'node:fs/promises';
import { isErrno } from './errno.ts';
import { OPEN_DIRECTORY_ONLY } from './mounts.ts';

const ATTRIBUTE = 'security.selinux';

/**
 * Gives a file, or a directory and all below it, an SELinux context; symlinks themselves, never what
 * they name. What vanishes meanwhile, or is on a file system without such attributes (ENOTSUP), is
 * passed over. Throws with an errno code.
 */
export async function relabelTree(path: string, context: string): Promise<void> {
  // Only hosts with SELinux come here, so only they load it.
  const { setXattr } = await import('./jail.ts');
  const value = Buffer.from(`${context}\0`);
  const label = (place: string | Buffer) => {
    try {
      setXattr(place, ATTRIBUTE, value);
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTSUP', 'EROFS')) throw error;
    }
  };
  const descend = async (place: string | Buffer): Promise<void> => {
    label(place);
    const directory = await open(place, OPEN_DIRECTORY_ONLY);
    try {
      const base = `/proc/self/fd/${directory.fd}`;
      const entries = await readdir(base, { withFileTypes: true, encoding: 'latin1' });
      for (const entry of entries) {
        const within = Buffer.from(`${base}/${entry.name}`, 'latin1');
        if (!entry.isDirectory()) label(within);
        else await ignoringAbsence(descend(within));
      }
    } finally {
      await directory.close();
    }
  };
  if ((await lstat(path)).isDirectory()) await descend(path);
  else label(path);
}

async function ignoringAbsence(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
  }
}
