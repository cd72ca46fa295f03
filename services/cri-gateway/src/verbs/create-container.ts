// CreateContainer: goes to the worker of the sandbox's handler.

import { Failure } from '@cribus/contracts/failure.ts';
import type { CreateContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { CreateContainerResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { CreateContainerRequest as OwnerRequest } from '@cribus/contracts/gen/node/v1/verbs.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireSandbox, requireText } from './lookup.ts';

export function createContainer(
  gateway: Gateway,
): Verb<CreateContainerRequest, CreateContainerResponse> {
  return async (request, call) => {
    requireText(request.podSandboxId, 'pod_sandbox_id');
    const { config, sandboxConfig } = request;
    if (config === undefined) throw new Failure('invalid_argument', 'config is missing');
    if (config.metadata === undefined) {
      throw new Failure('invalid_argument', 'config.metadata is missing');
    }
    requireText(config.metadata.name, 'config.metadata.name');
    requireText(config.image?.image ?? '', 'config.image.image');
    const sandbox = requireSandbox(gateway, request.podSandboxId);
    const { containerId } = await call.ask(
      'create-container',
      OwnerRequest.fromPartial({
        podSandboxId: sandbox.id,
        config,
        ...(sandboxConfig === undefined ? {} : { sandboxConfig }),
      }),
      { owner: runtimeOwner(sandbox.handler) },
    );
    return CreateContainerResponse.fromPartial({ containerId });
  };
}
