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
 * wrong_state where the host's mount propagates nothing into or out of a container as it was asked for,
 * and kubelet_reason for images.
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
    // A recursively read-only mount has no propagation, and is refused for that contradiction.
    if (!mount.recursiveReadOnly) requirePropagation(containerId, source, mount.propagation);
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

/**
 * mount_namespaces(7): only the peers of a shared mount see what is mounted below it, and a copy of a
 * mount that is neither shared nor a slave is told of nothing.
 */
function requirePropagation(
  containerId: string,
  source: string,
  propagation: MountPropagation,
): void {
  if (propagation === MountPropagation.PROPAGATION_PRIVATE) return;
  const mount = mountOf(source);
  if (mount === undefined || mount.propagation === 'shared') return;
  const is = `whose mount on ${mount.mountPoint} is ${mount.propagation}`;
  if (propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL) {
    const why = `what it mounts below ${source} can't be seen by the host, ${is} and not shared`;
    throw new Failure('wrong_state', `container ${containerId}: ${why}`);
  }
  if (mount.propagation === 'slave') return;
  const why = `it can't see what is mounted below ${source} by the host, ${is} and neither shared nor slave`;
  throw new Failure('wrong_state', `container ${containerId}: ${why}`);
}
