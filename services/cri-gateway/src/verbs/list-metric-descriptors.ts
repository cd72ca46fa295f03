// ListMetricDescriptors: the names, words and labels of all container metrics; they never change.

import {
  type ListMetricDescriptorsRequest,
  ListMetricDescriptorsResponse,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { Verb } from '../gateway.ts';
import { metricDescriptors } from '../stats/metrics/descriptors.ts';

export function listMetricDescriptors(): Verb<
  ListMetricDescriptorsRequest,
  ListMetricDescriptorsResponse
> {
  return async () =>
    ListMetricDescriptorsResponse.fromPartial({ descriptors: metricDescriptors() });
}
