// What a container has in a volume that its image declares, as if it lay in the root filesystem: from
// there a container that is made from the archive fills its own. Names are latin1, as in the archive.

import { lstat } from 'node:fs/promises';
import type { DeclaredVolume } from '@cribus/oci/declared-volumes.ts';
import type { ArchiveFile } from './archive-file.ts';
import { latin1, namesIn, utf8 } from './latin1.ts';

/**
 * Writes all of the volume; answers what its image has there and it has no more, absolute within the
 * container.
 *
 * @param rootfs the container's, which shows at the volume's place what the image has.
 */
export async function writeVolumeDiff(
  volume: DeclaredVolume,
  { rootfs, archive }: { readonly rootfs: string; readonly archive: ArchiveFile },
): Promise<string[]> {
  const deleted: string[] = [];
  const destination = latin1(volume.destination);
  const image = latin1(rootfs);
  const source = latin1(volume.source);

  async function visit(path: string): Promise<void> {
    const here = `${source}${path}`;
    await archive.addPath(`${destination}${path}`.slice(1), here);
    if (!(await lstat(Buffer.from(here, 'latin1'))).isDirectory()) return;
    const names = await namesIn(here);
    for (const name of await namesIn(`${image}${destination}${path}`)) {
      if (!names.includes(name)) deleted.push(utf8(`${destination}${path}/${name}`));
    }
    for (const name of names) await visit(`${path}/${name}`);
  }

  await visit('');
  return deleted;
}
