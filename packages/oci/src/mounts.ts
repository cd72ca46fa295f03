// The mounts of a container, in the order in which the engine makes them, and what they demand of
// the root filesystem's propagation.

import { posix } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  type LinuxContainerSecurityContext,
  type Mount,
  MountPropagation,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { DeclaredVolume } from './declared-volumes.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { RootfsPropagation, SpecMount } from './spec.ts';
import type { ResolvedMount, SpecInput } from './spec-input.ts';

/** The group of terminals, `tty`, in every distribution. */
const TTY_GROUP = 5;
/** Far more than a pod has volumes; what a request may hold must end somewhere. */
const MOUNTS_MAX = 4096;

export interface BuiltMounts {
  readonly mounts: readonly SpecMount[];
  readonly rootfsPropagation: RootfsPropagation | undefined;
  /** The request's mounts that took effect, as asked for. */
  readonly effective: readonly Mount[];
}

/**
 * The kernel's file systems first, then the request's mounts and the sandbox's files, parents
 * before children (stable by depth). A request's mount replaces what we would mount at its place;
 * one at /dev also replaces everything below it. Of several at one place the last wins.
 */
export function buildMounts(input: SpecInput, invalid: Invalid): BuiltMounts {
  if (input.mounts.length > MOUNTS_MAX) {
    throw invalid('mounts', `${input.mounts.length} mounts are more than ${MOUNTS_MAX}`);
  }
  const security = input.container.linux?.securityContext;
  const requested = new Map<string, { readonly mount: Mount; readonly spec: SpecMount }>();
  for (const resolved of input.mounts) {
    const destination = checkedDestination(resolved.mount, invalid);
    checkMode(resolved.mount, input, invalid);
    requested.delete(destination);
    requested.set(destination, {
      mount: resolved.mount,
      spec: bindMount(destination, resolved, invalid),
    });
  }
  const replaced = (destination: string) =>
    requested.has(destination) || (requested.has('/dev') && destination.startsWith('/dev/'));
  const kernel = kernelMounts(input).filter((mount) => !replaced(mount.destination));
  const files = sandboxFileMounts(input, security).filter((mount) => !replaced(mount.destination));
  const declared = (input.declaredVolumes ?? []).map(declaredVolumeMount);
  const binds = [...[...requested.values()].map((entry) => entry.spec), ...declared, ...files];
  binds.sort((a, b) => depthOf(a.destination) - depthOf(b.destination));
  const effective = [...requested.values()].map((entry) => entry.mount);
  return {
    mounts: [...kernel, ...binds],
    rootfsPropagation: rootfsPropagation(effective),
    effective,
  };
}

function kernelMounts(input: SpecInput): SpecMount[] {
  const privileged = input.container.linux?.securityContext?.privileged ?? false;
  const access = privileged ? 'rw' : 'ro';
  const recursive = input.host.recursiveReadOnlyMounts !== false;
  // A new sysfs shows the network namespace of its mounter, and only the user namespace that owns
  // that one may mount it: a pod with both a user namespace and the host's network binds the
  // host's.
  const mapped = input.namespaces.user !== undefined;
  const foreignNetwork = mapped && input.namespaces.network === 'host';
  // Likewise the message queues of the host, which programs use without the mount all the same.
  const foreignIpc = mapped && input.namespaces.ipc === 'host';
  const queues: SpecMount = {
    destination: '/dev/mqueue',
    type: 'mqueue',
    source: 'mqueue',
    options: ['nosuid', 'noexec', 'nodev'],
  };
  return [
    ...baseMounts(),
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: [
        ...['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620'],
        ...(hasGroup(input, TTY_GROUP) ? [`gid=${TTY_GROUP}`] : []),
      ],
    },
    ...(foreignIpc ? [] : [queues]),
    {
      destination: '/sys',
      type: foreignNetwork ? 'bind' : 'sysfs',
      source: foreignNetwork ? '/sys' : 'sysfs',
      options: [
        ...['nosuid', 'noexec', 'nodev', ...(foreignNetwork ? ['rbind'] : []), access],
        // `ro` is of the topmost mount alone, and the host has mounts of its own below it.
        ...(foreignNetwork && !privileged && recursive ? ['rro'] : []),
      ],
    },
    cgroupMount(input, privileged),
  ];
}

/**
 * A cgroup2 that is mounted outside of a cgroup namespace is the host's own: the kernel has one of it, and
 * takes the options of each such mount for all, so that an engine that gives none would take nsdelegate
 * and memory_recursiveprot from the host (cgroups(7)). So the host's mount is bound instead.
 */
function cgroupMount(input: SpecInput, privileged: boolean): SpecMount {
  const destination = '/sys/fs/cgroup';
  const flags = ['nosuid', 'noexec', 'nodev'];
  const { cgroupVersion, ownCgroupFilesystem = false } = input.host;
  if (cgroupVersion === 'v2' && privileged && !ownCgroupFilesystem) {
    const options = ['rbind', 'rprivate', ...flags, 'rw'];
    return { destination, type: 'bind', source: destination, options };
  }
  const options = [...flags, 'relatime', privileged ? 'rw' : 'ro'];
  return { destination, type: 'cgroup', source: 'cgroup', options };
}

/** Whether a group id can be named in the pod: a user namespace only knows those that it maps. */
function hasGroup(input: SpecInput, gid: number): boolean {
  if (input.namespaces.user === undefined) return true;
  const mappings = input.gidMappings ?? [];
  return mappings.some(
    ({ containerId, length }) => gid >= containerId && gid < containerId + length,
  );
}

/** /proc and an empty /dev, which every process has. */
export function baseMounts(): SpecMount[] {
  return [
    {
      destination: '/proc',
      type: 'proc',
      source: 'proc',
      options: ['nosuid', 'noexec', 'nodev'],
    },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
  ];
}

function sandboxFileMounts(
  input: SpecInput,
  security: LinuxContainerSecurityContext | undefined,
): SpecMount[] {
  const files = input.sandboxFiles;
  const access = security?.readonlyRootfs ? 'ro' : 'rw';
  const bind = (destination: string, source: string, mode: string): SpecMount => ({
    destination,
    type: 'bind',
    source,
    options: ['rbind', 'rprivate', mode],
  });
  return [
    bind('/etc/hostname', files.hostname, access),
    ...(files.hosts === undefined ? [] : [bind('/etc/hosts', files.hosts, access)]),
    bind('/etc/resolv.conf', files.resolvConf, access),
    bind('/dev/shm', files.shm, 'rw'),
  ];
}

function declaredVolumeMount({ destination, source }: DeclaredVolume): SpecMount {
  return { destination, type: 'bind', source, options: ['rbind', 'rprivate', 'rw'] };
}

function checkedDestination(mount: Mount, invalid: Invalid): string {
  const path = mount.containerPath;
  if (path === '') throw invalid('mounts', 'a mount has no container_path');
  const field = `mounts[${quoted(path)}]`;
  if (!path.startsWith('/')) throw invalid(field, 'container_path is not absolute');
  if (path.includes('\0')) throw invalid(field, 'container_path holds a NUL byte');
  const clean = posix.resolve(path);
  if (clean === '/') throw invalid(field, "container_path is the container's root");
  return clean;
}

/**
 * api.proto, Mount: recursive_read_only needs readonly and PRIVATE; images are only read. What the
 * handler can't is refused. Of a pod with an image among its volumes, the kubelet gives each mount's
 * sub-path as image_sub_path, also of volumes that are none: there the host path has it in already.
 */
function checkMode(mount: Mount, input: SpecInput, invalid: Invalid): void {
  const field = `mounts[${quoted(mount.containerPath)}]`;
  const image = isImage(mount);
  if (image && mount.hostPath !== '') throw invalid(field, 'both image and host_path are given');
  if (image && !mount.readonly) throw invalid(field, 'an image is mounted read-only: set readonly');
  if (image && mount.propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL) {
    throw invalid(field, 'an image has no mounts to propagate');
  }
  if (
    mount.propagation === MountPropagation.PROPAGATION_BIDIRECTIONAL &&
    input.host.bidirectionalMounts === false
  ) {
    const why = 'what containers of this handler mount is never seen by the host';
    throw new Failure('unsupported', invalid(field, why).message);
  }
  if (!mount.recursiveReadOnly) return;
  if (!mount.readonly) throw invalid(field, 'recursive_read_only needs readonly');
  if (mount.propagation !== MountPropagation.PROPAGATION_PRIVATE) {
    throw invalid(field, 'recursive_read_only needs the propagation PROPAGATION_PRIVATE');
  }
  // Nothing is ever mounted below an image, so it is as read-only as can be with any handler.
  if (image) return;
  if (input.host.recursiveReadOnlyMounts === false) {
    // The kubelet knows this word as a reason (kubelet, ErrRROUnsupported).
    const refused = invalid(field, "this handler can't mount recursively read-only");
    throw new Failure('kubelet_reason', `RROUnsupported: ${refused.message}`);
  }
}

function isImage(mount: Mount): boolean {
  return mount.image !== undefined && mount.image.image !== '';
}

function bindMount(destination: string, resolved: ResolvedMount, invalid: Invalid): SpecMount {
  const { mount, source } = resolved;
  if (!source.startsWith('/')) {
    throw invalid(`mounts[${quoted(destination)}]`, `host_path ${quoted(source)} is not absolute`);
  }
  return {
    destination,
    type: 'bind',
    source,
    options: [
      'rbind',
      PROPAGATION_OPTION[mount.propagation],
      mount.readonly ? 'ro' : 'rw',
      ...(mount.recursiveReadOnly && !isImage(mount) ? ['rro'] : []),
    ],
  };
}

const PROPAGATION_OPTION: Readonly<Record<MountPropagation, RootfsPropagation>> = {
  [MountPropagation.PROPAGATION_PRIVATE]: 'rprivate',
  [MountPropagation.PROPAGATION_HOST_TO_CONTAINER]: 'rslave',
  [MountPropagation.PROPAGATION_BIDIRECTIONAL]: 'rshared',
};

/** A mount can't receive or send through a root filesystem that is more private than itself. */
function rootfsPropagation(mounts: readonly Mount[]): RootfsPropagation | undefined {
  const asked = new Set(mounts.map((mount) => PROPAGATION_OPTION[mount.propagation]));
  if (asked.has('rshared')) return 'rshared';
  return asked.has('rslave') ? 'rslave' : undefined;
}

function depthOf(path: string): number {
  return path.split('/').length;
}
