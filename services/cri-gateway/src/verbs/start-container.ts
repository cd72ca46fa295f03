// StartContainer: CREATED becomes RUNNING at the worker of its handler.

import type { StartContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { StartContainerResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireContainer } from './lookup.ts';

export function startContainer(
  gateway: Gateway,
): Verb<StartContainerRequest, StartContainerResponse> {
  return async (request, call) => {
    const { id: containerId, handler } = requireContainer(gateway, request.containerId);
    await call.ask('start-container', { containerId }, { owner: runtimeOwner(handler) });
    return StartContainerResponse.fromPartial({});
  };
}
