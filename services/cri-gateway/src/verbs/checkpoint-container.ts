// CheckpointContainer: whether and how a container can be checkpointed is its worker's to say.

import {
  type CheckpointContainerRequest,
  CheckpointContainerResponse,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireContainer, requireText } from './lookup.ts';

export function checkpointContainer(
  gateway: Gateway,
): Verb<CheckpointContainerRequest, CheckpointContainerResponse> {
  return async ({ containerId, location, timeout }, call) => {
    const { id, handler } = requireContainer(gateway, containerId);
    requireText(location, 'location');
    await call.ask(
      'checkpoint-container',
      { containerId: id, location, timeoutS: timeout },
      { owner: runtimeOwner(handler) },
    );
    return CheckpointContainerResponse.fromPartial({});
  };
}
