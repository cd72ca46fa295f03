// UpdateRuntimeConfig: the kubelet's pod subnets, handed to network plugins that ask for them.

import type { VerbHandler } from '@cribus/chassis/owner.ts';
import type { SandboxDeps } from '../sandbox-deps.ts';

export function updateRuntimeConfig(deps: SandboxDeps): VerbHandler<'update-runtime-config'> {
  return async (request) => {
    await deps.podCidr.set(request.podCidr);
    return {};
  };
}
