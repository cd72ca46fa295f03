// What a container's OCI spec is made from: plain data, all of it gathered before.

import type {
  ContainerConfig,
  ContainerUser,
  IDMapping,
  Mount,
  PodSandboxConfig,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ImageConfig } from './image-config.ts';
import type { Spec } from './spec.ts';

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
  /** Files of the sandbox bound into the container unless the request mounts over them. */
  readonly sandboxFiles: {
    readonly resolvConf: string;
    readonly hostname: string;
    /** Bound on /dev/shm. */
    readonly shm: string;
  };
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
