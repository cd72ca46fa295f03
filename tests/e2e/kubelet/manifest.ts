// Pods as people write them, as far as these tests need it, and what a kubelet makes of one: the
// directories on the host and the configurations that it asks the runtime for.

import { createHash, randomUUID } from 'node:crypto';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import {
  type AuthConfig,
  ContainerConfig,
  type LinuxContainerSecurityContext,
  Mount,
  NamespaceMode,
  NamespaceOption,
  PodSandboxConfig,
  type PortMapping,
  SecurityProfile_ProfileType,
} from '@cribus/contracts/gen/cri/v1/api.ts';

export type Probe = (
  | { readonly exec: readonly string[] }
  | { readonly httpGet: { readonly port: number; readonly path: string } }
  | { readonly tcpSocket: { readonly port: number } }
) & {
  /** How often in a row it fails before something is done; 3 by default. */
  readonly failureThreshold?: number;
};

export interface ContainerManifest {
  readonly name: string;
  /** A reference as a person writes it. */
  readonly image: string;
  readonly script: string;
  readonly imagePullPolicy?: 'Always' | 'IfNotPresent' | 'Never';
  /** Of an init container: it is a sidecar. */
  readonly restartPolicy?: 'Always';
  readonly limits?: { readonly cpuMilli: number; readonly memoryBytes: number };
  readonly mounts?: readonly Partial<Mount>[];
  readonly securityContext?: Partial<LinuxContainerSecurityContext>;
  readonly env?: Readonly<Record<string, string>>;
  readonly terminationMessagePath?: string;
  readonly terminationMessagePolicy?: 'File' | 'FallbackToLogsOnError';
  /** Commands. */
  readonly postStart?: readonly string[];
  readonly preStop?: readonly string[];
  readonly liveness?: Probe;
  readonly readiness?: Probe;
  readonly startup?: Probe;
  /** Of an ephemeral container: the one whose processes it sees. */
  readonly targetContainerName?: string;
  readonly stdin?: boolean;
  readonly tty?: boolean;
}

export interface PodManifest {
  readonly uid: string;
  readonly name: string;
  readonly namespace: string;
  /** Of its RuntimeClass; empty for none. */
  readonly handler: string;
  readonly restartPolicy: 'Always' | 'OnFailure' | 'Never';
  readonly terminationGracePeriodS: number;
  readonly initContainers: readonly ContainerManifest[];
  readonly containers: readonly ContainerManifest[];
  readonly ephemeralContainers: ContainerManifest[];
  readonly hostNetwork: boolean;
  readonly hostPID: boolean;
  readonly shareProcessNamespace: boolean;
  /** False gives the pod a user namespace of its own. */
  readonly hostUsers: boolean;
  readonly ports: readonly Partial<PortMapping>[];
  readonly imagePullSecrets: readonly Partial<AuthConfig>[];
  /** Of its RuntimeClass. */
  readonly overheadMemoryBytes: number;
}

/** Where a kubelet keeps things; each below a directory of the test. */
export interface NodePaths {
  readonly pods: string;
  readonly podLogs: string;
  readonly containerLogs: string;
  readonly cgroup: string;
}

/** A pod with what people mostly leave out filled in, as the API server does. */
export function podManifest(
  given: Pick<PodManifest, 'name' | 'handler' | 'containers'> & Partial<PodManifest>,
): PodManifest {
  return {
    uid: randomUUID(),
    namespace: 'default',
    restartPolicy: 'Always',
    terminationGracePeriodS: 2,
    initContainers: [],
    ephemeralContainers: [],
    hostNetwork: false,
    hostPID: false,
    shareProcessNamespace: false,
    hostUsers: true,
    ports: [],
    imagePullSecrets: [],
    overheadMemoryBytes: 0,
    ...given,
  };
}

export function allContainers(pod: PodManifest): readonly ContainerManifest[] {
  return [...pod.initContainers, ...pod.containers, ...pod.ephemeralContainers];
}

/** The same pod with another definition of each of its containers. */
export function mapContainers(
  pod: PodManifest,
  change: (container: ContainerManifest) => ContainerManifest,
): PodManifest {
  return {
    ...pod,
    initContainers: pod.initContainers.map(change),
    containers: pod.containers.map(change),
  };
}

/** As the kubelet's hash of a container: what a change of it restarts. */
export function hashOf(container: ContainerManifest): string {
  const text = JSON.stringify(container, (_key, value) =>
    typeof value === 'bigint' ? String(value) : value,
  );
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}

export function podDirectory(paths: NodePaths, { uid }: Pick<PodManifest, 'uid'>): string {
  return join(paths.pods, uid);
}

export function podCgroup(paths: NodePaths, pod: PodManifest): string {
  const limited = pod.containers.some(({ limits }) => limits !== undefined);
  return `${paths.cgroup}${limited ? '' : '/besteffort'}/pod${pod.uid}`;
}

/** A volume's directory on the host, made if it isn't there; `kind` as `empty-dir`. */
export function volumeDirectory(
  paths: NodePaths,
  pod: Pick<PodManifest, 'uid'>,
  { kind, name }: { readonly kind: string; readonly name: string },
): string {
  const path = join(podDirectory(paths, pod), 'volumes', `kubernetes.io~${kind}`, name);
  mkdirSync(path, { recursive: true });
  // Whatever the mask of new files is: any user of a pod may write here.
  chmodSync(path, 0o777);
  return path;
}

export function sandboxConfig(
  paths: NodePaths,
  pod: PodManifest,
  attempt: number,
): PodSandboxConfig {
  const overhead = pod.overheadMemoryBytes;
  return PodSandboxConfig.fromPartial({
    metadata: { name: pod.name, uid: pod.uid, namespace: pod.namespace, attempt },
    ...(pod.hostNetwork ? {} : { hostname: pod.name }),
    logDirectory: logDirectory(paths, pod),
    dnsConfig: {
      servers: ['10.96.0.10'],
      searches: [`${pod.namespace}.svc.cluster.local`, 'svc.cluster.local', 'cluster.local'],
      options: ['ndots:5'],
    },
    portMappings: [...pod.ports],
    labels: podLabels(pod),
    annotations: {
      'kubernetes.io/config.seen': '2026-11-23T18:09:13.412911485Z',
      'kubernetes.io/config.source': 'api',
    },
    linux: {
      cgroupParent: podCgroup(paths, pod),
      securityContext: {
        namespaceOptions: namespaces(pod),
        seccomp: {},
        privileged: allContainers(pod).some(({ securityContext }) => securityContext?.privileged),
      },
      overhead: overhead === 0 ? {} : { memoryLimitInBytes: BigInt(overhead) },
      resources: {
        cpuPeriod: 100_000n,
        cpuShares: 2n,
        memoryLimitInBytes: BigInt(podMemoryBytes({ ...pod, overheadMemoryBytes: 0 }) ?? 0),
      },
    },
  });
}

/** The limit of a pod's cgroup: none unless each container has one. */
export function podMemoryBytes(
  pod: Pick<PodManifest, 'containers' | 'overheadMemoryBytes'>,
): number | undefined {
  const limits = pod.containers.flatMap(({ limits }) => limits ?? []);
  if (limits.length < pod.containers.length) return undefined;
  return limits.reduce((sum, { memoryBytes }) => sum + memoryBytes, pod.overheadMemoryBytes);
}

export interface ContainerPlan {
  readonly container: ContainerManifest;
  readonly restartCount: number;
  readonly imageId: string;
  /** Of the container that an ephemeral one looks at. */
  readonly targetId?: string;
}

/** Writes the hosts file and a termination message file of its own, and names both as mounts. */
export function containerConfig(
  paths: NodePaths,
  pod: PodManifest,
  { container, restartCount, imageId, targetId }: ContainerPlan,
): ContainerConfig {
  const { name } = container;
  const own = podDirectory(paths, pod);
  const hosts = join(own, 'etc-hosts');
  const message = join(own, 'containers', name, randomUUID().slice(0, 8));
  mkdirSync(dirname(message), { recursive: true });
  writeFileSync(hosts, `# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n`);
  writeFileSync(message, '', { mode: 0o666 });
  const mapped = pod.hostUsers ? {} : { uidMappings: [USERNS], gidMappings: [USERNS] };
  const messagePath = container.terminationMessagePath ?? '/dev/termination-log';
  return ContainerConfig.fromPartial({
    metadata: { name, attempt: restartCount },
    image: { image: imageId, userSpecifiedImage: container.image },
    command: ['sh', '-c', container.script],
    envs: Object.entries({ KUBERNETES_SERVICE_HOST: '10.96.0.1', ...container.env }).map(
      ([key, value]) => ({ key, value: Buffer.from(value) }),
    ),
    mounts: [
      ...(container.mounts ?? []),
      { containerPath: '/etc/hosts', hostPath: hosts },
      { containerPath: messagePath, hostPath: message },
    ].map((mount) => Mount.fromPartial({ ...mount, ...(mount.image ? {} : mapped) })),
    labels: {
      'io.kubernetes.container.name': name,
      'io.kubernetes.pod.name': pod.name,
      'io.kubernetes.pod.namespace': pod.namespace,
      'io.kubernetes.pod.uid': pod.uid,
    },
    annotations: {
      'io.kubernetes.container.hash': hashOf(container),
      'io.kubernetes.container.restartCount': String(restartCount),
      'io.kubernetes.container.terminationMessagePath': messagePath,
      'io.kubernetes.container.terminationMessagePolicy':
        container.terminationMessagePolicy ?? 'File',
      'io.kubernetes.pod.terminationGracePeriod': String(pod.terminationGracePeriodS),
    },
    logPath: join(name, `${restartCount}.log`),
    stdin: container.stdin ?? false,
    tty: container.tty ?? false,
    linux: {
      resources: resourcesOf(container),
      securityContext: {
        runAsUser: {},
        seccomp: { profileType: SecurityProfile_ProfileType.Unconfined },
        maskedPaths: ['/proc/kcore', '/proc/keys', '/sys/firmware'],
        readonlyPaths: ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'],
        ...container.securityContext,
        namespaceOptions: {
          ...namespaces(pod),
          ...(targetId === undefined ? {} : { pid: NamespaceMode.TARGET, targetId }),
        },
      },
    },
  });
}

/** `memory_swap_limit == memory_limit`, and hugepage limits of 0, as the kubelet says them. */
export function resourcesOf({ limits }: Pick<ContainerManifest, 'limits'>) {
  const hugepageLimits = [{ pageSize: '2MB' }, { pageSize: '1GB' }];
  const cpuPeriod = 100_000n;
  if (limits === undefined) return { cpuPeriod, cpuShares: 2n, oomScoreAdj: 1000n, hugepageLimits };
  return {
    cpuPeriod,
    cpuQuota: BigInt(limits.cpuMilli) * 100n,
    cpuShares: (BigInt(limits.cpuMilli) * 1024n) / 1000n,
    memoryLimitInBytes: BigInt(limits.memoryBytes),
    memorySwapLimitInBytes: BigInt(limits.memoryBytes),
    oomScoreAdj: 997n,
    hugepageLimits,
  };
}

export function logDirectory(paths: NodePaths, pod: PodManifest): string {
  return join(paths.podLogs, `${pod.namespace}_${pod.name}_${pod.uid}`);
}

/** Beyond int32, as a real kubelet chose it. */
const USERNS = { hostId: 4_145_283_072, containerId: 0, length: 65_536 };

function namespaces(pod: PodManifest): NamespaceOption {
  const processes = pod.shareProcessNamespace ? NamespaceMode.POD : NamespaceMode.CONTAINER;
  return NamespaceOption.fromPartial({
    network: pod.hostNetwork ? NamespaceMode.NODE : NamespaceMode.POD,
    pid: pod.hostPID ? NamespaceMode.NODE : processes,
    usernsOptions: pod.hostUsers
      ? { mode: NamespaceMode.NODE }
      : { mode: NamespaceMode.POD, uids: [USERNS], gids: [USERNS] },
  });
}

function podLabels(pod: PodManifest): Record<string, string> {
  return {
    'io.kubernetes.pod.name': pod.name,
    'io.kubernetes.pod.namespace': pod.namespace,
    'io.kubernetes.pod.uid': pod.uid,
    app: pod.name,
  };
}
