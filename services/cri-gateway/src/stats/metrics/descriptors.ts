// Every metric that ListPodSandboxMetrics may answer: cAdvisor's names with cAdvisor's labels.

import { MetricDescriptor } from '@cribus/contracts/gen/cri/v1/api.ts';
import { CPU_FAMILIES } from './cpu-families.ts';
import type { Family } from './family.ts';
import { FILESYSTEM_FAMILIES } from './filesystem-families.ts';
import { MEMORY_FAMILIES } from './memory-families.ts';
import { NETWORK_FAMILIES } from './network-families.ts';
import { PRESSURE_FAMILIES } from './pressure-families.ts';
import { PROCESS_FAMILIES } from './process-families.ts';

/** Those that the kubelet puts on each of cAdvisor's metrics, in the order in which it shows them. */
export const COMMON_LABELS = ['container', 'id', 'image', 'name', 'namespace', 'pod'] as const;

export const FAMILIES: readonly Family[] = [
  ...PROCESS_FAMILIES,
  ...CPU_FAMILIES,
  ...PRESSURE_FAMILIES,
  ...MEMORY_FAMILIES,
  ...FILESYSTEM_FAMILIES,
  ...NETWORK_FAMILIES,
];

/** They never change: the kubelet reads them once. */
export function metricDescriptors(): MetricDescriptor[] {
  return FAMILIES.map(({ name, help, labels }) =>
    MetricDescriptor.fromPartial({ name, help, labelKeys: [...COMMON_LABELS, ...labels] }),
  );
}
