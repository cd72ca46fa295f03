// StreamPodSandboxStats: what ListPodSandboxStats answers, in messages of bounded size (KEP-5825).

import {
  PodSandboxStats,
  type StreamPodSandboxStatsRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';
import { sandboxStatsOf } from '../stats/stats-lists.ts';
import { asFragments, inMessages } from '../view/chunks.ts';

export function streamPodSandboxStats(
  gateway: Gateway,
): StreamVerb<StreamPodSandboxStatsRequest, Buffer> {
  return ({ filter }, { signal }) =>
    inMessages(async () =>
      asFragments(await sandboxStatsOf(gateway, filter, signal), PodSandboxStats),
    );
}
