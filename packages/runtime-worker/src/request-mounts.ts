// The mounts of a CreateContainer request, checked and resolved against the host before the spec.

import { realpath, stat } from 'node:fs/promises';
import { Failure } from '@cribus/contracts/failure.ts';
import type { Mount } from '@cribus/contracts/gen/cri/v1/api.ts';
import { isErrno } from '@cribus/host/errno.ts';
import type { ResolvedMount } from '@cribus/oci/spec-input.ts';

/** Beyond this a request is a mistake; the kubelet's pods have some ten. */
const MOUNTS_MAX = 1024;

/**
 * Resolves every host path. A missing one is an error (the kubelet has made all of them before it
 * asks), a symlink is followed to what it names. Raises invalid_argument, or unsupported.
 */
export async function resolveMounts(
  containerId: string,
  mounts: readonly Mount[],
): Promise<ResolvedMount[]> {
  if (mounts.length > MOUNTS_MAX) {
    throw new Failure('limit', `${mounts.length} mounts are over the maximum of ${MOUNTS_MAX}`);
  }
  return await Promise.all(mounts.map((mount) => resolveMount(containerId, mount)));
}

async function resolveMount(containerId: string, mount: Mount): Promise<ResolvedMount> {
  if (mount.image !== undefined && mount.image.image !== '') {
    throw new Failure(
      'unsupported',
      `container ${containerId}: image volumes are not supported yet (${mount.containerPath})`,
    );
  }
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
    return { mount, source, sourceIsDirectory: (await stat(source)).isDirectory() };
  } catch (error) {
    if (!isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) throw error;
    throw new Failure(
      'invalid_argument',
      `container ${containerId}: host path ${mount.hostPath} does not exist`,
      { cause: error },
    );
  }
}
