// ListContainers: exited ones stay listed until they are removed, or their exit codes would be lost.

import type { ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { containerState } from '../view/cri-container.ts';
import { joinFragments } from '../view/fragments.ts';
import { filterId, matchesLabels } from './lookup.ts';

export function listContainers(gateway: Gateway): Verb<ListContainersRequest, Buffer> {
  return async ({ filter }) => {
    gateway.feed.requirePrimed();
    const listed = gateway.view.containers();
    if (filter === undefined) return joinFragments(listed.map((item) => item.fragment));
    const id = filterId(filter.id, gateway.view.findContainer);
    const sandboxId = filterId(filter.podSandboxId, gateway.view.findSandbox);
    const matching = listed.filter(
      ({ record }) =>
        (id === '' || record.id === id) &&
        (sandboxId === '' || record.sandboxId === sandboxId) &&
        (filter.state === undefined || containerState(record) === filter.state.state) &&
        matchesLabels(record.config?.labels, filter.labelSelector),
    );
    return joinFragments(matching.map((item) => item.fragment));
  };
}
