// StreamPodSandboxMetrics: what ListPodSandboxMetrics answers, in messages of bounded size (KEP-5825).

import {
  PodSandboxMetrics,
  type StreamPodSandboxMetricsRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Gateway, StreamVerb } from '../gateway.ts';
import { podMetricsOf } from '../stats/metrics/metrics-list.ts';
import { asFragments, inMessages } from '../view/chunks.ts';

export function streamPodSandboxMetrics(
  gateway: Gateway,
): StreamVerb<StreamPodSandboxMetricsRequest, Buffer> {
  return (_request, { signal }) =>
    inMessages(() => asFragments(podMetricsOf(gateway, signal), PodSandboxMetrics));
}
