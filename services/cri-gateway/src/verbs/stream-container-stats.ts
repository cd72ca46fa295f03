// StreamContainerStats: what ListContainerStats answers, in messages of bounded size (KEP-5825).

import {
  ContainerStats,
  type StreamContainerStatsRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';
import { containerStatsOf } from '../stats/stats-lists.ts';
import { asFragments, inMessages } from '../view/chunks.ts';

export function streamContainerStats(
  gateway: Gateway,
): StreamVerb<StreamContainerStatsRequest, Buffer> {
  return ({ filter }, { signal }) =>
    inMessages(async () =>
      asFragments(await containerStatsOf(gateway, filter, signal), ContainerStats),
    );
}
