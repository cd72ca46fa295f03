// ContainerStatus: from the view; a verbose one asks the worker for pid, OCI spec and the like.

import { Failure } from '@cribus/contracts/failure.ts';
import type { ContainerStatusRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ContainerStatusResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { toContainerStatus } from '../view/cri-container.ts';
import { requireContainer } from './lookup.ts';
import { verboseInfo } from './verbose-info.ts';

export function containerStatus(
  gateway: Gateway,
): Verb<ContainerStatusRequest, ContainerStatusResponse> {
  return async (request, call) => {
    const { id, handler } = requireContainer(gateway, request.containerId);
    gateway.feed.requirePrimed();
    const info = request.verbose ? await verboseInfo(call, id, runtimeOwner(handler)) : {};
    const record = gateway.view.container(id);
    if (record === undefined) {
      throw new Failure('not_found', `container "${request.containerId}" does not exist`);
    }
    const image = gateway.view.image(record.imageId);
    return ContainerStatusResponse.fromPartial({ status: toContainerStatus(record, image), info });
  };
}
