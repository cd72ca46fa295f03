// RunPodSandbox: picks the handler, then the sandbox-manager does it all.

import { Failure } from '@cribus/contracts/failure.ts';
import type { RunPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { RunPodSandboxResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner, SANDBOX_MANAGER } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireHandler, requireText } from './lookup.ts';

export function runPodSandbox(gateway: Gateway): Verb<RunPodSandboxRequest, RunPodSandboxResponse> {
  return async ({ config, runtimeHandler }, call) => {
    if (config === undefined) throw new Failure('invalid_argument', 'config is missing');
    if (config.metadata === undefined) {
      throw new Failure('invalid_argument', 'config.metadata is missing');
    }
    requireText(config.metadata.name, 'config.metadata.name');
    const handler = runtimeHandler || gateway.config.runtimes.default;
    requireHandler(gateway, handler);
    gateway.owners.requireAlive(runtimeOwner(handler));
    const { podSandboxId } = await call.ask(
      'run-pod-sandbox',
      { config, handler, requestedHandler: runtimeHandler },
      { owner: SANDBOX_MANAGER },
    );
    return RunPodSandboxResponse.fromPartial({ podSandboxId });
  };
}
