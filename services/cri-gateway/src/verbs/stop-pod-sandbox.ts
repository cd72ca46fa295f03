// StopPodSandbox: absent or already stopped is success, as the kubelet asks many times.

import type { StopPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { StopPodSandboxResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { findSandbox } from './lookup.ts';

export function stopPodSandbox(
  gateway: Gateway,
): Verb<StopPodSandboxRequest, StopPodSandboxResponse> {
  return async (request, call) => {
    const sandbox = findSandbox(gateway, request.podSandboxId);
    if (sandbox !== undefined) {
      await call.ask('stop-pod-sandbox', { podSandboxId: sandbox.id }, { owner: SANDBOX_MANAGER });
    }
    return StopPodSandboxResponse.fromPartial({});
  };
}
