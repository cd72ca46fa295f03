// RemovePodSandbox: what is gone already is removed.

import type { RemovePodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { RemovePodSandboxResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { findSandbox } from './lookup.ts';

export function removePodSandbox(
  gateway: Gateway,
): Verb<RemovePodSandboxRequest, RemovePodSandboxResponse> {
  return async (request, call) => {
    const sandbox = findSandbox(gateway, request.podSandboxId);
    if (sandbox !== undefined) {
      await call.ask(
        'remove-pod-sandbox',
        { podSandboxId: sandbox.id },
        { owner: SANDBOX_MANAGER },
      );
    }
    return RemovePodSandboxResponse.fromPartial({});
  };
}
