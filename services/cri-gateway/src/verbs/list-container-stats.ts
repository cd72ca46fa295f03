// ListContainerStats: what all containers use, from the last samples; a worker that is away costs only
// its own containers their figures.

import {
  type ListContainerStatsRequest,
  ListContainerStatsResponse,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { containerStatsOf } from '../stats/stats-lists.ts';

export function listContainerStats(
  gateway: Gateway,
): Verb<ListContainerStatsRequest, ListContainerStatsResponse> {
  return async ({ filter }, call) => {
    const stats = await containerStatsOf(gateway, filter, call.signal);
    return ListContainerStatsResponse.fromPartial({ stats });
  };
}
