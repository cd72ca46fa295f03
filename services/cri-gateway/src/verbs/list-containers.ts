// ListContainers: exited ones stay listed until they are removed, or their exit codes would be lost.

import type { ListContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { joinFragments } from '../view/fragments.ts';
import { matchingContainers } from './filters.ts';

export function listContainers(gateway: Gateway): Verb<ListContainersRequest, Buffer> {
  return async ({ filter }) =>
    joinFragments(matchingContainers(gateway, filter).map(({ fragment }) => fragment));
}
