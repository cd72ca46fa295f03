// PodSandboxStatus: from the view; a verbose one asks the sandbox-manager for the rest.

import { Failure } from '@cribus/contracts/failure.ts';
import type { PodSandboxStatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { PodSandboxStatusResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { isContainerShown, toContainerStatus } from '../view/cri-container.ts';
import { isSandboxShown, toPodSandboxStatus } from '../view/cri-sandbox.ts';
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
    return PodSandboxStatusResponse.fromPartial({
      status: toPodSandboxStatus(sandbox),
      info,
      containersStatuses: gateway.view
        .containersOf(id)
        .filter(isContainerShown)
        .map((record) => toContainerStatus(record, gateway.view.image(record.imageId))),
      timestamp: gateway.view.sandboxTouchedAtNs(id),
    });
  };
}
