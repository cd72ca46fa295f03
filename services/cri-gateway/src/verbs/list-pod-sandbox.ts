// ListPodSandbox: every state, from the view, as bytes that were encoded when each sandbox changed.

import type { ListPodSandboxRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { joinFragments } from '../view/fragments.ts';
import { matchingSandboxes } from './filters.ts';

export function listPodSandbox(gateway: Gateway): Verb<ListPodSandboxRequest, Buffer> {
  return async ({ filter }) =>
    joinFragments(matchingSandboxes(gateway, filter).map(({ fragment }) => fragment));
}
