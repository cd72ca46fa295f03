// UpdateRuntimeConfig: the pod CIDR of this node, for whoever sets up pod networks.

import type { UpdateRuntimeConfigRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { UpdateRuntimeConfigResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Verb } from '../gateway.ts';

export function updateRuntimeConfig(): Verb<
  UpdateRuntimeConfigRequest,
  UpdateRuntimeConfigResponse
> {
  return async (request, call) => {
    const podCidr = request.runtimeConfig?.networkConfig?.podCidr ?? '';
    await call.ask('update-runtime-config', { podCidr }, { owner: SANDBOX_MANAGER });
    return UpdateRuntimeConfigResponse.fromPartial({});
  };
}
