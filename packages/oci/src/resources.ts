// The limits of a container's cgroup and its place in the out-of-memory killer's order.

import type { LinuxContainerResources } from '@cribus/contracts/gen/cri/v1/api.ts';
import { type Invalid, quoted } from './invalid-field.ts';
import type { SpecDeviceRule, SpecResources } from './spec.ts';
import type { HostFacts } from './spec-input.ts';

/**
 * Below this an engine's own start-up doesn't fit into the container's cgroup (moby: 4 to 6 MiB).
 */
const MEMORY_MIN_BYTES = 4 * 1024 * 1024;

/** A file of a controller, in no other directory (runtime-spec, config-linux.md, unified). */
const UNIFIED_NAME = /^[a-z]+(\.[A-Za-z0-9_]+)+$/;

const PIDS_MAX = 'pids.max';

/** The range of oom_score_adj (proc(5)). */
const OOM_SCORE_ADJ_MIN = -1000;
const OOM_SCORE_ADJ_MAX = 1000;

export interface ResourcesInput {
  readonly resources: LinuxContainerResources | undefined;
  readonly host: HostFacts;
}

export interface BuiltResources {
  readonly resources: Omit<SpecResources, 'devices'>;
  readonly notes: readonly string[];
}

/** The limits without the devices; 0 means unspecified (api.proto, LinuxContainerResources). */
export function buildResources(input: ResourcesInput, invalid: Invalid): BuiltResources {
  const asked = input.resources;
  if (asked === undefined) return { resources: {}, notes: [] };
  const notes: string[] = [];
  const memory = memoryOf(asked, input.host, invalid);
  if (asked.memorySwapLimitInBytes !== 0n && input.host.swapAccounting === false) {
    notes.push('the swap limit is left out: this host does not account swap');
  }
  const cpu = cpuOf(asked, invalid);
  const unified = Object.keys(asked.unified).length > 0 ? asked.unified : undefined;
  const pids = input.host.cgroupVersion === 'v1' ? pidsOf(asked, invalid) : undefined;
  const without = Object.keys(asked.unified).filter((name) => name !== PIDS_MAX);
  if (without.length > 0 && input.host.cgroupVersion === 'v1') {
    notes.push(
      `the unified settings are left out: this host has cgroup v1 (${without.join(', ')})`,
    );
  }
  for (const name of Object.keys(asked.unified)) {
    if (UNIFIED_NAME.test(name)) continue;
    throw invalid('unified', `${quoted(name)} is not the name of a control file like memory.high`);
  }
  const huge = asked.hugepageLimits.map(({ pageSize, limit }) => {
    if (/^\d+[KMGT]?B$/.test(pageSize)) return { pageSize, limit: toNumber(limit) };
    throw invalid('hugepage_limits', `${quoted(pageSize)} is not a page size like 2MB`);
  });
  if (input.host.hugetlb !== true && huge.some(({ limit }) => limit > 0)) {
    notes.push('the huge page limits are left out: this host has no hugetlb controller');
  }
  return {
    resources: {
      ...(memory === undefined ? {} : { memory }),
      ...(cpu === undefined ? {} : { cpu }),
      ...(huge.length > 0 && input.host.hugetlb === true ? { hugepageLimits: huge } : {}),
      ...(pids === undefined ? {} : { pids }),
      ...(unified !== undefined && input.host.cgroupVersion === 'v2' ? { unified } : {}),
    },
    notes,
  };
}

/** The limits together with the device rules. */
export function withDevices(
  resources: Omit<SpecResources, 'devices'>,
  devices: readonly SpecDeviceRule[],
): SpecResources {
  return { devices, ...resources };
}

function memoryOf(asked: LinuxContainerResources, host: HostFacts, invalid: Invalid) {
  const limit = asked.memoryLimitInBytes;
  const swap = asked.memorySwapLimitInBytes;
  const least = host.memoryMinBytes ?? MEMORY_MIN_BYTES;
  if (limit < -1n) throw invalid('memory_limit_in_bytes', `${limit} is negative`);
  if (swap < -1n) throw invalid('memory_swap_limit_in_bytes', `${swap} is negative`);
  if (limit > 0n && limit < least) {
    throw invalid('memory_limit_in_bytes', `${limit} is less than the ${least} bytes to start in`);
  }
  if (swap > 0n && limit > 0n && swap < limit) {
    throw invalid('memory_swap_limit_in_bytes', `${swap} is less than the memory limit ${limit}`);
  }
  if (swap > 0n && limit === 0n) {
    throw invalid('memory_swap_limit_in_bytes', 'a swap limit needs memory_limit_in_bytes');
  }
  if (limit === 0n) return undefined;
  // Without a swap limit of its own a container must not get round its memory limit by swapping.
  const both = swap === 0n ? limit : swap;
  return {
    limit: toNumber(limit),
    ...(host.swapAccounting === false ? {} : { swap: toNumber(both) }),
  };
}

/** The one unified setting that cgroup v1 has under the same name; CRI has no field of its own. */
function pidsOf(asked: LinuxContainerResources, invalid: Invalid) {
  const most = asked.unified[PIDS_MAX];
  if (most === undefined) return undefined;
  if (most === 'max') return { limit: -1 };
  if (!/^\d{1,15}$/.test(most)) throw invalid('unified', `${PIDS_MAX} is ${quoted(most)}`);
  return { limit: Number(most) };
}

function cpuOf(asked: LinuxContainerResources, invalid: Invalid) {
  for (const [field, value] of [
    ['cpu_shares', asked.cpuShares],
    ['cpu_period', asked.cpuPeriod],
  ] as const) {
    if (value < 0n) throw invalid(field, `${value} is negative`);
  }
  for (const [field, list] of [
    ['cpuset_cpus', asked.cpusetCpus],
    ['cpuset_mems', asked.cpusetMems],
  ] as const) {
    if (!/^(?:\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)?$/.test(list)) {
      throw invalid(field, `${quoted(list)} is not a list like 0-3,7`);
    }
  }
  const cpu = {
    ...(asked.cpuShares === 0n ? {} : { shares: toNumber(asked.cpuShares) }),
    ...(asked.cpuQuota === 0n ? {} : { quota: toNumber(asked.cpuQuota) }),
    ...(asked.cpuPeriod === 0n ? {} : { period: toNumber(asked.cpuPeriod) }),
    ...(asked.cpusetCpus === '' ? {} : { cpus: asked.cpusetCpus }),
    ...(asked.cpusetMems === '' ? {} : { mems: asked.cpusetMems }),
  };
  return Object.keys(cpu).length === 0 ? undefined : cpu;
}

/**
 * JSON's numbers are exact to 2^53: a limit above that is more memory than any machine has, and is
 * lowered to the page below, where the engine still reads it as an integer.
 */
function toNumber(value: bigint): number {
  const most = BigInt(Number.MAX_SAFE_INTEGER) & ~0xfffn;
  return Number(value > most ? most : value < -most ? -most : value);
}

/** Cut to the kernel's range, and raised to what we may set without CAP_SYS_RESOURCE. */
export function oomScoreAdj(asked: bigint | number, host: HostFacts) {
  const inRange = Math.max(OOM_SCORE_ADJ_MIN, Math.min(OOM_SCORE_ADJ_MAX, Number(asked)));
  const score = Math.max(inRange, host.oomScoreAdjFloor);
  const notes =
    score === inRange
      ? []
      : [`oom_score_adj ${inRange} is raised to ${score}, the lowest that this host lets us set`];
  return { score, notes };
}
