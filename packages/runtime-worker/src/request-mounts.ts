// The mounts of a CreateContainer request, checked and resolved against the host before the spec.

import { realpath, stat } from 'node:fs/promises';
import { Failure } from '@cribus/contracts/failure.ts';
import { type Mount, MountPropagation } from '@cribus/contracts/gen/cri/v1/api.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { mountOf } from '@cribus/host/mounts.ts';
import type { ResolvedMount } from '@cribus/oci/spec-input.ts';
import { type ImageVolumes, resolveImageMount } from './image-volumes.ts';

/** Beyond this a request is a mistake; the kubelet's pods have some ten. */
const MOUNTS_MAX = 1024;

/**
 * Resolves every host path, and every path in an image. A missing one is an error (the kubelet has
 * made all of them before it asks), a symlink is followed to what it names. Raises invalid_argument,
 * wrong_state where the host's mount can't receive what a container mounts, and kubelet_reason for
 * images.
 */
export async function resolveMounts(
  containerId: string,
  mounts: readonly Mount[],
  volumes: ImageVolumes,
): Promise<ResolvedMount[]> {
  if (mounts.length > MOUNTS_MAX) {
    throw new Failure('limit', `${mounts.length} mounts are over the maximum of ${MOUNTS_MAX}`);
  }
  return await Promise.all(
    mounts.map((mount) =>
      mount.image !== undefined && mount.image.image !== ''
        ? resolveImageMount(containerId, mount, volumes)
        : resolveMount(containerId, mount),
    ),
  );
}

async function resolveMount(containerId: string, mount: Mount): Promise<ResolvedMount> {
  if (!mount.containerPath.startsWith('/')) {
    throw new Failure(
      'invalid_argument',
      `container ${containerId}: mount path "${mount.containerPath}" is not absolute`,
    );
  }
  if (!mount.hostPath.startsWith('/')) {
    throw new Failure(
      'invalid_argument',
      `container ${containerId}: host path "${mount.hostPath}" is not absolute`,
    );
  }
  try {
    const source = await realpath(mount.hostPath);
    const sourceIsDirectory = (await stat(source)).isDirectory();
    if (mount.propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL) {
      requireShared(containerId, source);
    }
    return { mount, source, sourceIsDirectory };
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
    throw new Failure(
      'invalid_argument',
      `container ${containerId}: host path ${mount.hostPath} does not exist`,
      { cause: error },
    );
  }
}

/** mount_namespaces(7): only the peers of a shared mount see what is mounted below it. */
function requireShared(containerId: string, source: string): void {
  const mount = mountOf(source);
  if (mount === undefined || mount.propagation === 'shared') return;
  throw new Failure(
    'wrong_state',
    `container ${containerId}: what it mounts below ${source} can't be seen by the host, whose mount on ${mount.mountPoint} is ${mount.propagation} and not shared`,
  );
}
