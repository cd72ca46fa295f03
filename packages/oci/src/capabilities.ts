// Which capabilities a container's process has.

import type { LinuxContainerSecurityContext } from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { SpecCapabilities } from './spec.ts';

/**
 * Every capability, by the kernel's number from 0 (include/uapi/linux/capability.h, 5.9 and later).
 */
export const CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_DAC_READ_SEARCH',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_LINUX_IMMUTABLE',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_BROADCAST',
  'CAP_NET_ADMIN',
  'CAP_NET_RAW',
  'CAP_IPC_LOCK',
  'CAP_IPC_OWNER',
  'CAP_SYS_MODULE',
  'CAP_SYS_RAWIO',
  'CAP_SYS_CHROOT',
  'CAP_SYS_PTRACE',
  'CAP_SYS_PACCT',
  'CAP_SYS_ADMIN',
  'CAP_SYS_BOOT',
  'CAP_SYS_NICE',
  'CAP_SYS_RESOURCE',
  'CAP_SYS_TIME',
  'CAP_SYS_TTY_CONFIG',
  'CAP_MKNOD',
  'CAP_LEASE',
  'CAP_AUDIT_WRITE',
  'CAP_AUDIT_CONTROL',
  'CAP_SETFCAP',
  'CAP_MAC_OVERRIDE',
  'CAP_MAC_ADMIN',
  'CAP_SYSLOG',
  'CAP_WAKE_ALARM',
  'CAP_BLOCK_SUSPEND',
  'CAP_AUDIT_READ',
  'CAP_PERFMON',
  'CAP_BPF',
  'CAP_CHECKPOINT_RESTORE',
];

/**
 * What every container has unless it drops it: the set that containerd and Docker have in common.
 */
export const DEFAULT_CAPABILITIES: readonly string[] = [
  'CAP_CHOWN',
  'CAP_DAC_OVERRIDE',
  'CAP_FOWNER',
  'CAP_FSETID',
  'CAP_KILL',
  'CAP_SETGID',
  'CAP_SETUID',
  'CAP_SETPCAP',
  'CAP_NET_BIND_SERVICE',
  'CAP_NET_RAW',
  'CAP_SYS_CHROOT',
  'CAP_MKNOD',
  'CAP_AUDIT_WRITE',
  'CAP_SETFCAP',
];

export const NO_CAPABILITIES: SpecCapabilities = {
  bounding: [],
  effective: [],
  inheritable: [],
  permitted: [],
  ambient: [],
};

export interface BuiltCapabilities {
  readonly capabilities: SpecCapabilities;
  readonly notes: readonly string[];
}

/**
 * The sets: ALL is taken first, so that single adds and drops still work on it; then adds, then
 * drops. Bounding, effective and permitted are the same, also for other users than root: the kernel
 * clears the latter two at the change of user (capabilities(7)). Inheritable stays empty
 * (CVE-2022-24769) but for ambient ones, which need it. A capability that this host can't give is
 * left out with a note where nobody named it, and refused where the request did.
 */
export function buildCapabilities(
  security: LinuxContainerSecurityContext,
  available: readonly string[],
  invalid: Invalid,
): BuiltCapabilities {
  const asked = security.capabilities;
  const add = namesOf(asked?.addCapabilities ?? [], 'add_capabilities', invalid);
  const drop = namesOf(asked?.dropCapabilities ?? [], 'drop_capabilities', invalid);
  const ambient = namesOf(asked?.addAmbientCapabilities ?? [], 'add_ambient_capabilities', invalid);
  const host = new Set(available);
  const every = security.privileged || add.all || ambient.all;
  const implied = every ? CAPABILITIES : drop.all ? [] : DEFAULT_CAPABILITIES;
  const kept = new Set(implied.filter((name) => host.has(name)));
  if (drop.all && !security.privileged) kept.clear();
  if (!security.privileged) {
    for (const [field, names] of [
      ['capabilities.add_capabilities', add.names],
      ['capabilities.add_ambient_capabilities', ambient.names],
    ] as const) {
      for (const name of names) {
        if (!host.has(name)) throw invalid(field, `${name} is not among this host's capabilities`);
        kept.add(name);
      }
    }
    for (const name of drop.names) kept.delete(name);
  }
  const inOrder = CAPABILITIES.filter((name) => kept.has(name));
  const raised = inOrder.filter((name) => ambient.all || ambient.names.includes(name));
  const missing = drop.all ? [] : implied.filter((name) => !host.has(name));
  return {
    capabilities: {
      bounding: inOrder,
      effective: inOrder,
      inheritable: raised,
      permitted: inOrder,
      ambient: raised,
    },
    notes:
      missing.length === 0
        ? []
        : [`left out, as this host does not have them: ${missing.join(' ')}`],
  };
}

function namesOf(names: readonly string[], field: string, invalid: Invalid) {
  const upper = names.map((name) => name.toUpperCase());
  const single = upper.filter((name) => name !== 'ALL' && name !== 'CAP_ALL');
  return {
    all: single.length < upper.length,
    names: single.map((name) => {
      const full = name.startsWith('CAP_') ? name : `CAP_${name}`;
      if (CAPABILITIES.includes(full)) return full;
      throw invalid(`capabilities.${field}`, `${quoted(name)} is not a capability that Linux has`);
    }),
  };
}
