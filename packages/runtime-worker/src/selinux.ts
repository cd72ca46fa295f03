// What of SELinux lies outside a container's process: the contexts of its root filesystem, of the files
// that its pod has from us, and of the volumes that the request wants relabelled.

import { Failure } from '@cribus/contracts/failure.ts';
import {
  LinuxContainerSecurityContext,
  type PodSandboxConfig,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ContainerRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { relabelTree } from '@cribus/host/relabel.ts';
import { buildSelinux } from '@cribus/oci/security-labels.ts';
import type { HostFacts, ResolvedMount } from '@cribus/oci/spec-input.ts';
import type { Worker } from './worker.ts';

/** The context of a container's files; undefined where there is none. Raises invalid_argument. */
export function fileContext(
  worker: Worker,
  record: ContainerRecord,
  of: { readonly sandbox: PodSandboxConfig | undefined; readonly host: HostFacts },
): string | undefined {
  // The Sentry's processes have no labels of the host's, and runsc refuses a spec with any.
  if (worker.driver.family === 'gvisor') return undefined;
  const security =
    record.config?.linux?.securityContext ?? LinuxContainerSecurityContext.fromPartial({});
  return buildSelinux({ security, sandboxId: record.sandboxId, ...of }).mountLabel;
}

/** Directories that are the system's: another context there would lock its own programs out. */
const SYSTEM =
  /^\/(?:[^/]*|(?:bin|boot|dev|etc|lib|lib64|proc|run|sbin|sys|usr)\/.*|var\/(?:lib|log|run))$/;

/**
 * Gives the pod's own files and every mount with selinux_relabel the context. Raises invalid_argument for
 * a directory of the system.
 */
export async function relabelVolumes(
  context: string,
  files: { readonly own: readonly string[]; readonly mounts: readonly ResolvedMount[] },
): Promise<void> {
  for (const { mount, source } of files.mounts.filter((each) => each.mount.selinuxRelabel)) {
    if (!SYSTEM.test(source)) continue;
    const why = `selinux_relabel of ${source} is refused: it is the system's`;
    throw new Failure('invalid_argument', `mount ${mount.containerPath}: ${why}`);
  }
  const volumes = files.mounts
    .filter(({ mount }) => mount.selinuxRelabel && (mount.image?.image ?? '') === '')
    .map(({ source }) => source);
  for (const path of [...files.own, ...volumes]) await relabelTree(path, context);
}
