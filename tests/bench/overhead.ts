// What a pod costs beyond its containers, as overhead.podFixed of a RuntimeClass counts it: memory and
// processor time in the pod's cgroup less what is in its containers' own. A Sentry has all containers in
// it, so with sleeping ones nearly all of its pod is overhead.

import { setTimeout as sleep } from 'node:timers/promises';
import {
  ContainerConfig,
  CreateContainerRequest,
  PodSandboxConfig,
  RunPodSandboxRequest,
  StartContainerRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { type CgroupHost, detectCgroups } from '@cribus/host/cgroups.ts';
import { pull } from '../e2e/harness/pods.ts';
import { type Stack, startStack } from '../e2e/harness/stack.ts';
import { monitorsBelow } from './cribus.ts';
import { proportionalMegabytes } from './memory.ts';
import { removeAll } from './pods.ts';
import { Samples } from './table.ts';

const HANDLERS = ['runc', 'crun', 'gvisor'] as const;
/** A pod of one container, and one with two more: what each adds. */
const CONTAINERS = [1, 3] as const;
const PODS = 4;
/** What starting used has gone by then. */
const SETTLE_MS = 5_000;
const REST_MS = 10_000;
const MIB = 1024 * 1024;

interface OverheadPod {
  readonly cgroup: string;
  readonly containers: readonly string[];
}

/** Rows of what is measured, a column for each handler. Everything that was made is gone afterwards. */
export async function measureOverhead(options: {
  readonly image: string;
  /** There already, as a kubelet would have made it. */
  readonly cgroupParent: string;
  readonly say: (line: string) => void;
}): Promise<{ readonly samples: Samples; readonly columns: readonly string[] }> {
  const samples = new Samples();
  const cgroups = detectCgroups();
  const stack = await startStack();
  try {
    await pull(stack.cri, options.image);
    for (const count of CONTAINERS) {
      for (const handler of HANDLERS) {
        options.say(`${PODS} pods of ${handler}, containers each: ${count}.`);
        const made = { stack, cgroups, handler, count, ...options };
        await measureHandler(made, samples);
        await removeAll({ name: handler, cri: stack.cri, ...options, ...NO_SUBJECT });
      }
    }
  } finally {
    await stack.destroy();
  }
  return { samples, columns: HANDLERS };
}

const NO_SUBJECT = { processes: async () => [], stop: async () => undefined };

interface Made {
  readonly stack: Stack;
  readonly cgroups: CgroupHost;
  readonly handler: string;
  readonly count: number;
  readonly image: string;
  readonly cgroupParent: string;
}

async function measureHandler(made: Made, samples: Samples): Promise<void> {
  const { stack, cgroups, handler, count } = made;
  const pods: OverheadPod[] = [];
  for (let pod = 0; pod < PODS; pod += 1) pods.push(await startOverheadPod(made, pod));
  await sleep(SETTLE_MS);
  const before = pods.map((pod) => overheadOf(cgroups, pod));
  const beforeMs = performance.now();
  await sleep(REST_MS);
  const tookMs = performance.now() - beforeMs;
  const of = count === 1 ? '1 container' : `${count} containers`;
  for (const [index, pod] of pods.entries()) {
    const after = overheadOf(cgroups, pod);
    const usedNs = after.cpuNs - (before[index]?.cpuNs ?? 0n);
    samples.add(`${of}: memory at rest: MiB`, handler, after.memoryMib);
    samples.add(`${of}: memory at most: MiB`, handler, after.peakMib);
    samples.add(`${of}: processor: millicores`, handler, Number(usedNs) / 1e3 / tookMs);
  }
  const monitors = proportionalMegabytes(monitorsBelow(stack.root)) / PODS;
  samples.add(`${of}: monitors, outside: MiB`, handler, monitors);
}

/** As a kubelet asks for it: each container has processes of its own. */
async function startOverheadPod(made: Made, index: number): Promise<OverheadPod> {
  const { stack, cgroups, handler, count, image } = made;
  const name = `overhead-${handler}-${count}-${index}`;
  const cgroup = `${made.cgroupParent}/${name}`;
  cgroups.create(cgroup);
  const sandboxConfig = PodSandboxConfig.fromPartial({
    metadata: { name, uid: name, namespace: 'bench', attempt: 0 },
    linux: { cgroupParent: cgroup, securityContext: { namespaceOptions: { pid: 1 } } },
  });
  const run = RunPodSandboxRequest.fromPartial({ config: sandboxConfig, runtimeHandler: handler });
  const { podSandboxId } = await stack.cri.call('runPodSandbox', run);
  const containers: string[] = [];
  for (let container = 0; container < count; container += 1) {
    const config = ContainerConfig.fromPartial({
      metadata: { name: `c${container}`, attempt: 0 },
      image: { image },
      command: ['/bin/sleep', '1000000'],
      linux: {},
    });
    const create = CreateContainerRequest.fromPartial({ podSandboxId, config, sandboxConfig });
    const { containerId } = await stack.cri.call('createContainer', create);
    await stack.cri.call('startContainer', StartContainerRequest.fromPartial({ containerId }));
    containers.push(containerId);
  }
  return { cgroup, containers };
}

/** Memory as the kubelet looks at it (the working set), and the peak with everything that was cached. */
function overheadOf(cgroups: CgroupHost, { cgroup, containers }: OverheadPod) {
  const [pod, ...own] = [cgroup, ...containers.map((id) => `${cgroup}/${id}`)].map((path) =>
    cgroups.usage(path, { details: true }),
  );
  const less = (whole: bigint | undefined, parts: readonly (bigint | undefined)[]) =>
    parts.reduce<bigint>((rest, part) => rest - (part ?? 0n), whole ?? 0n);
  const working = less(
    pod?.memoryWorkingSetBytes,
    own.map((usage) => usage.memoryWorkingSetBytes),
  );
  const peak = less(
    pod?.details?.memoryMaxUsageBytes,
    own.map((usage) => usage.details?.memoryMaxUsageBytes),
  );
  return {
    memoryMib: Number(working) / MIB,
    // Below 0 where pod and container were not at their most at the same time.
    peakMib: Math.max(0, Number(peak) / MIB),
    cpuNs: less(
      pod?.cpuNs,
      own.map((usage) => usage.cpuNs),
    ),
  };
}
