// ListPodSandboxMetrics: cAdvisor's metrics of every READY pod and its running containers.

import { Failure } from '@cribus/contracts/failure.ts';
import {
  type ListPodSandboxMetricsRequest,
  PodSandboxMetrics,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { MESSAGE_BYTES_MAX } from '@cribus/contracts/subjects.ts';
import type { Gateway, Verb } from '../gateway.ts';
import { podMetricsOf } from '../stats/metrics/metrics-list.ts';
import { encodeFragment, joinFragments } from '../view/fragments.ts';

/** Raises limit when the answer would be larger than callers take; the streamed one has no such end. */
export function listPodSandboxMetrics(
  gateway: Gateway,
): Verb<ListPodSandboxMetricsRequest, Buffer> {
  return async (_request, call) => {
    const fragments: Buffer[] = [];
    let bytes = 0;
    for await (const metrics of podMetricsOf(gateway, call.signal)) {
      const fragment = encodeFragment(PodSandboxMetrics.encode(metrics).finish());
      fragments.push(fragment);
      bytes += fragment.length;
      if (bytes <= MESSAGE_BYTES_MAX) continue;
      throw new Failure(
        'limit',
        `the metrics of this node need more than ${MESSAGE_BYTES_MAX} bytes; ask StreamPodSandboxMetrics`,
      );
    }
    return joinFragments(fragments);
  };
}
