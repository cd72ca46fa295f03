// RemoveContainer: by force if it runs; what is gone already is removed.

import type { RemoveContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { RemoveContainerResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { findContainer } from './lookup.ts';

export function removeContainer(
  gateway: Gateway,
): Verb<RemoveContainerRequest, RemoveContainerResponse> {
  return async (request, call) => {
    const container = findContainer(gateway, request.containerId);
    if (container !== undefined) {
      const owner = runtimeOwner(container.handler);
      await call.ask('remove-container', { containerId: container.id }, { owner });
    }
    return RemoveContainerResponse.fromPartial({});
  };
}
