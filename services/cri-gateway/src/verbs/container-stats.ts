// ContainerStats: what one container uses, from the last sample.

import type { ContainerStatsRequest } from '@cribus/contracts/gen/cri/v1/api.ts';
import { ContainerStatsResponse } from '@cribus/contracts/gen/cri/v1/api.ts';
import { runtimeOwner } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { toContainerStats } from '../stats/container-stats.ts';
import { layersMountpoint } from '../stats/stats-lists.ts';
import { requireContainer } from './lookup.ts';

/** Raises unavailable when the container's worker is away. */
export function containerStats(
  gateway: Gateway,
): Verb<ContainerStatsRequest, ContainerStatsResponse> {
  return async ({ containerId }, call) => {
    const { id, handler } = requireContainer(gateway, containerId);
    gateway.feed.requirePrimed();
    gateway.owners.requireAlive(runtimeOwner(handler));
    await gateway.statistics.recent({ details: false, signal: call.signal });
    const record = requireContainer(gateway, id);
    const sample = gateway.statistics.container(record);
    const stats = toContainerStats(record, sample, layersMountpoint(gateway));
    return ContainerStatsResponse.fromPartial({ stats });
  };
}
