// The labels of the Linux security modules that a pod names for itself. Its SELinux options are for its
// containers that have none (security-labels.ts): the root filesystem of an init is that of every pod's.

import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { invalidOf } from '@cribus/oci/invalid-field.ts';
import { buildAppArmor, buildSelinux } from '@cribus/oci/security-labels.ts';
import type { HostFacts } from '@cribus/oci/spec-input.ts';
import { appArmorFacts } from './apparmor.ts';
import type { Worker } from './worker.ts';

/**
 * The AppArmor profile for the pod's own process; none where the pod names none. Raises what a container
 * with these options would, also for a pod without such a process.
 */
export async function sandboxAppArmor(
  worker: Worker,
  sandbox: SandboxRecord,
  facts: HostFacts,
): Promise<string | undefined> {
  const security = sandbox.config?.linux?.securityContext;
  if (security === undefined) return undefined;
  buildSelinux({ security, sandbox: sandbox.config, sandboxId: sandbox.id, host: facts });
  const { apparmor, privileged } = security;
  if (apparmor === undefined) return undefined;
  const host = { ...facts, ...(await appArmorFacts(worker, facts)) };
  const asked = { apparmor, privileged, apparmorProfile: '' };
  return buildAppArmor({ security: asked, host }, invalidOf(`sandbox ${sandbox.id}`)).profile;
}
