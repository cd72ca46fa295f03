// From a prepared root filesystem to config.json: gathers what the pure spec builder needs.

import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { Failure } from '@cribus/contracts/failure.ts';
import { NamespaceMode, type PodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  ContainerPhase,
  type ContainerRecord,
  type ImageRecord,
  type SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { sandboxPaths } from '@cribus/contracts/paths.ts';
import { CADVISOR_PREFIX, cadvisorName, pathOfCgroupsPath } from '@cribus/host/cgroup-slices.ts';
import { writeFileAtomic } from '@cribus/host/files.ts';
import { isAlive } from '@cribus/host/processes.ts';
import { buildContainerSpec } from '@cribus/oci/build-spec.ts';
import type { DeclaredVolume } from '@cribus/oci/declared-volumes.ts';
import type { ImageConfig } from '@cribus/oci/image-config.ts';
import { invalidOf, quoted } from '@cribus/oci/invalid-field.ts';
import { localhostSeccompPath, type SeccompChoice } from '@cribus/oci/seccomp.ts';
import type {
  BuiltSpec,
  HostFacts,
  NamespacePaths,
  ResolvedMount,
} from '@cribus/oci/spec-input.ts';
import { appArmorFacts } from './apparmor.ts';
import { cdiVolumes, readCdiDevices, withCdiVolumes } from './cdi-devices.ts';
import { makeDeclaredVolumes } from './declared-volumes.ts';
import type { SpecRole } from './driver.ts';
import { listHostDevices } from './host-facts.ts';
import type { ImageVolumes } from './image-volumes.ts';
import { resolveDevices } from './request-devices.ts';
import { resolveMounts } from './request-mounts.ts';
import { makeDirectoryInRootfs, readInRootfs } from './rootfs-files.ts';
import { relabelVolumes } from './selinux.ts';
import { makeReachable, mapVolumes, userNamespaceOf } from './user-namespace.ts';
import { placesOf, requireContainer, type Worker } from './worker.ts';

/** In the bundle: volumes mounted for the pod's user namespace, as long as the engine creates. */
export const MAPPED_VOLUMES = 'mapped';

const HOST_ROOT = { uid: 0, gid: 0 };
const HOST_SHM = '/dev/shm';

export interface SpecRequest {
  readonly record: ContainerRecord;
  readonly sandbox: SandboxRecord;
  readonly image: ImageRecord;
  readonly facts: HostFacts;
  readonly imageVolumes: ImageVolumes;
  readonly signal: AbortSignal;
}

/** Builds the spec, amends it by the driver's rules, and writes the bundle's config.json. */
export async function writeContainerSpec(
  worker: Worker,
  request: SpecRequest,
): Promise<BuiltSpec & { readonly engineArgs: readonly string[] }> {
  const { record, sandbox, facts } = request;
  const config = record.config;
  const sandboxConfig = sandbox.config;
  if (config === undefined || sandboxConfig === undefined) {
    throw new Failure('invalid_argument', `container ${record.id} has no configuration`);
  }
  const places = placesOf(worker, record.id);
  const privileged = config.linux?.securityContext?.privileged === true;
  const [mounts, passwd, group, devices, localhostSeccomp, cdi, appArmor] = await Promise.all([
    resolveMounts(record.id, config.mounts, request.imageVolumes),
    readInRootfs(places.rootfs, '/etc/passwd'),
    readInRootfs(places.rootfs, '/etc/group'),
    privileged ? listHostDevices() : [],
    readLocalhostSeccomp(config.linux?.securityContext, `container ${record.id}`),
    readCdiDevices(config, {
      directories: worker.service.config.cdi.spec_dirs,
      log: worker.service.log,
    }),
    appArmorFacts(worker, facts),
  ]);
  const pod = userNamespaceOf(sandbox);
  const image = JSON.parse(Buffer.from(request.image.configJson).toString('utf8')) as ImageConfig;
  const declaredVolumes = await makeDeclaredVolumes({
    ...{ containerId: record.id, image, mounts: config.mounts, rootfs: places.rootfs },
    ...{ directory: places.declaredVolumes, root: pod?.root ?? HOST_ROOT, signal: request.signal },
  });
  const directory = join(places.bundle, MAPPED_VOLUMES);
  const mapped = mapVolumes([...mounts, ...(pod === undefined ? [] : cdiVolumes(cdi, pod))], {
    containerId: record.id,
    directory,
    pod,
  });
  const built = buildContainerSpec({
    containerId: record.id,
    sandboxId: sandbox.id,
    container: config,
    sandbox: sandboxConfig,
    image,
    rootfs: pod === undefined ? places.rootfs : makeReachable(record.id, places.rootfs, pod),
    namespaces: namespacesOf(worker, record, sandbox),
    ...(pod === undefined ? {} : { uidMappings: pod.uids, gidMappings: pod.gids }),
    mounts: mapped.slice(0, mounts.length),
    declaredVolumes,
    sandboxFiles: sandboxFiles(worker, sandbox),
    hostname: hostnameOf(sandbox),
    passwd,
    group,
    devices: resolveDevices(record.id, config.devices),
    host: { ...facts, ...appArmor, devices },
    cgroupsPath: cgroupsPath(worker, sandboxConfig, { id: record.id, kind: 'container' }),
    annotations: allowedAnnotations(worker, sandboxConfig, record),
    ...(localhostSeccomp === undefined ? {} : { localhostSeccomp }),
    ...(cdi === undefined ? {} : { cdi: withCdiVolumes(cdi, mapped.slice(mounts.length)) }),
  });
  const role = {
    kind: 'container',
    sandboxId: sandbox.id,
    name: config.metadata?.name ?? '',
  } as const;
  const spec = worker.driver.amendSpec(built.spec, role);
  await relabel(worker, spec.linux.mountLabel, { sandbox, mounts, declaredVolumes });
  const { cwd } = spec.process;
  if (cwd !== '/') await makeDirectoryInRootfs(places.rootfs, cwd, pod?.root);
  await writeFileAtomic(join(places.bundle, 'config.json'), JSON.stringify(spec));
  return { ...built, spec, engineArgs: worker.driver.createArgs?.(spec, role) ?? [] };
}

/** Gives what only this pod has, and the mounts that the request wants relabelled, the context. */
async function relabel(
  worker: Worker,
  context: string | undefined,
  files: {
    readonly sandbox: SandboxRecord;
    readonly mounts: readonly ResolvedMount[];
    readonly declaredVolumes: readonly DeclaredVolume[];
  },
): Promise<void> {
  if (context === undefined) return;
  const { resolvConf, hostname, hosts, shm } = sandboxFiles(worker, files.sandbox);
  const own = [resolvConf, hostname, hosts, ...(shm === HOST_SHM ? [] : [shm])];
  own.push(...files.declaredVolumes.map(({ source }) => source));
  await relabelVolumes(context, { own, mounts: files.mounts });
}

/** As uname has it in the pod: the host's name where the namespace is the host's, or nobody gave one. */
export function hostnameOf({ namespaces, config }: SandboxRecord): string {
  const given = (namespaces?.uts ?? '') === '' ? '' : (config?.hostname ?? '');
  return given === '' ? hostname() : given;
}

/** Files that sandbox-manager keeps for a pod; one with the host's IPC shares the host's shm. */
export function sandboxFiles(worker: Worker, sandbox: SandboxRecord) {
  const { resolvConf, hostname, hosts, shm } = sandboxPaths(
    worker.service.config.roots,
    sandbox.id,
  );
  const hostIpc = (sandbox.namespaces?.ipc ?? '') === '';
  return { resolvConf, hostname, hosts, shm: hostIpc ? HOST_SHM : shm };
}

/**
 * As the OCI runtime gets it (runtime-spec, config-linux.md; runc's docs/systemd.md), with a name that
 * cAdvisor knows where the operator wants it. What is inside a Sentry has an empty cgroup, in which
 * cAdvisor would only find zeros.
 */
export function cgroupsPath(
  worker: Worker,
  sandbox: PodSandboxConfig,
  { id, kind }: { readonly id: string; readonly kind: SpecRole['kind'] },
): string {
  const { cgroups, kubelet } = worker.service.config;
  const parent = sandbox.linux?.cgroupParent ?? '';
  const counts = kind === 'sandbox-process' || worker.driver.statsSource === 'cgroup';
  const shown = kubelet.cadvisor_socket !== '' && counts;
  if (cgroups.driver === 'systemd') {
    const slice = parent === '' ? 'system.slice' : (parent.split('/').at(-1) ?? parent);
    return `${slice}:${shown ? CADVISOR_PREFIX : 'cribus'}:${id}`;
  }
  return join('/', parent === '' ? cgroups.root : parent, shown ? cadvisorName(id) : id);
}

/** The cgroup, below the hierarchy, that holds and limits what the engine makes with that path. */
export function cgroupPathOf(
  worker: Worker,
  sandbox: PodSandboxConfig,
  what: { readonly id: string; readonly kind: SpecRole['kind'] },
): string {
  const path = pathOfCgroupsPath(cgroupsPath(worker, sandbox, what));
  const { scopeSubgroup } = worker.driver;
  return scopeSubgroup === undefined ? path : `${path}/${scopeSubgroup}`;
}

/** Which namespaces a container joins. */
export function namespacesOf(
  worker: Worker,
  record: ContainerRecord,
  sandbox: SandboxRecord,
): NamespacePaths {
  const wanted = record.config?.linux?.securityContext?.namespaceOptions;
  const pins = sandbox.namespaces;
  const orHost = (path: string | undefined) =>
    path === undefined || path === '' ? ('host' as const) : path;
  return {
    network: orHost(pins?.net),
    ipc: orHost(pins?.ipc),
    uts: orHost(pins?.uts),
    pid: pidNamespace(worker, wanted?.pid ?? NamespaceMode.POD, {
      ofPod: sandbox.config?.linux?.securityContext?.namespaceOptions?.pid,
      containerId: record.id,
      sandboxId: sandbox.id,
      targetId: wanted?.targetId ?? '',
    }),
    ...(pins?.user === undefined || pins.user === '' ? {} : { user: pins.user }),
  };
}

function pidNamespace(
  worker: Worker,
  mode: NamespaceMode,
  ids: {
    readonly ofPod: NamespaceMode | undefined;
    readonly containerId: string;
    readonly sandboxId: string;
    readonly targetId: string;
  },
): string | 'host' | 'own' {
  const inside = worker.driver.sandboxModel === 'root-container';
  if (mode === NamespaceMode.TARGET) {
    if (ids.targetId === '') {
      const why = 'namespace_options.pid TARGET needs the target_id of a container';
      throw new Failure('invalid_argument', `container ${ids.containerId}: ${why}`);
    }
    const target = requireContainer(worker, ids.targetId);
    if (target.sandboxId !== ids.sandboxId) {
      throw new Failure('invalid_argument', `container ${target.id} is in another sandbox`);
    }
    return inside ? insideRootContainer(target.id) : processNamespace(target);
  }
  if (inside) return mode === NamespaceMode.POD ? 'host' : insideRootContainer(ids.containerId);
  switch (mode) {
    case NamespaceMode.NODE:
      return 'host';
    case NamespaceMode.CONTAINER:
      return 'own';
    default: {
      if (ids.ofPod === NamespaceMode.NODE) return 'host';
      const init = worker.store.get(ids.sandboxId);
      return init === undefined ? 'own' : processNamespace(init);
    }
  }
}

/**
 * Inside a Sentry a path is only a name: containers with the same one share their process ids, and
 * one without any is with the root container (gVisor, runsc/boot/loader.go).
 */
function insideRootContainer(containerId: string): string {
  return `/pid/${containerId}`;
}

function processNamespace(record: ContainerRecord): string {
  if (
    record.phase !== ContainerPhase.RUNNING ||
    record.process === undefined ||
    !isAlive(record.process)
  ) {
    throw new Failure('wrong_state', `the process of ${record.id} does not run`);
  }
  return `/proc/${record.process.pid}/ns/pid`;
}

/** Annotations that the handler's allow-list lets through to the engine. */
export function allowedAnnotations(
  worker: Worker,
  sandbox: PodSandboxConfig,
  record: ContainerRecord,
): Record<string, string> {
  const handler = worker.service.config.runtimes.handlers[worker.handler];
  return {
    ...allowedSandboxAnnotations(worker, sandbox),
    ...pick(record.config?.annotations ?? {}, handler?.container_annotations ?? []),
  };
}

/** The pod's own, for its containers and for its process: a Sentry reads its flags there. */
export function allowedSandboxAnnotations(
  worker: Worker,
  sandbox: PodSandboxConfig,
): Record<string, string> {
  const handler = worker.service.config.runtimes.handlers[worker.handler];
  return pick(sandbox.annotations, handler?.pod_annotations ?? []);
}

function pick(
  from: Readonly<Record<string, string>>,
  allowed: readonly string[],
): Record<string, string> {
  return Object.fromEntries(
    Object.entries(from).filter(([key]) =>
      allowed.some((rule) =>
        rule.endsWith('*') ? key.startsWith(rule.slice(0, -1)) : key === rule,
      ),
    ),
  );
}

/** The profile that a container or a sandbox names. Raises invalid_argument where there is none. */
export async function readLocalhostSeccomp(
  security: SeccompChoice | undefined,
  object: string,
): Promise<string | undefined> {
  const invalid = invalidOf(object);
  const path = localhostSeccompPath(security, invalid);
  if (path === undefined) return undefined;
  if (!isAbsolute(path)) {
    throw invalid('seccomp.localhost_ref', `${quoted(path)} is not an absolute path`);
  }
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    const failure = invalid('seccomp.localhost_ref', `the profile ${quoted(path)} can't be read`);
    throw new Failure('invalid_argument', failure.message, { cause: error });
  }
}
