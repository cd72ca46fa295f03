// Images that a container mounts as volumes (KEP-4639): the leased layers of each are mounted read-only
// below the container's run directory, where everything that takes a container away finds them.

import { mkdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { type ContainerConfig, Mount } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { LeasedVolume } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { mountIdmappedOverlay } from '@cribus/host/idmapped-mounts.ts';
import { mountOverlay } from '@cribus/host/mounts.ts';
import type { ResolvedMount } from '@cribus/oci/spec-input.ts';
import { resolveInRootfs } from './rootfs-files.ts';

export interface ImageVolume {
  /** sha256:<config digest>. */
  readonly imageId: string;
  /** Where its root is on the host. */
  readonly root: string;
}

/** By the name that the request gives the image. */
export type ImageVolumes = ReadonlyMap<string, ImageVolume>;

/** The images that a configuration mounts, each name once. */
export function volumeImages(config: ContainerConfig | undefined): string[] {
  const names = (config?.mounts ?? []).map((mount) => mount.image?.image ?? '');
  return [...new Set(names.filter((name) => name !== ''))];
}

/**
 * Mounts the layers of each image in a directory of its own below `directory`. What was mounted is
 * undone with the container's run directory. Raises kubelet_reason.
 */
export async function mountImageVolumes(
  directory: string,
  leased: {
    readonly layersDir: string;
    readonly volumes: readonly Pick<LeasedVolume, 'image' | 'imageId' | 'layerNames'>[];
    /** Of a pod that has one of its own: the files belong to its root then. */
    readonly userNamespace?: string | undefined;
  },
): Promise<ImageVolumes> {
  const mounted = new Map<string, ImageVolume>();
  if (leased.volumes.length === 0) return mounted;
  const empty = join(directory, 'empty');
  await mkdir(empty, { recursive: true, mode: 0o755 });
  for (const [index, { image, imageId, layerNames }] of leased.volumes.entries()) {
    const root = join(directory, String(index));
    await mkdir(root, { mode: 0o755 });
    // An image without layers is an empty volume. A single layer gets an empty one beside it, so that
    // overlayfs hides the marks of deleted files in it as it does in a stack of layers.
    const names = layerNames.length === 1 ? [...layerNames, empty] : layerNames;
    if (names.length > 0) {
      try {
        const { layersDir: layersDirectory, userNamespace } = leased;
        const overlay = { target: root, layersDirectory, layerNames: names };
        if (userNamespace === undefined) mountOverlay(overlay);
        else mountIdmappedOverlay(overlay, { userNamespace });
      } catch (error) {
        throw volumeFailure(`image ${JSON.stringify(image)} can't be mounted`, error);
      }
    }
    mounted.set(image, { imageId, root });
  }
  return mounted;
}

/**
 * The directory that a mount of the request names inside its image, its symlinks meant from the
 * image's root as if that were `/`. The mount is answered with the id of the image that it is of
 * (api.proto, ImageSpec.image_ref). Raises invalid_argument, or kubelet_reason for a sub path that is
 * not there.
 */
export async function resolveImageMount(
  containerId: string,
  mount: Mount,
  volumes: ImageVolumes,
): Promise<ResolvedMount> {
  const { image, imageSubPath } = mount;
  const volume = volumes.get(image?.image ?? '');
  if (image === undefined || volume === undefined) {
    throw new Failure('bug', `container ${containerId}: an image volume was not mounted`);
  }
  const steps = imageSubPath.split('/');
  if (imageSubPath.startsWith('/') || steps.includes('..') || imageSubPath.includes('\0')) {
    throw new Failure(
      'invalid_argument',
      `container ${containerId}: image sub path ${JSON.stringify(imageSubPath)} is not a relative path without ".."`,
    );
  }
  const source = await resolveInRootfs(volume.root, imageSubPath);
  const kind = await kindOf(source);
  if (kind !== 'directory') {
    const problem = kind === 'absent' ? 'does not exist in' : 'is not a directory of';
    throw volumeFailure(
      `sub path ${JSON.stringify(imageSubPath)} ${problem} image ${JSON.stringify(image.image)}`,
    );
  }
  const applied = Mount.fromPartial({ ...mount, image: { ...image, imageRef: volume.imageId } });
  return { mount: applied, source, sourceIsDirectory: true };
}

async function kindOf(path: string): Promise<'absent' | 'directory' | 'other'> {
  try {
    return (await stat(path)).isDirectory() ? 'directory' : 'other';
  } catch (error) {
    if (isErrno(error, 'ENOENT', 'ENOTDIR', 'ELOOP')) return 'absent';
    throw error;
  }
}

/** The kubelet knows this word as a reason (cri-api, ErrImageVolumeMountFailed). */
function volumeFailure(message: string, cause?: unknown): Failure {
  return new Failure('kubelet_reason', `ImageVolumeMountFailed: ${message}`, { cause });
}
