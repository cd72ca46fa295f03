// Makes the volumes that an image declares: directories beside the container's record, with what the
// image has at their places, that go away with the container. A mount of the request comes first.

import { chmod, chown, lstat, mkdir } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Mount } from '@cribus/contracts/gen/cri/v1/api.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { run } from '@cribus/host/spawn.ts';
import {
  DECLARED_VOLUMES_MAX,
  type DeclaredVolume,
  declaredDestinations,
  isFree,
} from '@cribus/oci/declared-volumes.ts';
import type { ImageConfig } from '@cribus/oci/image-config.ts';
import { resolveInRootfs } from './rootfs-files.ts';

/** Mode of a volume at a path that the image has not. */
const NEW_MODE = 0o755;
const PERMISSION_BITS = 0o7777;

/**
 * Makes and fills them below `directory`, which is only made where there are any. A path at which the
 * image has a file is left as it is. Raises limit for more than DECLARED_VOLUMES_MAX, and the signal's
 * reason when it aborts.
 */
export async function makeDeclaredVolumes(options: {
  readonly containerId: string;
  readonly image: ImageConfig;
  readonly mounts: readonly Mount[];
  /** Mounted, with owners as the container's own user namespace maps them. */
  readonly rootfs: string;
  readonly directory: string;
  /** The container's root, as the host counts. */
  readonly root: { readonly uid: number; readonly gid: number };
  readonly signal: AbortSignal;
}): Promise<DeclaredVolume[]> {
  const { containerId, rootfs, directory, signal } = options;
  const destinations = declaredDestinations(options.image, options.mounts);
  if (destinations.length > DECLARED_VOLUMES_MAX) {
    const why = `its image declares ${destinations.length} volumes, over ${DECLARED_VOLUMES_MAX}`;
    throw new Failure('limit', `container ${containerId}: ${why}`);
  }
  const taken = await Promise.all(
    options.mounts.map(async ({ containerPath }) =>
      withinRootfs(rootfs, await resolveInRootfs(rootfs, containerPath)),
    ),
  );
  const made: DeclaredVolume[] = [];
  for (const [index, declared] of destinations.entries()) {
    const content = await resolveInRootfs(rootfs, declared);
    // Where the engine, too, gets by the image's symlinks. One inside of another is in its copy.
    const destination = withinRootfs(rootfs, content);
    if (!isFree(destination, [...taken, ...made.map((other) => other.destination)])) continue;
    const found = await statIfThere(content);
    if (found !== undefined && !found.isDirectory()) continue;
    const source = join(directory, String(index));
    await mkdir(source, { recursive: true, mode: 0o700 });
    await chown(source, found?.uid ?? options.root.uid, found?.gid ?? options.root.gid);
    await chmod(source, found === undefined ? NEW_MODE : found.mode & PERMISSION_BITS);
    if (found !== undefined) await copyContent({ containerId, content, source, signal });
    made.push({ destination, source });
  }
  return made;
}

function withinRootfs(rootfs: string, path: string): string {
  return join('/', relative(rootfs, path));
}

async function statIfThere(path: string) {
  try {
    return await lstat(path);
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR')) return undefined;
    throw error;
  }
}

/** cp(1) keeps owners, times, links, devices and extended attributes, and follows no link of the image's. */
async function copyContent(copy: {
  readonly containerId: string;
  readonly content: string;
  readonly source: string;
  readonly signal: AbortSignal;
}): Promise<void> {
  const args = ['-a', '--', `${copy.content}/.`, copy.source];
  const { exitCode, stderr } = await run({ command: 'cp', args, signal: copy.signal });
  if (exitCode === 0) return;
  throw new Failure(
    'wrong_state',
    `container ${copy.containerId}: a volume of its image can't be filled: ${String(stderr).trim()}`,
    { stage: 'image volume' },
  );
}
