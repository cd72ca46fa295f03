// A layer may hold `tmp/file` without `tmp/`. Merged by overlayfs the directory that was made for it
// would hide the mode and owner that a lower layer gives `/tmp`; so it takes them over.

import { chmod, lchown, lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { isErrno } from '@cribus/host/errno.ts';
import { setTimes } from '@cribus/host/jail.ts';

/** Gives each directory what the topmost lower layer says of it; no symlink is followed. */
export async function inheritDirectories(
  layer: string,
  options: {
    readonly directories: readonly string[];
    readonly lowerTopmostFirst: readonly string[];
  },
): Promise<void> {
  // The deepest first: their times are not changed by what is done to their parents.
  for (const path of [...options.directories].reverse()) {
    const own = await directoryAt(layer, path);
    if (typeof own !== 'object') continue;
    for (const lower of options.lowerTopmostFirst) {
      const found = await directoryAt(lower, path);
      if (found === 'absent') continue;
      if (found === 'other') break;
      const target = join(layer, path);
      await lchown(target, Number(found.uid), Number(found.gid));
      await chmod(target, Number(found.mode & 0o7777n));
      setTimes(target, found.mtimeNs);
      break;
    }
  }
}

interface Attributes {
  readonly mode: bigint;
  readonly uid: bigint;
  readonly gid: bigint;
  readonly mtimeNs: bigint;
}

async function directoryAt(root: string, path: string): Promise<Attributes | 'absent' | 'other'> {
  let at = root;
  let last: Attributes | undefined;
  for (const part of path.split('/').filter((one) => one !== '')) {
    at = join(at, part);
    try {
      const found = await lstat(at, { bigint: true });
      if (!found.isDirectory()) return 'other';
      last = found;
    } catch (error) {
      if (isErrno(error, 'ENOENT')) return 'absent';
      throw error;
    }
  }
  return last ?? 'absent';
}
