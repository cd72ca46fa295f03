// UpdateContainerResources: new limits, at the worker of the container's handler.

import { Failure } from '@cribus/contracts/failure.ts';
import type { UpdateContainerResourcesRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { UpdateContainerResourcesResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireContainer } from './lookup.ts';

export function updateContainerResources(
  gateway: Gateway,
): Verb<UpdateContainerResourcesRequest, UpdateContainerResourcesResponse> {
  return async ({ containerId, linux, windows, annotations }, call) => {
    const { id, handler } = requireContainer(gateway, containerId);
    if (linux === undefined && windows !== undefined) {
      throw new Failure('invalid_argument', `container "${id}": windows resources on a Linux node`);
    }
    await call.ask(
      'update-container-resources',
      { containerId: id, linux, annotations },
      { owner: runtimeOwner(handler) },
    );
    return UpdateContainerResourcesResponse.fromPartial({});
  };
}
