// StreamContainers: what ListContainers answers, in messages of bounded size (KEP-5825).

import type { StreamContainersRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';
import { inMessages } from '../view/chunks.ts';
import { matchingContainers } from './filters.ts';

export function streamContainers(gateway: Gateway): StreamVerb<StreamContainersRequest, Buffer> {
  return ({ filter }) =>
    inMessages(() => matchingContainers(gateway, filter).map(({ fragment }) => fragment));
}
