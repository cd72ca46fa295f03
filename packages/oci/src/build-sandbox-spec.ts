// The OCI runtime configuration of a sandbox's own process: the reaping init of a shared PID
// namespace, or the root container of a gVisor sandbox.

import { sandboxAnnotations } from './annotations.ts';
import { NO_CAPABILITIES } from './capabilities.ts';
import { DEFAULT_DEVICE_RULES } from './devices.ts';
import { invalidOf } from './invalid-field.ts';
import { baseMounts } from './mounts.ts';
import { buildIdMappings, buildNamespaces } from './namespaces.ts';
import { DEFAULT_PATH } from './process.ts';
import { oomScoreAdj } from './resources.ts';
import type { SpecMount } from './spec.ts';
import type { BuiltSandboxSpec, SandboxSpecInput } from './spec-input.ts';

/** The last to be killed when memory runs out: with it goes the whole pod. */
const SANDBOX_OOM_SCORE_ADJ = -998;

/**
 * Builds the spec: root without capabilities or new privileges on a read-only root filesystem, with
 * /proc, /dev and /sys and the given binds. Only an UTS namespace of the pod gets a hostname.
 *
 * @throws Failure invalid_argument for a user namespace without mappings, or without arguments.
 */
export function buildSandboxSpec(input: SandboxSpecInput): BuiltSandboxSpec {
  const invalid = invalidOf(`sandbox ${input.sandboxId}`);
  if (input.args.length === 0) throw invalid('args', 'nothing to run');
  const hostname = input.hostname ?? input.sandbox.hostname;
  const oom = oomScoreAdj(input.oomScoreAdj ?? SANDBOX_OOM_SCORE_ADJ, input.host);
  const spec = {
    ociVersion: input.host.ociVersion,
    process: {
      terminal: false,
      user: { uid: 0, gid: 0 },
      args: input.args,
      env: [`PATH=${DEFAULT_PATH}`],
      cwd: '/',
      capabilities: NO_CAPABILITIES,
      noNewPrivileges: true,
      ...(input.appArmorProfile === undefined ? {} : { apparmorProfile: input.appArmorProfile }),
      oomScoreAdj: oom.score,
    },
    root: { path: input.rootfs, readonly: true },
    ...(input.namespaces.uts === 'host' || hostname === '' ? {} : { hostname }),
    mounts: sandboxMounts(input),
    annotations: sandboxAnnotations(input),
    linux: {
      cgroupsPath: input.cgroupsPath,
      namespaces: buildNamespaces({ ...input, privileged: false }),
      ...buildIdMappings(input, invalid),
      devices: [],
      resources: { devices: DEFAULT_DEVICE_RULES },
      maskedPaths: [],
      readonlyPaths: [],
      ...(input.seccomp === undefined ? {} : { seccomp: input.seccomp }),
    },
  };
  return { spec, notes: oom.notes };
}

function sandboxMounts(input: SandboxSpecInput): SpecMount[] {
  const foreignNetwork = input.namespaces.user !== undefined && input.namespaces.network === 'host';
  const sys: SpecMount = {
    destination: '/sys',
    type: 'sysfs',
    source: 'sysfs',
    options: ['nosuid', 'noexec', 'nodev', 'ro'],
  };
  return [
    ...baseMounts(),
    // See kernelMounts: that sysfs can't be mounted, and this process has no use for it.
    ...(foreignNetwork ? [] : [sys]),
    ...(input.binds ?? []).map((bind) => ({
      destination: bind.destination,
      type: 'bind',
      source: bind.source,
      options: ['rbind', 'rprivate', bind.writable === true ? 'rw' : 'ro'],
    })),
  ];
}
