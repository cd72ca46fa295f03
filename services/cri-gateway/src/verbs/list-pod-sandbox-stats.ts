// ListPodSandboxStats: what all READY pods use, from the last samples.

import {
  type ListPodSandboxStatsRequest,
  ListPodSandboxStatsResponse,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { sandboxStatsOf } from '../stats/stats-lists.ts';

export function listPodSandboxStats(
  gateway: Gateway,
): Verb<ListPodSandboxStatsRequest, ListPodSandboxStatsResponse> {
  return async ({ filter }, call) => {
    const stats = await sandboxStatsOf(gateway, filter, call.signal);
    return ListPodSandboxStatsResponse.fromPartial({ stats });
  };
}
