// What a container's OCI spec is made from: plain data, all of it gathered before.

import type {
  ContainerConfig,
  ContainerUser,
  Device,
  IDMapping,
  Mount,
  PodSandboxConfig,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { CdiInput } from './cdi/apply-edits.ts';
import type { DeclaredVolume } from './declared-volumes.ts';
import type { ImageConfig } from './image-config.ts';
import type { HookName, Spec, SpecSeccomp } from './spec.ts';

/** Facts of the host that decide what can be asked of the engine. */
export interface HostFacts {
  readonly cgroupVersion: 'v1' | 'v2';
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  /** CAP_… names in our own bounding set. */
  readonly capabilities: readonly string[];
  readonly oomScoreAdjFloor: number;
  readonly appArmor: boolean;
  readonly selinux: boolean;
  readonly seccomp: boolean;
  /** Newest OCI version the engine accepts, as 1.0.2. */
  readonly ociVersion: string;
  /** Host devices for a privileged container: everything below /dev that is a device node. */
  readonly devices: readonly HostDevice[];
  /** Absent: the machine that this runs on. */
  readonly arch?: 'x64' | 'arm64';
  /** Whether a swap limit can be set (memory.memsw, or memory.swap.max). Absent: yes. */
  readonly swapAccounting?: boolean;
  /** Whether the hugetlb controller is there. Absent: no, and huge page limits are left out. */
  readonly hugetlb?: boolean;
  /** The smallest memory limit that the engine can start a process in. Absent: 4 MiB. */
  readonly memoryMinBytes?: number;
  /** Whether kernel and engine do recursive read-only mounts. Absent: yes. */
  readonly recursiveReadOnlyMounts?: boolean;
  /** Whether what a container mounts can be seen by the host. Absent: yes. */
  readonly bidirectionalMounts?: boolean;
  /** Whether the engine's cgroup filesystem is never the host's. Absent: without a namespace it is. */
  readonly ownCgroupFilesystem?: boolean;
  /** The only devices that a container can have; the engine makes them. Absent: the host's. */
  readonly devicePaths?: readonly string[];
  /** The hooks that the engine runs. Absent: all of them. */
  readonly hooks?: readonly HookName[];
  /** Whether kernel and engine can set Intel RDT's resources. Absent: no. */
  readonly resctrl?: boolean;
  /** The AppArmor profile that is loaded for RuntimeDefault. Absent: none is. */
  readonly appArmorDefaultProfile?: string;
  /** Why none is loaded, where AppArmor is on. */
  readonly appArmorDefaultLacking?: string;
  /** Names of the loaded AppArmor profiles. Absent: unknown, and the engine will tell. */
  readonly appArmorProfiles?: readonly string[];
  /** The handler, where its engine applies no AppArmor profile. Absent: it does. */
  readonly handlerWithoutAppArmor?: string;
}

export interface HostDevice {
  readonly path: string;
  readonly type: 'c' | 'b' | 'p';
  readonly major: number;
  readonly minor: number;
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
}

/** Namespaces to join by path; absent: a new one of the container's own; 'host': none. */
export interface NamespacePaths {
  readonly network: string | 'host';
  readonly ipc: string | 'host';
  readonly uts: string | 'host';
  readonly pid: string | 'host' | 'own';
  readonly user?: string;
}

/** A mount of the request whose host path was checked and resolved. */
export interface ResolvedMount {
  readonly mount: Mount;
  /** Real path on the host (symlinks resolved; an image volume's own mount). */
  readonly source: string;
  readonly sourceIsDirectory: boolean;
}

/** A device of the request whose host path was resolved: one node, or every node in a directory. */
export interface ResolvedDevice {
  readonly device: Device;
  /** Real path on the host; the nodes' paths are this one, or below it. */
  readonly source: string;
  readonly nodes: readonly HostDevice[];
}

export interface SpecInput {
  readonly containerId: string;
  readonly sandboxId: string;
  readonly container: ContainerConfig;
  readonly sandbox: PodSandboxConfig;
  readonly image: ImageConfig;
  /** Absolute path of the mounted root filesystem. */
  readonly rootfs: string;
  readonly namespaces: NamespacePaths;
  readonly mounts: readonly ResolvedMount[];
  /** Volumes that the image declares, at none of the request's places. Absent: none. */
  readonly declaredVolumes?: readonly DeclaredVolume[];
  /** Files of the sandbox bound into the container unless the request mounts over them. */
  readonly sandboxFiles: {
    readonly resolvConf: string;
    readonly hostname: string;
    /** Bound on /dev/shm. */
    readonly shm: string;
    /** Bound on /etc/hosts; the kubelet mounts its own over it. */
    readonly hosts?: string;
  };
  /** The name that uname gives in the container. Absent: the sandbox's configured hostname. */
  readonly hostname?: string;
  /** Devices of the request. Absent: their host paths are looked up in `host.devices`. */
  readonly devices?: readonly ResolvedDevice[];
  /** What the request's CDI devices change. Absent: it names none. */
  readonly cdi?: CdiInput;
  /** /etc/passwd and /etc/group of the root filesystem; empty where absent. */
  readonly passwd: string;
  readonly group: string;
  readonly host: HostFacts;
  /** As the engine gets it. */
  readonly cgroupsPath: string;
  readonly uidMappings?: readonly IDMapping[];
  readonly gidMappings?: readonly IDMapping[];
  /** A Localhost seccomp profile's JSON, read before. */
  readonly localhostSeccomp?: string;
  /** Annotations that the handler's allow-list let through, and the CRI ones a driver needs. */
  readonly annotations: Readonly<Record<string, string>>;
}

/** A file of the host that a sandbox's own process needs, bound read-only. */
export interface SandboxBind {
  readonly source: string;
  readonly destination: string;
  /** Absent: read-only. */
  readonly writable?: boolean;
}

/**
 * What the spec of a sandbox's own process is made from: a reaping init, or gVisor's root
 * container.
 */
export interface SandboxSpecInput {
  readonly sandboxId: string;
  readonly sandbox: PodSandboxConfig;
  /** Absolute path of its (small) root filesystem. */
  readonly rootfs: string;
  readonly args: readonly string[];
  readonly namespaces: NamespacePaths;
  readonly host: HostFacts;
  readonly cgroupsPath: string;
  /** Bound in this order after /proc, /dev and /sys. */
  readonly binds?: readonly SandboxBind[];
  /** Overrides the sandbox's configured hostname. */
  readonly hostname?: string;
  readonly oomScoreAdj?: number;
  readonly seccomp?: SpecSeccomp | undefined;
  readonly appArmorProfile?: string | undefined;
  readonly uidMappings?: readonly IDMapping[];
  readonly gidMappings?: readonly IDMapping[];
  readonly annotations: Readonly<Record<string, string>>;
}

export interface BuiltSandboxSpec {
  readonly spec: Spec;
  readonly notes: readonly string[];
}

export interface BuiltSpec {
  readonly spec: Spec;
  /** For ContainerStatus.user. */
  readonly user: ContainerUser;
  /** For ContainerStatus.mounts. */
  readonly mounts: readonly Mount[];
  /** Without SIG, as in TERM. */
  readonly stopSignal: string;
  /** Sentences for the log: what was lowered because this host can't. */
  readonly notes: readonly string[];
}
