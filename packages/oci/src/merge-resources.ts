// What a container's resources are after an update that names only some of them.

import { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';

/**
 * The resources with those of the update that are not unspecified (0, or empty) in place of the
 * former (api.proto, UpdateContainerResources). A container that could not swap still can't when only
 * its memory limit changes.
 */
export function mergeResources(
  former: LinuxContainerResources | undefined,
  update: LinuxContainerResources,
): LinuxContainerResources {
  const before = former ?? LinuxContainerResources.fromPartial({});
  const memory = update.memoryLimitInBytes || before.memoryLimitInBytes;
  return LinuxContainerResources.fromPartial({
    cpuPeriod: update.cpuPeriod || before.cpuPeriod,
    cpuQuota: update.cpuQuota || before.cpuQuota,
    cpuShares: update.cpuShares || before.cpuShares,
    memoryLimitInBytes: memory,
    oomScoreAdj: update.oomScoreAdj || before.oomScoreAdj,
    cpusetCpus: update.cpusetCpus || before.cpusetCpus,
    cpusetMems: update.cpusetMems || before.cpusetMems,
    hugepageLimits: mergePages(before, update),
    unified: { ...before.unified, ...update.unified },
    memorySwapLimitInBytes: update.memorySwapLimitInBytes || swapAfter(before, memory),
  });
}

function swapAfter(before: LinuxContainerResources, memory: bigint): bigint {
  const { memorySwapLimitInBytes: both, memoryLimitInBytes } = before;
  return both !== 0n && both === memoryLimitInBytes ? memory : both;
}

function mergePages(before: LinuxContainerResources, update: LinuxContainerResources) {
  const pages = new Map(before.hugepageLimits.map((limit) => [limit.pageSize, limit]));
  for (const limit of update.hugepageLimits) pages.set(limit.pageSize, limit);
  return [...pages.values()];
}
