// How a kubelet resizes a running container in place: memory before processor; a pod's cgroup before
// its container where it grows, and after it where it shrinks; the runtime is told of each first
// (kuberuntime_manager.go, doPodResizeAction).

import {
  UpdateContainerResourcesRequest,
  UpdatePodSandboxResourcesRequest,
} from '@cribus/contracts/gen/cri/v1/api.ts';
import { detectCgroups } from '@cribus/host/cgroups.ts';
import { type ContainerManifest, type PodManifest, podCgroup, resourcesOf } from './manifest.ts';
import type { PlayedKubelet } from './played-kubelet.ts';

type Limits = NonNullable<ContainerManifest['limits']>;

/** Of a pod with one container. Raises what the runtime answers, and has then changed no more. */
export async function resizePod(
  kubelet: PlayedKubelet,
  pod: PodManifest,
  { from, to }: { readonly from: Limits; readonly to: Limits },
): Promise<void> {
  const { client, paths } = kubelet;
  const containerId = kubelet.containerOf(pod, pod.containers[0]?.name ?? '').id;
  const podSandboxId = kubelet.statusOf(pod).sandboxes[0]?.id ?? '';
  let ofPod = from;
  const setPod = async (limits: Partial<Limits>) => {
    ofPod = { ...ofPod, ...limits };
    const {
      memoryLimitInBytes = 0n,
      cpuPeriod,
      cpuQuota = 0n,
      cpuShares,
    } = resourcesOf({ limits: ofPod });
    const resources = { cpuPeriod, cpuQuota, cpuShares, memoryLimitInBytes };
    await client.ask(
      'updatePodSandboxResources',
      UpdatePodSandboxResourcesRequest.fromPartial({ podSandboxId, overhead: {}, resources }),
    );
    const cpu = { cpuShares, cpuQuotaUs: cpuQuota, cpuPeriodUs: cpuPeriod };
    await detectCgroups().setLimits(podCgroup(paths, pod), {
      ...(limits.memoryBytes === undefined ? {} : { memoryBytes: memoryLimitInBytes }),
      ...(limits.cpuMilli === undefined ? {} : cpu),
    });
  };
  const setContainer = async (limits: Limits) => {
    const linux = { ...resourcesOf({ limits }), oomScoreAdj: 0n };
    await client.ask(
      'updateContainerResources',
      UpdateContainerResourcesRequest.fromPartial({ containerId, linux }),
    );
  };
  const memory = { memoryBytes: to.memoryBytes };
  if (to.memoryBytes > from.memoryBytes) await setPod(memory);
  await setContainer({ ...from, ...memory });
  if (to.memoryBytes < from.memoryBytes) await setPod(memory);
  const cpu = { cpuMilli: to.cpuMilli };
  if (to.cpuMilli > from.cpuMilli) await setPod(cpu);
  await setContainer(to);
  if (to.cpuMilli < from.cpuMilli) await setPod(cpu);
}
