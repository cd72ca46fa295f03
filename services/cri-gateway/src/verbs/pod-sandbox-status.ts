// PodSandboxStatus: from the view; a verbose one asks the sandbox-manager for the rest.

import { Failure } from '@cribus/contracts/failure.ts';
import type { PodSandboxStatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { PodSandboxStatusResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { isSandboxShown } from '../view/cri-sandbox.ts';
import { podStatus } from '../view/pod-status.ts';
import { requireSandbox } from './lookup.ts';
import { verboseInfo } from './verbose-info.ts';

export function podSandboxStatus(
  gateway: Gateway,
): Verb<PodSandboxStatusRequest, PodSandboxStatusResponse> {
  return async (request, call) => {
    const { id } = requireSandbox(gateway, request.podSandboxId);
    gateway.feed.requirePrimed();
    const info = request.verbose ? await verboseInfo(call, id, SANDBOX_MANAGER) : {};
    // Read after the hop, so that status and timestamp belong together.
    const sandbox = gateway.view.sandbox(id);
    if (sandbox === undefined || !isSandboxShown(sandbox)) {
      throw new Failure('not_found', `sandbox "${request.podSandboxId}" does not exist`);
    }
    const { podSandboxStatus: status, containersStatuses } = podStatus(gateway.view, sandbox);
    return PodSandboxStatusResponse.fromPartial({
      status,
      info,
      containersStatuses,
      timestamp: gateway.view.sandboxTouchedAtNs(id),
    });
  };
}
