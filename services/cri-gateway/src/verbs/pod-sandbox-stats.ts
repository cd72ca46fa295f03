// PodSandboxStats: what one pod uses, its network, and each of its containers.

import type { PodSandboxStatsRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { PodSandboxStatsResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { statsOfSandbox } from '../stats/stats-lists.ts';
import { requireSandbox } from './lookup.ts';

export function podSandboxStats(
  gateway: Gateway,
): Verb<PodSandboxStatsRequest, PodSandboxStatsResponse> {
  return async ({ podSandboxId }, call) => {
    const { id } = requireSandbox(gateway, podSandboxId);
    gateway.feed.requirePrimed();
    await gateway.statistics.recent({ details: false, signal: call.signal });
    const stats = statsOfSandbox(gateway, requireSandbox(gateway, id));
    return PodSandboxStatsResponse.fromPartial({ stats });
  };
}
