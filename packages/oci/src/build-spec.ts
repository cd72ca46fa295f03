// From a CRI container configuration to the OCI runtime configuration of its process. Pure: all
// that must be read from the host or the image is in the input.

import {
  type ContainerUser,
  LinuxContainerSecurityContext,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { containerAnnotations } from './annotations.ts';
import { buildCapabilities } from './capabilities.ts';
import { applyCdiEdits } from './cdi/apply-edits.ts';
import { buildDevices } from './devices.ts';
import { type Invalid, invalidOf } from './invalid-field.ts';
import { buildMounts } from './mounts.ts';
import { buildIdMappings, buildNamespaces, checkMapped } from './namespaces.ts';
import { processArgs, processCwd, processEnv } from './process.ts';
import { buildResources, oomScoreAdj, withDevices } from './resources.ts';
import { buildSeccomp } from './seccomp.ts';
import { buildAppArmor, buildSelinux } from './security-labels.ts';
import type { Spec, SpecProcess, SpecUser } from './spec.ts';
import type { BuiltSpec, SpecInput } from './spec-input.ts';
import { resolveStopSignal } from './stop-signal.ts';
import { resolveUser } from './user.ts';

/**
 * Builds the spec of one container.
 *
 * @throws Failure invalid_argument naming container and field for what is wrong regardless of
 * state; wrong_state for a profile that this host can't apply or a CDI device that it hasn't;
 * unsupported for what the handler can't; kubelet_reason RROUnsupported where recursive read-only
 * mounts are asked of a handler without them.
 */
export function buildContainerSpec(input: SpecInput): BuiltSpec {
  const { container } = input;
  const invalid = invalidOf(`container ${JSON.stringify(container.metadata?.name ?? '')}`);
  const security =
    container.linux?.securityContext ?? LinuxContainerSecurityContext.fromPartial({});
  checkAllowed(input, security, invalid);
  const mounts = buildMounts(input, invalid);
  const devices = buildDevices(input, invalid);
  const limits = buildResources(
    { resources: container.linux?.resources, host: input.host },
    invalid,
  );
  const idMappings = buildIdMappings(input, invalid);
  const process = buildProcess(input, security, invalid);
  const seccomp = buildSeccomp(
    {
      security,
      host: input.host,
      localhost: input.localhostSeccomp,
      capabilities: process.process.capabilities.bounding,
    },
    invalid,
  );
  const { mountLabel } = buildSelinux({ ...input, security });
  const stop = resolveStopSignal({
    requested: container.stopSignal,
    image: input.image.config.StopSignal ?? '',
  });
  const plain: Spec = {
    ociVersion: input.host.ociVersion,
    process: process.process,
    root: { path: input.rootfs, readonly: security.readonlyRootfs },
    mounts: [...mounts.mounts, ...devices.binds],
    annotations: containerAnnotations(input),
    linux: {
      cgroupsPath: input.cgroupsPath,
      namespaces: buildNamespaces({ ...input, privileged: security.privileged }),
      ...idMappings,
      devices: devices.devices,
      resources: withDevices(limits.resources, devices.rules),
      maskedPaths: security.privileged ? [] : security.maskedPaths,
      readonlyPaths: security.privileged ? [] : security.readonlyPaths,
      ...(mounts.rootfsPropagation === undefined
        ? {}
        : { rootfsPropagation: mounts.rootfsPropagation }),
      ...(seccomp === undefined ? {} : { seccomp }),
      ...(mountLabel === undefined ? {} : { mountLabel }),
    },
  };
  const spec =
    input.cdi === undefined
      ? plain
      : applyCdiEdits(plain, { ...input.cdi, host: input.host }, invalid);
  return {
    spec,
    user: containerUser(spec.process.user),
    mounts: mounts.effective,
    stopSignal: stop.signal,
    notes: [...process.notes, ...limits.notes, ...stop.notes],
  };
}

function checkAllowed(
  input: SpecInput,
  security: LinuxContainerSecurityContext,
  invalid: Invalid,
): void {
  if (security.privileged && !(input.sandbox.linux?.securityContext?.privileged ?? false)) {
    throw invalid('privileged', 'no privileged container is allowed in an unprivileged sandbox');
  }
  for (const [field, paths] of [
    ['masked_paths', security.maskedPaths],
    ['readonly_paths', security.readonlyPaths],
  ] as const) {
    const relative = paths.find((path) => !path.startsWith('/'));
    if (relative !== undefined) {
      throw invalid(field, `${JSON.stringify(relative)} is not an absolute path`);
    }
  }
}

function buildProcess(
  input: SpecInput,
  security: LinuxContainerSecurityContext,
  invalid: Invalid,
): { readonly process: SpecProcess; readonly notes: readonly string[] } {
  const { container, image, host } = input;
  const user = resolveUser(
    { security, imageUser: image.config.User ?? '', passwd: input.passwd, group: input.group },
    invalid,
  );
  checkMapped(user, input, invalid);
  const capabilities = buildCapabilities(security, host.capabilities, invalid);
  const appArmor = buildAppArmor({ security, host }, invalid);
  const { selinuxLabel } = buildSelinux({ ...input, security });
  const resources = container.linux?.resources;
  const oom = resources === undefined ? undefined : oomScoreAdj(resources.oomScoreAdj, host);
  return {
    process: {
      terminal: container.tty,
      user,
      args: processArgs(container, image, invalid),
      env: processEnv(
        { config: container, image, hostname: input.hostname ?? input.sandbox.hostname },
        invalid,
      ),
      cwd: processCwd(container, image, invalid),
      capabilities: capabilities.capabilities,
      noNewPrivileges: security.noNewPrivs,
      ...(appArmor.profile === undefined ? {} : { apparmorProfile: appArmor.profile }),
      ...(selinuxLabel === undefined ? {} : { selinuxLabel }),
      ...(oom === undefined ? {} : { oomScoreAdj: oom.score }),
    },
    notes: [...capabilities.notes, ...appArmor.notes, ...(oom?.notes ?? [])],
  };
}

function containerUser(user: SpecUser): ContainerUser {
  return {
    linux: {
      uid: BigInt(user.uid),
      gid: BigInt(user.gid),
      supplementalGroups: (user.additionalGids ?? []).map(BigInt),
    },
  };
}
