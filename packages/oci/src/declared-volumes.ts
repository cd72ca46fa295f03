// The volumes that an image declares (image-spec v1.1, config.md, `Volumes`): which of them a
// container gets. Each is a directory of the container's own, which goes with it.

import { posix } from 'node:path';
import type { Mount } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ImageConfig } from './image-config.ts';

/** A declared volume and the directory of the host that is bound there, writable. */
export interface DeclaredVolume {
  readonly destination: string;
  readonly source: string;
}

/** An image of a person has a handful; what nobody vouches for must end somewhere. */
export const DECLARED_VOLUMES_MAX = 256;

/** What the kernel shows there is no image's to declare. */
const KERNEL = ['/proc', '/sys', '/dev'];

/**
 * Where a container gets the volumes that its image declares, each path once and parents first. A path
 * at or below a mount of the request is that mount's. Relative paths, which no engine takes, the root
 * and the kernel's file systems are left out.
 */
export function declaredDestinations(image: ImageConfig, mounts: readonly Mount[]): string[] {
  const places = mounts.map((mount) => posix.resolve('/', mount.containerPath));
  const wanted = Object.keys(image.config.Volumes ?? {})
    .filter((path) => path.startsWith('/') && !path.includes('\0'))
    .map((path) => posix.resolve(path))
    .filter((path) => isFree(path, places));
  return [...new Set(wanted)].sort();
}

/** Whether a path of the container is neither at nor below any of these places, nor the kernel's. */
export function isFree(path: string, taken: readonly string[]): boolean {
  const isIn = (place: string) => path === place || path.startsWith(`${place}/`);
  return path !== '/' && ![...KERNEL, ...taken].some(isIn);
}
