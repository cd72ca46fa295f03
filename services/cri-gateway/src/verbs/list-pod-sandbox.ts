// ListPodSandbox: every state, from the view, as bytes that were encoded when each sandbox changed.

import type { ListPodSandboxRequest, PodSandboxFilter } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { sandboxState } from '../view/cri-sandbox.ts';
import { joinFragments } from '../view/fragments.ts';
import { filterId, matchesLabels } from './lookup.ts';

export function listPodSandbox(gateway: Gateway): Verb<ListPodSandboxRequest, Buffer> {
  return async ({ filter }) => joinFragments(matchingSandboxes(gateway, filter));
}

/** The encoded items that the filter lets through. Raises unavailable for a view that isn't whole. */
export function matchingSandboxes(
  gateway: Gateway,
  filter: PodSandboxFilter | undefined,
): Buffer[] {
  gateway.feed.requirePrimed();
  const listed = gateway.view.sandboxes();
  if (filter === undefined) return listed.map((item) => item.fragment);
  const id = filterId(filter.id, gateway.view.findSandbox);
  const matching = listed.filter(
    ({ record }) =>
      (id === '' || record.id === id) &&
      (filter.state === undefined || sandboxState(record) === filter.state.state) &&
      matchesLabels(record.config?.labels, filter.labelSelector),
  );
  return matching.map((item) => item.fragment);
}
