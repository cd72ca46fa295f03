// StopContainer: answers only once the container is dead; one that doesn't exist is.

import type { StopContainerRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { StopContainerResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { findContainer } from './lookup.ts';

/** A grace period beyond a week is a mistake, and no timer of the gateway needs to be longer. */
const GRACE_S_MAX = 7n * 24n * 3600n;

export function stopContainer(gateway: Gateway): Verb<StopContainerRequest, StopContainerResponse> {
  return async (request, call) => {
    const container = findContainer(gateway, request.containerId);
    if (container !== undefined) {
      const timeoutS = request.timeout > 0n ? request.timeout : 0n;
      const boundedS = timeoutS < GRACE_S_MAX ? timeoutS : GRACE_S_MAX;
      await call.ask(
        'stop-container',
        { containerId: container.id, timeoutS: boundedS },
        { owner: runtimeOwner(container.handler) },
      );
    }
    return StopContainerResponse.fromPartial({});
  };
}
