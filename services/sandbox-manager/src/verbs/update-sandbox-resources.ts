// UpdatePodSandboxResources: kept in the record. The pod's cgroup is the kubelet's to resize, and it
// does so after it has told us (api.proto, KEP-1287).

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import { Failure } from '@cribus/contracts/failure.ts';
import { LinuxPodSandboxConfig } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { UpdateSandboxResourcesRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';
import { updateSandbox } from '../sandbox-update.ts';

/** What is absent in the request stays. Raises not_found, and nothing else for a sandbox there is. */
export function updateSandboxResources(deps: SandboxDeps): VerbHandler<'update-sandbox-resources'> {
  return async (request, context) => {
    const record = await updateSandbox(deps, {
      id: request.podSandboxId,
      changed: context.changed,
      change: (current) => changed(current, request),
    });
    if (record === undefined) {
      throw new Failure('not_found', `sandbox ${request.podSandboxId} does not exist`);
    }
    return {};
  };
}

function changed(
  { config }: SandboxRecord,
  { overhead, resources }: UpdateSandboxResourcesRequest,
): Partial<SandboxRecord> | undefined {
  if (config === undefined || (overhead === undefined && resources === undefined)) return undefined;
  const linux = {
    ...(config.linux ?? LinuxPodSandboxConfig.fromPartial({})),
    ...(overhead === undefined ? {} : { overhead }),
    ...(resources === undefined ? {} : { resources }),
  };
  return { config: { ...config, linux } };
}
