// A sample of a container as CRI shows it. What is not known is absent, never zero.

import {
  ContainerStats,
  CpuUsage,
  IoUsage,
  MemoryUsage,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import {
  type CgroupUsage,
  ContainerPhase,
  type ContainerRecord,
  type LayerUsage,
  type Pressure,
  type PressureStall,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { type ContainerSample, nanoCores, type Sample } from './samples.ts';

/** `mountpoint` is of the filesystem that holds the writable layers, as ImageFsInfo names it. */
export function toContainerStats(
  record: ContainerRecord,
  sample: ContainerSample | undefined,
  mountpoint: string,
): ContainerStats {
  const { metadata, labels = {}, annotations = {} } = record.config ?? {};
  const usage = sample?.latest;
  // The sample of one that has just ended is old news.
  const runs = record.phase === ContainerPhase.RUNNING;
  const cgroup = runs ? usage?.cgroup : undefined;
  return ContainerStats.fromPartial({
    attributes: {
      id: record.id,
      ...(metadata === undefined ? {} : { metadata }),
      labels,
      annotations,
    },
    ...(sample === undefined || cgroup === undefined ? {} : figures(sample, cgroup)),
    ...(usage?.writableLayer === undefined
      ? {}
      : { writableLayer: writableLayer(usage.writableLayer, mountpoint) }),
  });
}

function figures(sample: Sample<{ cgroup?: CgroupUsage | undefined }>, cgroup: CgroupUsage) {
  const io = ioUsage(cgroup);
  const swap = swapUsage(cgroup);
  return {
    cpu: cpuUsage(cgroup, nanoCores(sample)),
    memory: memoryUsage(cgroup),
    ...(swap === undefined ? {} : { swap }),
    ...(io === undefined ? {} : { io }),
  };
}

function writableLayer(layer: LayerUsage, mountpoint: string) {
  return {
    timestamp: layer.sampledAtNs,
    fsId: { mountpoint },
    usedBytes: { value: layer.usedBytes },
    inodesUsed: { value: layer.inodesUsed },
  };
}

export function cpuUsage(cgroup: CgroupUsage, rate: bigint | undefined): CpuUsage {
  return CpuUsage.fromPartial({
    timestamp: cgroup.sampledAtNs,
    ...wrapped('usageCoreNanoSeconds', cgroup.cpuNs),
    ...wrapped('usageNanoCores', rate),
    ...pressure(cgroup.cpuPressure),
  });
}

export function memoryUsage(cgroup: CgroupUsage): MemoryUsage {
  const { memoryLimitBytes: limit, memoryWorkingSetBytes: workingSet } = cgroup;
  return MemoryUsage.fromPartial({
    timestamp: cgroup.sampledAtNs,
    ...wrapped('workingSetBytes', workingSet),
    // Without a limit there is no such number (as the kubelet has it).
    ...wrapped(
      'availableBytes',
      limit === undefined || workingSet === undefined ? undefined : less(limit, workingSet),
    ),
    ...wrapped('usageBytes', cgroup.memoryUsageBytes),
    ...wrapped('rssBytes', cgroup.memoryRssBytes),
    ...wrapped('pageFaults', cgroup.pageFaults),
    ...wrapped('majorPageFaults', cgroup.majorPageFaults),
    ...pressure(cgroup.memoryPressure),
  });
}

function swapUsage(cgroup: CgroupUsage) {
  const { swapUsageBytes: used, swapLimitBytes: limit } = cgroup;
  if (used === undefined) return undefined;
  return {
    timestamp: cgroup.sampledAtNs,
    ...wrapped('swapAvailableBytes', limit === undefined ? undefined : less(limit, used)),
    ...wrapped('swapUsageBytes', used),
  };
}

/** CRI shows only the pressure of I/O; undefined where the kernel does not account it. */
export function ioUsage(cgroup: CgroupUsage): IoUsage | undefined {
  if (cgroup.ioPressure === undefined) return undefined;
  return IoUsage.fromPartial({
    timestamp: cgroup.sampledAtNs,
    ...pressure(cgroup.ioPressure),
  });
}

function less(limit: bigint, used: bigint): bigint {
  return limit > used ? limit - used : 0n;
}

function wrapped<K extends string>(key: K, value: bigint | undefined) {
  return (value === undefined ? {} : { [key]: { value } }) as { [P in K]?: { value: bigint } };
}

function pressure(of: Pressure | undefined) {
  if (of === undefined) return {};
  return {
    psi: {
      ...(of.full === undefined ? {} : { Full: psiData(of.full) }),
      ...(of.some === undefined ? {} : { Some: psiData(of.some) }),
    },
  };
}

/** The kernel counts microseconds, CRI nanoseconds (api.proto, PsiData). */
function psiData({ totalUs, avg10, avg60, avg300 }: PressureStall) {
  return { Total: totalUs * 1000n, Avg10: avg10, Avg60: avg60, Avg300: avg300 };
}
