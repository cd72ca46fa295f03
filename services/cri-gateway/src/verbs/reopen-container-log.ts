// ReopenContainerLog: after a rotation; whether the container runs is the worker's to say.

import type { ReopenContainerLogRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ReopenContainerLogResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { requireContainer } from './lookup.ts';

export function reopenContainerLog(
  gateway: Gateway,
): Verb<ReopenContainerLogRequest, ReopenContainerLogResponse> {
  return async (request, call) => {
    const { id: containerId, handler } = requireContainer(gateway, request.containerId);
    await call.ask('reopen-container-log', { containerId }, { owner: runtimeOwner(handler) });
    return ReopenContainerLogResponse.fromPartial({});
  };
}
