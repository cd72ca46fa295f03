// ListContainers: exited ones stay listed until they are removed, or their exit codes would be lost.

import type { ContainerFilter, ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { containerState } from '../view/cri-container.ts';
import { joinFragments } from '../view/fragments.ts';
import { filterId, matchesLabels } from './lookup.ts';

export function listContainers(gateway: Gateway): Verb<ListContainersRequest, Buffer> {
  return async ({ filter }) => joinFragments(matchingContainers(gateway, filter));
}

/** The encoded items that the filter lets through. Raises unavailable for a view that isn't whole. */
export function matchingContainers(
  gateway: Gateway,
  filter: ContainerFilter | undefined,
): Buffer[] {
  gateway.feed.requirePrimed();
  const listed = gateway.view.containers();
  if (filter === undefined) return listed.map((item) => item.fragment);
  const id = filterId(filter.id, gateway.view.findContainer);
  const sandboxId = filterId(filter.podSandboxId, gateway.view.findSandbox);
  const matching = listed.filter(
    ({ record }) =>
      (id === '' || record.id === id) &&
      (sandboxId === '' || record.sandboxId === sandboxId) &&
      (filter.state === undefined || containerState(record) === filter.state.state) &&
      matchesLabels(record.config?.labels, filter.labelSelector),
  );
  return matching.map((item) => item.fragment);
}
