// ListPodSandbox: every state, from the view, as bytes that were encoded when each sandbox changed.

import type { ListPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { sandboxState } from '../view/cri-sandbox.ts';
import { joinFragments } from '../view/fragments.ts';
import { filterId, matchesLabels } from './lookup.ts';

export function listPodSandbox(gateway: Gateway): Verb<ListPodSandboxRequest, Buffer> {
  return async ({ filter }) => {
    gateway.feed.requirePrimed();
    const listed = gateway.view.sandboxes();
    if (filter === undefined) return joinFragments(listed.map((item) => item.fragment));
    const id = filterId(filter.id, gateway.view.findSandbox);
    const matching = listed.filter(
      ({ record }) =>
        (id === '' || record.id === id) &&
        (filter.state === undefined || sandboxState(record) === filter.state.state) &&
        matchesLabels(record.config?.labels, filter.labelSelector),
    );
    return joinFragments(matching.map((item) => item.fragment));
  };
}
