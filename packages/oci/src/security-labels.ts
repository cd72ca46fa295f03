// The labels of the Linux security modules: an AppArmor profile and SELinux contexts.

import { createHash } from 'node:crypto';
import { Failure } from '@cribus/contracts/failure.ts';
import {
  type LinuxContainerSecurityContext,
  NamespaceMode,
  type PodSandboxConfig,
  SecurityProfile_ProfileType as ProfileType,
  type SecurityProfile,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { HostFacts } from './spec-input.ts';

export interface AppArmorInput {
  readonly security: Pick<
    LinuxContainerSecurityContext,
    'apparmor' | 'apparmorProfile' | 'privileged'
  >;
  readonly host: HostFacts;
}

interface BuiltAppArmor {
  readonly profile: string | undefined;
  readonly notes: readonly string[];
}

const UNCONFINED: BuiltAppArmor = { profile: undefined, notes: [] };

/**
 * The AppArmor profile, or none. An unset one is RuntimeDefault where the host has AppArmor
 * (kubernetes#51746), but for a privileged container; Localhost holds for that one too.
 *
 * @throws Failure wrong_state where a Localhost profile is asked of a host without AppArmor, or
 * RuntimeDefault of one that has it but not the profile; unsupported where Localhost is asked of a
 * handler that applies none.
 */
export function buildAppArmor({ security, host }: AppArmorInput, invalid: Invalid): BuiltAppArmor {
  const asked = security.apparmor ?? legacyProfile(security.apparmorProfile, invalid);
  const type = asked?.profileType ?? ProfileType.RuntimeDefault;
  if (type === ProfileType.Unconfined) return UNCONFINED;
  if (type === ProfileType.RuntimeDefault) {
    return security.privileged ? UNCONFINED : defaultProfile({ asked, host }, invalid);
  }
  if (type !== ProfileType.Localhost) {
    throw invalid('apparmor.profile_type', `${type} is not a type of profile`);
  }
  const name = (asked?.localhostRef ?? '').replace(/^localhost\//, '');
  if (name === '') throw invalid('apparmor.localhost_ref', 'a Localhost profile needs a name');
  if (host.handlerWithoutAppArmor !== undefined) {
    const why = `handler ${host.handlerWithoutAppArmor} applies no profiles, and so not ${quoted(name)}`;
    throw new Failure('unsupported', invalid('apparmor', why).message);
  }
  if (!host.appArmor) {
    const why = `apparmor is not supported by this host, profile ${quoted(name)}`;
    throw new Failure('wrong_state', invalid('apparmor', why).message);
  }
  if (host.appArmorProfiles !== undefined && !host.appArmorProfiles.includes(name)) {
    throw invalid('apparmor.localhost_ref', `apparmor profile not found: ${quoted(name)}`);
  }
  return { profile: name, notes: [] };
}

/**
 * Where there is no AppArmor, its default is none: whoever asks for it wants what the node has. But where
 * there is, a container that was promised the profile must not run without.
 */
function defaultProfile(
  { asked, host }: { readonly asked: SecurityProfile | undefined; readonly host: HostFacts },
  invalid: Invalid,
): BuiltAppArmor {
  const without = host.handlerWithoutAppArmor;
  if (without !== undefined || !host.appArmor) {
    const why =
      without === undefined
        ? 'this host has no AppArmor'
        : `handler ${without} applies no profiles`;
    return { profile: undefined, notes: asked === undefined ? [] : [`apparmor: ${why}`] };
  }
  if (host.appArmorDefaultProfile !== undefined) {
    return { profile: host.appArmorDefaultProfile, notes: [] };
  }
  const lacking = `no default profile is loaded: ${host.appArmorDefaultLacking ?? 'it is unknown why'}`;
  if (asked !== undefined) {
    throw new Failure('wrong_state', invalid('apparmor', lacking).message);
  }
  return { profile: undefined, notes: [`apparmor: ${lacking}`] };
}

/** The deprecated apparmor_profile: runtime/default, unconfined, localhost/NAME. */
function legacyProfile(path: string, invalid: Invalid): SecurityProfile | undefined {
  const profile = (profileType: ProfileType, localhostRef = '') => ({ profileType, localhostRef });
  if (path === '') return undefined;
  if (path === 'runtime/default') return profile(ProfileType.RuntimeDefault);
  if (path === 'unconfined') return profile(ProfileType.Unconfined);
  if (path.startsWith('localhost/')) {
    return profile(ProfileType.Localhost, path.slice('localhost/'.length));
  }
  throw invalid('apparmor_profile', `${quoted(path)} is not a profile`);
}

export interface SelinuxInput {
  readonly security: Pick<
    LinuxContainerSecurityContext,
    'selinuxOptions' | 'namespaceOptions' | 'privileged'
  >;
  /** Of the pod, whose options hold for containers that have none of their own. */
  readonly sandbox: PodSandboxConfig | undefined;
  readonly sandboxId: string;
  readonly host: HostFacts;
}

/**
 * The SELinux contexts of the process and its mounts; none on a host without SELinux, for a
 * privileged container, and for one that shares the host's PID or IPC namespace where nobody asks for any.
 * Without a level, the containers of a sandbox share two categories that its id decides
 * (container-selinux: container_t, container_file_t).
 *
 * @throws Failure invalid_argument for what can't be a label.
 */
export function buildSelinux({ security, sandbox, sandboxId, host }: SelinuxInput) {
  if (!host.selinux || security.privileged) return {};
  const options = security.selinuxOptions ?? sandbox?.linux?.securityContext?.selinuxOptions;
  const spaces = security.namespaceOptions;
  // POD, which is also what an unset field says: the pod's, be they the host's.
  const pid = spaces?.pid || sandbox?.linux?.securityContext?.namespaceOptions?.pid;
  const hostShared = pid === NamespaceMode.NODE || spaces?.ipc === NamespaceMode.NODE;
  if (options === undefined && hostShared) return {};
  const user = options?.user || 'system_u';
  const role = options?.role || 'system_r';
  const type = options?.type || 'container_t';
  const level = options?.level || `s0:${categoriesOf(sandboxId)}`;
  for (const part of [user, role, type, level]) {
    // They become part of mount options.
    if (/^[\w.:,-]+$/.test(part)) continue;
    throw new Failure('invalid_argument', `selinux_options: ${quoted(part)} is no SELinux label`);
  }
  return {
    selinuxLabel: `${user}:${role}:${type}:${level}`,
    mountLabel: `${user}:object_r:container_file_t:${level}`,
  };
}

/** Two different categories of the 1024 that the targeted policy has, the lower one first. */
function categoriesOf(sandboxId: string): string {
  const digest = createHash('sha256').update(sandboxId).digest();
  const first = digest.readUInt16BE(0) % 1024;
  const second = (first + 1 + (digest.readUInt16BE(2) % 1023)) % 1024;
  return `c${Math.min(first, second)},c${Math.max(first, second)}`;
}
