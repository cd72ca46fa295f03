// Which seccomp filter a container gets.

import { Failure } from '@cribus/contracts/failure.ts';
import {
  type LinuxContainerSecurityContext,
  SecurityProfile_ProfileType as ProfileType,
  type SecurityProfile,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import { defaultSeccomp } from './seccomp-default.ts';
import type { SpecSeccomp } from './spec.ts';
import type { HostFacts } from './spec-input.ts';

/** What decides, of a container's security context and of a sandbox's alike. */
export type SeccompChoice = Pick<
  LinuxContainerSecurityContext,
  'privileged' | 'seccomp' | 'seccompProfilePath'
>;

export interface SeccompInput {
  readonly security: SeccompChoice;
  readonly host: HostFacts;
  /** The Localhost profile's JSON. */
  readonly localhost: string | undefined;
  /** The container's bounding capabilities: the default profile opens what they are for. */
  readonly capabilities: readonly string[];
}

/**
 * The filter; undefined is unconfined: no profile given (api.proto: nil is unconfined), Unconfined,
 * or a privileged container.
 *
 * @throws Failure wrong_state where a filter is asked of a host without seccomp.
 */
export function buildSeccomp(input: SeccompInput, invalid: Invalid): SpecSeccomp | undefined {
  if (input.security.privileged) return undefined;
  const profile = seccompProfile(input.security, invalid);
  if (profile === undefined || profile.profileType === ProfileType.Unconfined) return undefined;
  if (!input.host.seccomp) {
    throw new Failure(
      'wrong_state',
      invalid('seccomp', 'seccomp is not supported by this host').message,
    );
  }
  if (profile.profileType === ProfileType.RuntimeDefault) {
    return defaultSeccomp(input.capabilities, machine(input.host));
  }
  if (input.localhost === undefined) {
    throw invalid('seccomp.localhost_ref', `no profile at ${quoted(profile.localhostRef)}`);
  }
  return parseProfile(input.localhost, profile.localhostRef, invalid);
}

function machine(host: HostFacts): 'x64' | 'arm64' {
  return (host.arch ?? process.arch) === 'arm64' ? 'arm64' : 'x64';
}

/** The host path of the profile to read for this container; undefined where none is needed. */
export function localhostSeccompPath(
  security: SeccompChoice | undefined,
  invalid: Invalid,
): string | undefined {
  if (security === undefined || security.privileged) return undefined;
  const profile = seccompProfile(security, invalid);
  return profile?.profileType === ProfileType.Localhost ? profile.localhostRef : undefined;
}

/** The seccomp field, else the deprecated path spelled as one. */
function seccompProfile(security: SeccompChoice, invalid: Invalid): SecurityProfile | undefined {
  const profile = security.seccomp ?? legacyProfile(security.seccompProfilePath, invalid);
  if (profile === undefined) return undefined;
  if (!Object.values(ProfileType).includes(profile.profileType)) {
    throw invalid('seccomp.profile_type', `${profile.profileType} is not a type of profile`);
  }
  const local = profile.profileType === ProfileType.Localhost;
  if (local && profile.localhostRef === '') {
    throw invalid('seccomp.localhost_ref', 'a Localhost profile needs the path of its file');
  }
  if (!local && profile.localhostRef !== '') {
    throw invalid('seccomp.localhost_ref', 'it is set, but profile_type is not Localhost');
  }
  return profile;
}

function legacyProfile(path: string, invalid: Invalid): SecurityProfile | undefined {
  const profile = (profileType: ProfileType, localhostRef = '') => ({ profileType, localhostRef });
  if (path === '') return undefined;
  if (path === 'unconfined') return profile(ProfileType.Unconfined);
  if (path === 'runtime/default' || path === 'docker/default') {
    return profile(ProfileType.RuntimeDefault);
  }
  if (path.startsWith('localhost/')) {
    return profile(ProfileType.Localhost, path.slice('localhost/'.length));
  }
  throw invalid('seccomp_profile_path', `${quoted(path)} is not a profile`);
}

/** The file is runtime-spec's LinuxSeccomp; fields that it doesn't have are left out. */
function parseProfile(text: string, ref: string, invalid: Invalid): SpecSeccomp {
  const wrong = (why: string) => invalid('seccomp.localhost_ref', `${quoted(ref)} ${why}`);
  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw wrong("isn't JSON");
  }
  if (!isRecord(parsed)) throw wrong("isn't a JSON object");
  const { defaultAction, syscalls } = parsed;
  if (typeof defaultAction !== 'string') throw wrong('has no defaultAction');
  if (syscalls !== undefined && !isRules(syscalls)) {
    throw wrong('has syscalls that are not rules with names and an action');
  }
  const fields = [
    'defaultErrnoRet',
    'architectures',
    'flags',
    'listenerPath',
    'listenerMetadata',
  ] as const;
  const kept: Record<string, unknown> = { defaultAction };
  for (const field of fields) if (parsed[field] !== undefined) kept[field] = parsed[field];
  if (syscalls !== undefined) kept['syscalls'] = syscalls;
  return kept as unknown as SpecSeccomp;
}

function isRules(value: unknown): boolean {
  return (
    Array.isArray(value) &&
    value.every(
      (rule) =>
        isRecord(rule) && Array.isArray(rule['names']) && typeof rule['action'] === 'string',
    )
  );
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
