// Which objects a filter means, for the plain and the streamed lists of objects and of statistics.

import type {
  ContainerFilter,
  ContainerStatsFilter,
  PodSandboxFilter,
  PodSandboxStatsFilter,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import type { ContainerRecord, SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import type { Gateway } from '../gateway.ts';
import { containerState } from '../view/cri-container.ts';
import { sandboxState } from '../view/cri-sandbox.ts';
import type { Found, Listed } from '../view/node-view.ts';

/** All without a filter. Raises unavailable until the view is complete. */
export function matchingSandboxes(
  gateway: Gateway,
  filter: PodSandboxFilter | PodSandboxStatsFilter | undefined,
): Listed<SandboxRecord>[] {
  gateway.feed.requirePrimed();
  const listed = gateway.view.sandboxes();
  if (filter === undefined) return listed;
  const id = filterId(filter.id, gateway.view.findSandbox);
  const state = 'state' in filter ? filter.state?.state : undefined;
  return listed.filter(
    ({ record }) =>
      (id === '' || record.id === id) &&
      (state === undefined || sandboxState(record) === state) &&
      matchesLabels(record.config?.labels, filter.labelSelector),
  );
}

/** As matchingSandboxes. */
export function matchingContainers(
  gateway: Gateway,
  filter: ContainerFilter | ContainerStatsFilter | undefined,
): Listed<ContainerRecord>[] {
  gateway.feed.requirePrimed();
  const listed = gateway.view.containers();
  if (filter === undefined) return listed;
  const id = filterId(filter.id, gateway.view.findContainer);
  const sandboxId = filterId(filter.podSandboxId, gateway.view.findSandbox);
  const state = 'state' in filter ? filter.state?.state : undefined;
  return listed.filter(
    ({ record }) =>
      (id === '' || record.id === id) &&
      (sandboxId === '' || record.sandboxId === sandboxId) &&
      (state === undefined || containerState(record) === state) &&
      matchesLabels(record.config?.labels, filter.labelSelector),
  );
}

/** A unique beginning stands for its id, anything else for itself. */
function filterId(id: string, found: (id: string) => Found<{ readonly id: string }>): string {
  return id === '' ? '' : (found(id).record?.id ?? id);
}

/** True when every wanted label is there with its value. */
function matchesLabels(
  labels: Readonly<Record<string, string>> | undefined,
  wanted: Readonly<Record<string, string>>,
): boolean {
  return Object.entries(wanted).every(([key, value]) => labels?.[key] === value);
}
