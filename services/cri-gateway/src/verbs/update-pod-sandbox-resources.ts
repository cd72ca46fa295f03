// UpdatePodSandboxResources: the kubelet tells that it is about to resize the pod's cgroup itself.

import type { UpdatePodSandboxResourcesRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { UpdatePodSandboxResourcesResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireSandbox } from './lookup.ts';

export function updatePodSandboxResources(
  gateway: Gateway,
): Verb<UpdatePodSandboxResourcesRequest, UpdatePodSandboxResourcesResponse> {
  return async ({ podSandboxId, overhead, resources }, call) => {
    const { id } = requireSandbox(gateway, podSandboxId);
    await call.ask(
      'update-sandbox-resources',
      { podSandboxId: id, overhead, resources },
      { owner: SANDBOX_MANAGER },
    );
    return UpdatePodSandboxResourcesResponse.fromPartial({});
  };
}
