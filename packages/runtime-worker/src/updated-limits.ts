// Which limits of its cgroup an update of a container's resources changes, and to what.

import type { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';
import type { CgroupLimits } from '@cribus/host/cgroup-limits.ts';
import type { SpecResources } from '@cribus/oci/spec.ts';

/**
 * `built` is made of the former resources and the update together. Only what the update names is
 * changed; of the rest somebody else may have made something better.
 */
export function updatedLimits(
  update: LinuxContainerResources,
  from: {
    readonly built: Omit<SpecResources, 'devices'>;
    readonly former: LinuxContainerResources | undefined;
  },
): CgroupLimits {
  const { memory, cpu } = from.built;
  const memoryNamed = update.memoryLimitInBytes !== 0n || update.memorySwapLimitInBytes !== 0n;
  const named = (asked: bigint, value: number | undefined) =>
    asked === 0n || value === undefined ? undefined : BigInt(value);
  const sharesBefore = from.former?.cpuShares ?? 0n;
  const pages = update.hugepageLimits.map(({ pageSize }) => pageSize);
  const unified = Object.keys(update.unified);
  // A setting by that name stands above the fields, as it did when the container was made.
  const swapNamed = from.built.unified?.['memory.swap.max'] !== undefined;
  const both = memoryNamed && !swapNamed ? memory?.swap : undefined;
  return withoutUndefined<CgroupLimits>({
    cpuShares: named(update.cpuShares, cpu?.shares),
    cpuSharesBefore: sharesBefore === 0n ? undefined : sharesBefore,
    cpuQuotaUs: named(update.cpuQuota, cpu?.quota),
    cpuPeriodUs: named(update.cpuPeriod, cpu?.period),
    cpus: update.cpusetCpus || undefined,
    mems: update.cpusetMems || undefined,
    memoryBytes: memoryNamed && memory?.limit !== undefined ? BigInt(memory.limit) : undefined,
    memoryAndSwapBytes: both === undefined ? undefined : BigInt(both),
    hugePages: from.built.hugepageLimits
      ?.filter(({ pageSize }) => pages.includes(pageSize))
      .map(({ pageSize, limit }) => ({ pageSize, limitBytes: BigInt(limit) })),
    pids:
      from.built.pids === undefined || !unified.includes('pids.max')
        ? undefined
        : BigInt(from.built.pids.limit),
    unified:
      from.built.unified === undefined
        ? undefined
        : Object.fromEntries(
            Object.entries(from.built.unified).filter(([name]) => unified.includes(name)),
          ),
  });
}

function withoutUndefined<T extends object>(values: { [K in keyof T]: T[K] | undefined }): T {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as T;
}
