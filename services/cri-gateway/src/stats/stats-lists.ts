// Which objects a statistics request means, and what is known of them: for the plain and for the
// streamed lists.

import { join } from 'node:path';
import type {
  ContainerStats,
  ContainerStatsFilter,
  PodSandboxStats,
  PodSandboxStatsFilter,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { PodSandboxState } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { SandboxRecord } from '@cribus/contracts/gen/node/v1/records.ts';
import { stackPaths } from '@cribus/contracts/paths.ts';
import { isSameFilesystem } from '@cribus/host/files.ts';
import type { Gateway } from '../gateway.ts';
import { matchingContainers, matchingSandboxes } from '../verbs/filters.ts';
import { isContainerShown } from '../view/cri-container.ts';
import { sandboxState } from '../view/cri-sandbox.ts';
import { toContainerStats } from './container-stats.ts';
import { toPodSandboxStats } from './sandbox-stats.ts';

/** Where the writable layers are, as ImageFsInfo says: with the images unless something is mounted. */
export function layersMountpoint(gateway: Gateway): string {
  const known = mountpoints.get(gateway);
  if (known !== undefined) return known;
  const { images } = stackPaths(gateway.config.roots);
  const handlers = join(gateway.config.roots.state, 'handlers');
  const mountpoint = isSameFilesystem(images, handlers) ? images : handlers;
  mountpoints.set(gateway, mountpoint);
  return mountpoint;
}

/** Asked of the host once: mounts of a stack's directories are there before it. */
const mountpoints = new WeakMap<Gateway, string>();

/**
 * The statistics of all containers that match; one that doesn't run has its writable layer only, and
 * one whose worker is away neither. Raises unavailable until the view is complete.
 */
export async function containerStatsOf(
  gateway: Gateway,
  filter: ContainerStatsFilter | undefined,
  signal: AbortSignal,
): Promise<ContainerStats[]> {
  gateway.feed.requirePrimed();
  await gateway.statistics.recent({ details: false, signal });
  const mountpoint = layersMountpoint(gateway);
  return matchingContainers(gateway, filter).map(({ record }) =>
    toContainerStats(record, gateway.statistics.container(record), mountpoint),
  );
}

/** The statistics of all READY sandboxes that match. Raises unavailable until the view is complete. */
export async function sandboxStatsOf(
  gateway: Gateway,
  filter: PodSandboxStatsFilter | undefined,
  signal: AbortSignal,
): Promise<PodSandboxStats[]> {
  gateway.feed.requirePrimed();
  await gateway.statistics.recent({ details: false, signal });
  return matchingSandboxes(gateway, filter)
    .filter(({ record }) => sandboxState(record) === PodSandboxState.SANDBOX_READY)
    .map(({ record }) => statsOfSandbox(gateway, record));
}

/** What is known of one sandbox now. */
export function statsOfSandbox(gateway: Gateway, record: SandboxRecord): PodSandboxStats {
  const containers = gateway.view
    .containersOf(record.id)
    .filter((one) => one.sandboxProcess || isContainerShown(one))
    .map((one) => ({ record: one, sample: gateway.statistics.container(one) }));
  const sample = gateway.statistics.sandbox(record.id);
  return toPodSandboxStats({ record, sample, containers, mountpoint: layersMountpoint(gateway) });
}
