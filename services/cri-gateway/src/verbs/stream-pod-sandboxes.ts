// StreamPodSandboxes: what ListPodSandbox answers, in messages of bounded size (KEP-5825).

import type { StreamPodSandboxesRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';
import { inMessages } from '../view/chunks.ts';
import { matchingSandboxes } from './filters.ts';

export function streamPodSandboxes(
  gateway: Gateway,
): StreamVerb<StreamPodSandboxesRequest, Buffer> {
  return ({ filter }) =>
    inMessages(() => matchingSandboxes(gateway, filter).map(({ fragment }) => fragment));
}
