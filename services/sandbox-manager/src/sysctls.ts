// Which sysctls a pod may have: those that the kernel keeps per namespace, and only where the pod
// has that namespace to itself (CRI, LinuxPodSandboxConfig.sysctls; namespaces(7)).

import { Failure } from '@cribus/contracts/failure.ts';
import type { IdMappings } from '@cribus/host/user-namespaces.ts';

export interface SysctlPlan {
  /** Set when the namespaces are made, names with dots. */
  readonly atCreation: Readonly<Record<string, string>>;
  /** Of an interface that only exists once the network is attached. */
  readonly afterAttach: Readonly<Record<string, string>>;
}

export const IPC_SYSCTL = /^(kernel\.(shm[a-z_]*|msg[a-z_]*|sem)|fs\.mqueue\.[a-z_]+)$/;
const NET_SYSCTL = /^net\.[A-Za-z0-9_.@-]+(\/[A-Za-z0-9_.@-]+)?$/;
const INTERFACE_SYSCTL = /^net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?!(all|default|lo)\.)/;
/** A value is one line of a file below /proc/sys. */
const VALUE_CHARS_MAX = 4096;

/**
 * What a pod's own network allows unless it says otherwise: any process may listen on ports below
 * 1024 and send pings. containerd 2 does the same (enable_unprivileged_ports and
 * enable_unprivileged_icmp), and gVisor's Sentry, which holds no capability, can't do without it
 * where it uses the host's network stack.
 */
const OPEN_NETWORK = { 'net.ipv4.ip_unprivileged_port_start': '0' };
/** The last group that may be named in ping_group_range (the kernel's GID_T_MAX). */
const PING_GROUP_MAX = 2_147_483_647;

export function planSysctls(
  sysctls: Readonly<Record<string, string>>,
  pod: {
    readonly hostNetwork: boolean;
    readonly hostIpc: boolean;
    readonly userNamespace?: IdMappings | undefined;
    readonly pod: string;
  },
): SysctlPlan {
  const atCreation: Record<string, string> = pod.hostNetwork ? {} : openNetwork(pod.userNamespace);
  const afterAttach: Record<string, string> = {};
  for (const [spelled, value] of Object.entries(sysctls)) {
    const name = dotted(spelled);
    const isNet = NET_SYSCTL.test(name) && !name.includes('..');
    if (!isNet && !IPC_SYSCTL.test(name)) {
      throw invalid(`${pod.pod}: sysctl "${spelled}" is not kept per namespace`);
    }
    if (isNet && pod.hostNetwork) {
      throw invalid(`${pod.pod}: sysctl "${spelled}" would change the host's network`);
    }
    if (!isNet && pod.hostIpc) {
      throw invalid(`${pod.pod}: sysctl "${spelled}" would change the host's IPC`);
    }
    if (value.length > VALUE_CHARS_MAX || /[\n\0]/.test(value)) {
      throw invalid(`${pod.pod}: the value of sysctl "${spelled}" is not one short line`);
    }
    const later = isNet && INTERFACE_SYSCTL.test(name);
    (later ? afterAttach : atCreation)[name] = value;
  }
  return { atCreation, afterAttach };
}

/** Of a pod's own network; a user namespace only knows the groups that it maps. */
function openNetwork(userNamespace: IdMappings | undefined): Record<string, string> {
  const groups = userNamespace?.gids.map(({ length }) => length - 1) ?? [];
  const last = Math.min(PING_GROUP_MAX, ...groups);
  return { ...OPEN_NETWORK, 'net.ipv4.ping_group_range': `0 ${last}` };
}

/** sysctl(8) takes both separators; in the slash notation a dot belongs to an interface's name. */
export function dotted(name: string): string {
  const first = /[./]/.exec(name)?.[0];
  if (first !== '/') return name;
  return [...name].map((char) => (char === '/' ? '.' : char === '.' ? '/' : char)).join('');
}

/** The file below /proc/sys of a name with dots. */
export function sysctlFile(name: string): string {
  const path = [...name].map((char) => (char === '.' ? '/' : char === '/' ? '.' : char)).join('');
  return `/proc/sys/${path}`;
}

function invalid(message: string): Failure {
  return new Failure('invalid_argument', message);
}
