// A pod with a user namespace: what its containers may ask for, and the mounts that show the files of
// image and volumes as the pod's own root's. The engine, which can't map mounts itself, binds them
// while it creates the container; afterwards only the container has them.

import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readdirSync,
  rmdirSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  type ContainerConfig,
  type IDMapping,
  MountPropagation,
  NamespaceMode,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { isErrno } from '@cribus/host/errno.ts';
import { idmapMount } from '@cribus/host/idmapped-mounts.ts';
import { bindMount, unmount } from '@cribus/host/mounts.ts';
import type { ResolvedMount } from '@cribus/oci/spec-input.ts';
import type { Worker } from './worker.ts';

export interface PodUserNamespace {
  /** Its pin. */
  readonly path: string;
  readonly uids: readonly IDMapping[];
  readonly gids: readonly IDMapping[];
  /** Its root, as the host counts. */
  readonly root: { readonly uid: number; readonly gid: number };
}

/** Undefined for a pod in the host's user namespace. */
export function userNamespaceOf(sandbox: SandboxRecord): PodUserNamespace | undefined {
  const path = sandbox.namespaces?.user ?? '';
  const options = sandbox.config?.linux?.securityContext?.namespaceOptions?.usernsOptions;
  const [uid] = options?.uids ?? [];
  const [gid] = options?.gids ?? [];
  if (path === '' || options === undefined || uid === undefined || gid === undefined) {
    return undefined;
  }
  const root = { uid: uid.hostId, gid: gid.hostId };
  return { path, uids: options.uids, gids: options.gids, root };
}

/** Raises unsupported where the handler or this host can't have a pod with a user namespace. */
export function refuseUserNamespace(worker: Worker, sandbox: SandboxRecord): void {
  if (worker.driver.features.userNamespaces || userNamespaceOf(sandbox) === undefined) return;
  throw new Failure(
    'unsupported',
    `handler ${worker.handler} can't run a pod with a user namespace (userns_options.mode POD)`,
  );
}

/**
 * Raises invalid_argument where a container asks for another user namespace than its pod's, or for
 * mounts that are mapped otherwise. One that says nothing gets the pod's.
 */
export function checkContainerMappings(
  containerId: string,
  config: ContainerConfig,
  pod: PodUserNamespace | undefined,
): void {
  const invalid = (why: string) =>
    new Failure('invalid_argument', `container ${containerId}: ${why}`);
  const asked = config.linux?.securityContext?.namespaceOptions?.usernsOptions;
  if (asked !== undefined) {
    const wanted = asked.mode === NamespaceMode.NODE ? NO_MAPPINGS : asked;
    const known = asked.mode === NamespaceMode.POD || asked.mode === NamespaceMode.NODE;
    const differs = (asked.mode === NamespaceMode.NODE) !== (pod === undefined);
    if (!known) throw invalid('userns_options.mode must be POD or NODE');
    if (differs || !isMappedAs(wanted, pod)) {
      throw invalid("userns_options differ from the sandbox's");
    }
  }
  for (const mount of config.mounts) {
    const where = `mount ${JSON.stringify(mount.containerPath)}`;
    const outwards = mount.propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL;
    if (outwards && pod !== undefined) {
      // The kernel makes every mount of such a container's mount namespace a slave at best.
      throw invalid(`${where}: nothing propagates to the host out of a user namespace`);
    }
    if (mount.uidMappings.length + mount.gidMappings.length === 0) continue;
    if (pod === undefined) throw invalid(`${where} has id mappings, but the pod no user namespace`);
    if (!isMappedAs({ uids: mount.uidMappings, gids: mount.gidMappings }, pod)) {
      throw invalid(`${where} has other id mappings than the pod's user namespace`);
    }
  }
}

const NO_MAPPINGS = { uids: [], gids: [] };

interface Mappings {
  readonly uids: readonly IDMapping[];
  readonly gids: readonly IDMapping[];
}

function isMappedAs(asked: Mappings, pod: PodUserNamespace | undefined): boolean {
  const { uids, gids } = pod ?? NO_MAPPINGS;
  return isSame(asked.uids, uids) && isSame(asked.gids, gids);
}

function isSame(one: readonly IDMapping[], other: readonly IDMapping[]): boolean {
  return (
    one.length === other.length &&
    one.every((mapping, index) => {
      const { containerId, hostId, length } = other[index] ?? {};
      return (
        mapping.containerId === containerId &&
        mapping.hostId === hostId &&
        mapping.length === length
      );
    })
  );
}

/**
 * Mounts what the request wants mapped below `directory`, and answers the mounts with these as their
 * sources. An image volume is mapped by its layers already. Raises wrong_state for a file system that
 * can't be mapped.
 */
export function mapVolumes(
  mounts: readonly ResolvedMount[],
  options: {
    readonly containerId: string;
    readonly directory: string;
    readonly pod: PodUserNamespace | undefined;
  },
): readonly ResolvedMount[] {
  const { directory, pod } = options;
  if (pod === undefined) return mounts;
  return mounts.map((resolved, index) => {
    const { mount, source, sourceIsDirectory } = resolved;
    const isImage = mount.image !== undefined && mount.image.image !== '';
    if (mount.uidMappings.length === 0 || isImage) return resolved;
    const place = join(directory, String(index));
    mkdirSync(sourceIsDirectory ? place : directory, { recursive: true, mode: 0o700 });
    if (!sourceIsDirectory) writeFileSync(place, '', { mode: 0o600 });
    const slave = mount.propagation === MountPropagation.PROPAGATION_HOST_TO_CONTAINER;
    try {
      idmapMount(source, place, {
        userNamespace: pod.path,
        recursive: true,
        propagation: slave ? 'slave' : 'private',
      });
    } catch (error) {
      if (!isErrno(error, 'EINVAL', 'EPERM', 'ENOSYS')) throw error;
      throw new Failure(
        'wrong_state',
        `container ${options.containerId}: the volume ${mount.hostPath} at ${mount.containerPath} can't be mapped into the pod's user namespace: ${error instanceof Error ? error.message : ''}`,
        { stage: 'idmapped mount', cause: error },
      );
    }
    return { ...resolved, source: place };
  });
}

/**
 * Root filesystems that a pod's root must reach while its container is created, each in a directory
 * that is that root's alone. The directories of a stack are closed to everybody but the host's.
 */
const REACHABLE = '/run/cribus.rootfs';
/** Another stack may remove the empty directory that ours is about to be made in. */
const MAKE_ATTEMPTS_MAX = 16;

/** Binds a root filesystem where the pod's root can reach it; answers where. `withdraw` undoes it. */
export function makeReachable(id: string, rootfs: string, pod: PodUserNamespace): string {
  const directory = join(REACHABLE, id);
  const place = join(directory, 'rootfs');
  for (let attempt = 1; ; attempt += 1) {
    try {
      mkdirSync(place, { recursive: true, mode: 0o700 });
      chmodSync(REACHABLE, 0o711);
      break;
    } catch (error) {
      if (!isErrno(error, 'ENOENT') || attempt === MAKE_ATTEMPTS_MAX) throw error;
    }
  }
  chownSync(directory, pod.root.uid, pod.root.gid);
  bindMount(rootfs, place);
  return place;
}

/** Takes the reachable root filesystem of a container away, if there is one. */
export function withdraw(id: string): void {
  const place = join(REACHABLE, id, 'rootfs');
  unmount(place);
  for (const directory of [place, dirname(place), REACHABLE]) {
    try {
      rmdirSync(directory);
    } catch (error) {
      if (!isErrno(error, 'ENOENT', 'ENOTEMPTY', 'EEXIST')) throw error;
    }
  }
}

/**
 * Unmounts what only the engine's create needs: the container has mounts of its own by then. The empty
 * directory stays, for runc's exec changes into it (libcontainer, commandTemplate).
 */
export function endMapping(id: string, directory: string): void {
  unmount(join(REACHABLE, id, 'rootfs'));
  if (!existsSync(directory)) return;
  for (const name of readdirSync(directory)) unmount(join(directory, name));
}
