// A sample of a sandbox as CRI shows it: of the pod's cgroup, or the sum of its containers where it has
// none, and of its network.

import { PodSandboxStats } from '@cribus/contracts/gen/cri/v1/api.ts';
import type {
  CgroupUsage,
  ContainerRecord,
  InterfaceUsage,
  NetworkFigures,
  SandboxRecord,
} from '@cribus/contracts/gen/node/v1/records.ts';
import { cpuUsage, ioUsage, memoryUsage, toContainerStats } from './container-stats.ts';
import { type ContainerSample, nanoCores, type SandboxSample } from './samples.ts';

export interface SandboxParts {
  readonly record: SandboxRecord;
  readonly sample: SandboxSample | undefined;
  /** Those that are shown, and the sandbox's own process, which only counts. */
  readonly containers: readonly {
    readonly record: ContainerRecord;
    readonly sample: ContainerSample | undefined;
  }[];
  readonly mountpoint: string;
}

export function toPodSandboxStats(parts: SandboxParts): PodSandboxStats {
  const { record, sample, containers, mountpoint } = parts;
  const { metadata, labels = {}, annotations = {} } = record.config ?? {};
  const listed = containers.filter((one) => !one.record.sandboxProcess);
  const whole = wholeUsage(parts);
  const io = whole === undefined ? undefined : ioUsage(whole.usage);
  const network = sample?.latest.network;
  return PodSandboxStats.fromPartial({
    attributes: {
      id: record.id,
      ...(metadata === undefined ? {} : { metadata }),
      labels,
      annotations,
    },
    linux: {
      ...(whole === undefined
        ? {}
        : {
            cpu: cpuUsage(whole.usage, whole.rate),
            memory: memoryUsage(whole.usage),
            ...processes(whole.usage),
          }),
      ...(io === undefined ? {} : { io }),
      ...(network === undefined ? {} : networkUsage(network, record.network?.interface ?? '')),
      containers: listed.map((one) => toContainerStats(one.record, one.sample, mountpoint)),
    },
  });
}

function processes({ processCount, sampledAtNs }: CgroupUsage) {
  if (processCount === undefined) return {};
  return { process: { timestamp: sampledAtNs, processCount: { value: processCount } } };
}

/** Never without a default interface: the kubelet reads its name unasked. */
function networkUsage({ sampledAtNs, interfaces }: NetworkFigures, defaultName: string) {
  const listed = interfaces.map(interfaceUsage);
  const first = listed.find(({ name }) => name === defaultName) ?? listed[0];
  if (first === undefined) return {};
  return { network: { timestamp: sampledAtNs, defaultInterface: first, interfaces: listed } };
}

function interfaceUsage({ name, rxBytes, rxErrors, txBytes, txErrors }: InterfaceUsage) {
  return {
    name,
    rxBytes: { value: rxBytes },
    rxErrors: { value: rxErrors },
    txBytes: { value: txBytes },
    txErrors: { value: txErrors },
  };
}

interface Whole {
  readonly usage: CgroupUsage;
  readonly rate: bigint | undefined;
}

/** Of the pod's own cgroup; else the sum of what runs in it. Undefined when neither is known. */
function wholeUsage({ sample, containers }: SandboxParts): Whole | undefined {
  if (sample?.latest.cgroup !== undefined) {
    return { usage: sample.latest.cgroup, rate: nanoCores(sample) };
  }
  const own = containers.find((one) => one.record.sandboxProcess)?.sample?.latest.cgroup;
  // What a Sentry uses includes its containers.
  const counted = containers.filter(
    ({ sample }) => own === undefined || sample?.latest.insideSandboxProcess !== true,
  );
  const usages = counted.flatMap((one) => one.sample?.latest.cgroup ?? []);
  if (usages.length === 0) return undefined;
  const rates = counted.flatMap((one) =>
    one.sample === undefined ? [] : (nanoCores(one.sample) ?? []),
  );
  return {
    usage: sumOf(usages),
    rate: rates.length < usages.length ? undefined : rates.reduce((sum, rate) => sum + rate, 0n),
  };
}

function sumOf(usages: readonly CgroupUsage[]): CgroupUsage {
  const total = (pick: (usage: CgroupUsage) => bigint | undefined): bigint | undefined => {
    const known = usages.map(pick).filter((value) => value !== undefined);
    return known.length === 0 ? undefined : known.reduce((sum, value) => sum + value, 0n);
  };
  // Of the oldest reading: none of what is summed is older than it says.
  const [sampledAtNs = 0n] = usages
    .map((usage) => usage.sampledAtNs)
    .toSorted((a, b) => (a < b ? -1 : 1));
  return {
    sampledAtNs,
    cpuNs: total((usage) => usage.cpuNs),
    memoryUsageBytes: total((usage) => usage.memoryUsageBytes),
    memoryWorkingSetBytes: total((usage) => usage.memoryWorkingSetBytes),
    memoryRssBytes: total((usage) => usage.memoryRssBytes),
    pageFaults: total((usage) => usage.pageFaults),
    majorPageFaults: total((usage) => usage.majorPageFaults),
    swapUsageBytes: total((usage) => usage.swapUsageBytes),
    processCount: total((usage) => usage.processCount),
    // Limits and pressures of several don't add up.
    memoryLimitBytes: undefined,
    swapLimitBytes: undefined,
    cpuPressure: undefined,
    memoryPressure: undefined,
    ioPressure: undefined,
    details: undefined,
  };
}
